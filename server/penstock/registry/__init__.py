"""Models of an MLflow registry: found, fetched and followed, by a process that the gateway never waits for."""
