"""What the server tells of itself: statistics, metrics, logs."""
