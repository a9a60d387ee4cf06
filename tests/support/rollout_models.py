"""Models of several versions that tests roll out, and the traffic that they get meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from served_models import APPS

Fault = Mapping[str, float]

XY: Final = """
    input [ { name: "X" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
ALL: Final = "version_policy { all { } }"


def write_versions(
    folder: Path, versions: Mapping[int, Fault], config: str = "", app: str = "fickle"
) -> None:
    """A model whose versions are good but for their faults."""
    folder.mkdir(parents=True)
    text = f'backend: "python"\nmax_batch_size: 8\n{XY}\n{ALL}\n{config}'
    (folder / "config.pbtxt").write_text(text)
    for number, fault in versions.items():
        write_version(folder, number, fault, app)


def write_version(folder: Path, number: int, fault: Fault, app: str = "fickle") -> None:
    """One more version of a model, which appears with all that belongs to it."""
    made = folder.parent.parent / f".{folder.name}-{number}"
    made.mkdir()
    shutil.copy(APPS / f"{app}.py", made / "model.py")
    (made / "fault.json").write_text(json.dumps(dict(fault)))
    made.rename(folder / str(number))


def plan(to: int, **changes: Any) -> dict[str, Any]:
    """A quick roll-out, whose steps end as soon as there were a few requests."""
    return {"to": to, "steps": [10, 50, 100], "step_s": 1, "min_requests": 20, **changes}
