"""Self-supervised frameworks, recipes and the Pretrainer that runs them."""
