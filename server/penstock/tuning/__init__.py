"""Finds out how a model runs fastest on the machine at hand."""
