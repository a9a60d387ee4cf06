"""What the tests of trust have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from trusted_models import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A model, who signs it, and the policy that it is served by."""
    return Workshop(tmp_path)
