"""Model files that recipes put beside what they train. None is imported here: they are copied into repositories."""
