"""What runs a model. `base.py` is the contract, `registry.py` finds the backend a configuration names."""
