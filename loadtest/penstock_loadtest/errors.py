"""The one error of the harness."""


class BenchmarkError(Exception):
    """A measurement can't be made, or what was measured is not valid. `str(error)` is for a person."""
