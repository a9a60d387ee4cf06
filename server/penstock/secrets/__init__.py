"""Secrets: read from files, the environment or Vault, watched, and never shown."""
