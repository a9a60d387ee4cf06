"""What can be done with a server: the verbs that roles allow."""

from __future__ import annotations

from enum import StrEnum


class Verb(StrEnum):
    """What can be done with a server."""

    INFER = "infer"
    READ_METADATA = "read_metadata"
    """Of the server, and of models: names, versions, configuration, whether they are ready."""
    READ_STATISTICS = "read_statistics"
    LOAD = "load"
    """Load and unload models, and read why a load failed."""
    ROLLOUT = "rollout"
    MANAGE_TENANTS = "manage_tenants"
    READ_AUDIT = "read_audit"
    METRICS = "metrics"
    CONFIGURE = "configure"
    """Read and change trace and log settings."""
