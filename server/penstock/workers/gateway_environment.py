"""Environment variables by which the supervisor tells the processes that it starts where to find what they need."""

from __future__ import annotations

from typing import Final

CONTROL_FD: Final = "PENSTOCK_CONTROL_FD"
"""The gateway's descriptor of the control socket."""
SETTINGS_FILE: Final = "PENSTOCK_SETTINGS_FILE"
"""The file from which the gateway reads its settings."""
