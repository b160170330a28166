"""Image sources, augmented views and input pipelines."""
