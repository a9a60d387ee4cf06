"""The chaos run: real clients ask a real server that is harmed in every way; at the end the books are balanced."""
