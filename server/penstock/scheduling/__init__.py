"""When, and together with whom: queues and the batcher. No I/O and no clock: `now` is an argument."""
