"""A small private CA: its keys, its certificates, and what they say."""
