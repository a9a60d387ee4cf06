"""The process that owns all others: starts, watches, restarts and drains gateway and workers."""
