"""What is served: configuration files, versions, and the life of each model."""
