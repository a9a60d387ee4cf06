"""Which GPUs there are, and which instance of a model runs on which of them."""
