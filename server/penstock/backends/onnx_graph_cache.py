"""Keeps the graph that ONNX Runtime has optimised, where optimising is what a load takes its time for.

A first load tells whether it pays: of graphs with thousands of nodes it does, of a few big matrices it does not, for
these take as long to check as to load. What was found out is kept too, by what the file is known by (its path, size and
time), and costs later loads nothing; the graph itself is found by the digest of all files beside the model.
"""

from __future__ import annotations

import logging
import platform
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import onnxruntime as ort

from penstock.backends import disk_cache
from penstock.backends.base import LoadSpec
from penstock.backends.onnx_options import session_options
from penstock.backends.parameters import string_parameters
from penstock.model_digest import folder_digest

KIND: Final = "onnxruntime"
WORTH_S: Final = 0.2
"""Time of the processor that a load takes before anything is tried."""
GAIN: Final = 0.8
"""What of it a load of the kept graph, with its checks, may take at most to be worth its room on the disk."""
LIMIT_BYTES: Final = 4 * disk_cache.GIB
WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
MODEL_LIMIT_BYTES: Final = disk_cache.GIB
"""Of a model's files. Above it the room on the disk counts more than the time, and a graph must stay under 2 GiB."""

_YES: Final = b"yes"
_NO: Final = b"no"
_PROVIDERS: Final = ("CPUExecutionProvider",)

log = logging.getLogger(__name__)


class _Keys(NamedTuple):
    advice: str
    options: str


def cached_session(spec: LoadSpec, path: Path, worth_s: float = WORTH_S) -> Any:
    """A session on the CPU. Raises LoadFailed for wrong options, and what ONNX Runtime does."""
    if disk_cache.holds_secrets(spec.model_dir) or not _is_for(spec, path):
        return _session(path, session_options(spec))
    keys = _keys(spec, path)
    advice = disk_cache.get(KIND, keys.advice)
    if advice == _YES:
        session = _kept(spec, path, keys)
        if session is not None:
            return session
    started = time.process_time()
    session = _session(path, session_options(spec))
    took_s = time.process_time() - started
    if advice == _NO or took_s < worth_s:
        return session
    del session  # one at a time: memory
    return _keep(spec, path, keys, took_s) or _session(path, session_options(spec))


def _kept(spec: LoadSpec, path: Path, keys: _Keys) -> Any:
    """The session of the graph that was kept; None: there is none."""
    try:
        found = disk_cache.find(KIND, _graph_key(path, keys))
        return found and _session(_beside(path, found), _as_it_is(spec, path))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the model itself may be fine)
        log.warning("%s: its optimised graph is of no use: %s", spec.model_name, error)
        return None


def _keep(spec: LoadSpec, path: Path, keys: _Keys, took_s: float) -> Any:
    """Optimise once more, keep the graph, and load it; None: it is no faster, which is kept instead."""

    def write(target: Path) -> None:
        options = session_options(spec)
        options.optimized_model_filepath = str(target)
        _session(path, options)
        if _graph_key(path, keys) != key:
            raise RuntimeError("the model's files were changed meanwhile")

    try:
        key = _graph_key(path, keys)
        if disk_cache.make(KIND, key, write, LIMIT_BYTES) is None:
            return None
        started = time.process_time()
        session = _kept(spec, path, keys)
        gained = session is not None and time.process_time() - started < GAIN * took_s
    except Exception as error:  # noqa: BLE001 (as above)
        # the next load tries again: the disk may have been full
        log.warning("%s: its optimised graph can't be kept: %s", spec.model_name, error)
        return None
    disk_cache.put(KIND, keys.advice, _YES if gained else _NO, LIMIT_BYTES)
    if not gained:
        _drop(path, keys)
    return session


def _drop(path: Path, keys: _Keys) -> None:
    found = disk_cache.find(KIND, _graph_key(path, keys))
    if found is not None:
        found.unlink(missing_ok=True)


def _session(path: Path | bytes, options: Any) -> Any:
    return ort.InferenceSession(path, options, providers=list(_PROVIDERS))


def _beside(path: Path, graph: Path) -> Path | bytes:
    """What to load of a graph that was kept: its content, where weights may lie in files beside the model."""
    return graph if len(list(path.parent.iterdir())) == 1 else graph.read_bytes()


def _as_it_is(spec: LoadSpec, path: Path) -> Any:
    options = session_options(spec)
    options.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _is_for(spec: LoadSpec, path: Path) -> bool:
    """Whether there is something to optimise, of a size that may be kept."""
    level = ((spec.config.get("optimization") or {}).get("graph") or {}).get("level", 0)
    if level == 2 or path.suffix != ".onnx":
        return False
    return sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()) <= (
        MODEL_LIMIT_BYTES
    )


def _keys(spec: LoadSpec, path: Path) -> _Keys:
    """All that the graph depends on, but for the model: the options that change it, and the processor."""
    graph = (spec.config.get("optimization") or {}).get("graph") or {}
    given = sorted(string_parameters(spec.config).items())
    options = disk_cache.key_of(ort.__version__, given, graph.get("level", 0), _processor())
    found = path.stat()
    advice = disk_cache.key_of("advice", path.resolve(), found.st_size, found.st_mtime_ns, options)
    return _Keys(advice, options)


def _graph_key(path: Path, keys: _Keys) -> str:
    return disk_cache.key_of(keys.options, folder_digest(path.parent), path.name)


def _processor() -> str:
    """Its model and features: ONNX Runtime lays some weights out for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(line for line in lines if line.startswith(wanted))
