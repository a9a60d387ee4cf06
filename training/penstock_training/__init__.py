"""Distributed training that ends in a registered model version."""
