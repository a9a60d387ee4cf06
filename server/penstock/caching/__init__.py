"""Answers that were given before, and requests that wait for the one like them that runs. No I/O, no clock."""
