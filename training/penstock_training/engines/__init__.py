"""What starts a run's processes, and starts them anew when one dies."""
