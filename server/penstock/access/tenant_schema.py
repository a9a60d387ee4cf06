"""The tables of the file of tenants."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x50_53_54_4E
"""`PSTN`: tells a file of tenants from other SQLite files."""

_FIRST: Final = (
    "CREATE TABLE revision (number INTEGER NOT NULL) STRICT",
    "INSERT INTO revision VALUES (1)",
    """CREATE TABLE tenants (
        name TEXT PRIMARY KEY,
        created_at REAL NOT NULL,
        disabled INTEGER NOT NULL DEFAULT 0,
        weight REAL,
        models TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL REFERENCES tenants ON DELETE CASCADE,
        salt BLOB NOT NULL,
        hash BLOB NOT NULL,
        roles TEXT NOT NULL,
        models TEXT NOT NULL,
        label TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL DEFAULT 0,
        revoked_at REAL NOT NULL DEFAULT 0,
        last_used_day INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX api_keys_of_tenant ON api_keys (tenant)",
    """CREATE TABLE limits (
        tenant TEXT NOT NULL REFERENCES tenants ON DELETE CASCADE,
        models TEXT NOT NULL,
        kind TEXT NOT NULL,
        value REAL NOT NULL,
        PRIMARY KEY (tenant, models, kind)
    ) STRICT, WITHOUT ROWID""",
    # not only of tenants that are in this file: tokens and certificates name others
    """CREATE TABLE usage (
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        day INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant, day, model)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX usage_by_day ON usage (day)",
    # tokens and certificates go on naming a tenant that was deleted
    "CREATE TABLE deleted_tenants (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
)

_CAPTURED: Final = (
    # nobody has allowed anything before he was asked
    "ALTER TABLE tenants ADD COLUMN captured TEXT NOT NULL DEFAULT '[]'",
)

MIGRATIONS: Final = (_FIRST, _CAPTURED)
"""From each version to the next one; the first from an empty file."""
VERSION: Final = len(MIGRATIONS)
