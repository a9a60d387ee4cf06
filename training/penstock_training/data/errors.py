"""What can be wrong with data. Every text names the table, and where in it.

DataError
├── TableMissing      nothing to read at this address
├── VersionMissing    there is a table, but not (or no longer) this version of it
├── TableChanged      the files are not those that were pinned
├── SchemaMismatch    a column is missing or of another type
├── BadValues         a value that no tensor can be made of: null, NaN, a list of another length
└── BadFilter         an expression that is none, or does not fit the columns
"""

from __future__ import annotations

from penstock_training.errors import DataError


class TableMissing(DataError):
    """There is no table at this address."""


class VersionMissing(DataError):
    """The table has no such version, or no longer."""


class TableChanged(DataError):
    """Files were changed, taken away, or are of another table than the one that was pinned."""


class SchemaMismatch(DataError):
    """A column is missing, or of a type that does not fit."""


class BadValues(DataError):
    """A column holds what no tensor can be made of."""


class BadFilter(DataError):
    """An expression can't be read, or does not fit the table's columns."""
