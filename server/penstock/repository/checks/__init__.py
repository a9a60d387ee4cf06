"""What `penstock check` finds in a repository: mistakes, settings without effect, and where each value comes from."""
