"""Libraries that report to their makers don't, in our processes and in those that they start."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType, ModuleType
from typing import Final, cast

VARIABLES: Final = MappingProxyType({"ORT_DISABLE_TELEMETRY": "1"})
"""What says so in the environment. ONNX Runtime (from 1.29 on) uploads events to Microsoft once it is imported."""

MODULES: Final = ("openvino_telemetry",)
"""What sends OpenVINO's events to Google Analytics, as soon as that is imported: no variable turns it off, but OpenVINO
can do without the module."""


def keep_quiet() -> None:
    """To be called before such a library is imported. Who has set a variable has decided otherwise."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    modules = cast(dict[str, ModuleType | None], sys.modules)
    for name in MODULES:
        # None: whoever imports it is told that there is none
        modules.setdefault(name, None)
