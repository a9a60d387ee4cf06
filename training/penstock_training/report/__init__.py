"""What a run's evaluation report says, and the one HTML page that says it."""
