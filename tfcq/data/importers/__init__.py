"""Makes data sets of files that TFDS does not know, each run as a command."""
