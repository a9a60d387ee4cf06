"""Traces of single requests: which are made, what is in them, and where they go."""
