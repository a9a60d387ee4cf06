"""`penstock tenants`, in this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

from penstock.cli import main


def tenants(*arguments: str) -> str:
    """Standard output of `penstock tenants …`, which has to succeed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()) as told:
        code = main(["tenants", *arguments])
    assert code == 0, told.getvalue()
    return out.getvalue()


def new_key(where: str, tenant: str, *arguments: str) -> str:
    """An API key of a new tenant. `where`: the flag that names its file, or the settings that do."""
    tenants("create", tenant, where)
    return tenants("key", "create", tenant, *arguments, where).strip()
