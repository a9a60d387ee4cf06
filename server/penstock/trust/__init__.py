"""Trust in models: signatures, encryption at rest, and private copies that are what was verified."""
