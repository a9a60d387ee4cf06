"""A new version of a model gets a share of its requests, is watched, and is kept or taken back. Sans I/O, no clock."""
