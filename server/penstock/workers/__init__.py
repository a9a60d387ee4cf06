"""Where models run: worker processes, the shared memory that tensors cross in, and the messages beside it."""
