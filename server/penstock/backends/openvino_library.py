"""OpenVINO's Python package, imported without what no server needs.

`import openvino` imports its converter too, `openvino.tools.ovc`, which sends an event to Google Analytics at once, and
writes an id of this user into `~/intel`. Workers have nothing that sends it (`penstock/quiet.py`); the converter is
left out all the same, for it takes time to import."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final, cast

from penstock.errors import LoadFailed
from penstock.quiet import keep_quiet

CONVERTER: Final = "openvino.tools.ovc"


def openvino() -> Any:
    """The package. Raises LoadFailed where it is not installed."""
    keep_quiet()
    modules = cast(dict[str, ModuleType | None], sys.modules)
    if "openvino" not in modules:
        # None: whoever imports it is told that there is none
        modules.setdefault(CONVERTER, None)
    try:
        import openvino
    except ImportError as error:
        raise LoadFailed(
            f"OpenVINO is not installed, or can't be imported: {error};"
            " pip install 'penstock[openvino]'"
        ) from error
    return openvino
