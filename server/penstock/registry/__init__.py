"""Models of an MLflow registry: found, fetched, followed, by a process of their own that the gateway never waits for."""
