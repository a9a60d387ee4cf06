"""Where each value of a model's configuration comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from penstock.model_config import ConfigDict
from penstock.repository.config_schema import LocatedConfig

DEFAULT: Final = "default"
MODEL_FILES: Final = "the model's files"
NOTHING: Final[Sequence[Any]] = (None, False, 0, "", [], {}, "FORMAT_NONE", "PRIORITY_DEFAULT")
"""Values that say nothing, unless they were given."""


class ConfigValue(msgspec.Struct, frozen=True):
    """One value. `source` is `config.pbtxt:3`, or in words."""

    key: str
    value: Any
    source: str


def provenance(
    before: ConfigDict, complete: ConfigDict, located: LocatedConfig | None
) -> list[ConfigValue]:
    """All values of `complete` that say something. `before`: the configuration as the file and the defaults have it."""
    known = dict(_leaves(before))
    lines = {} if located is None else dict(located.lines)
    file = "" if located is None else located.source.path.name
    values = []
    for key, value in _leaves(complete):
        # in YAML a parameter is written without the key of its value
        line = lines.get(key) or lines.get(key.removesuffix(".string_value"))
        if line is not None:
            values.append(ConfigValue(key, value, f"{file}:{line}"))
        elif value in NOTHING and key != "max_batch_size":
            continue
        elif key in known and known[key] == value:
            values.append(ConfigValue(key, value, DEFAULT))
        else:
            values.append(ConfigValue(key, value, MODEL_FILES))
    return values


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of all that holds no further keys. Lists of plain values are one value."""
    if isinstance(value, dict):
        if not value and key:
            yield key, value
        for name, each in value.items():
            yield from _leaves(each, _join(key, name))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{key}[{index}]")
    else:
        yield key, value


def _join(key: str, name: str) -> str:
    # keys of maps, as `LocatedConfig.lines` has them
    for block in ("parameters", "metric_tags", "cc_model_filenames", "priority_queue_policy"):
        if key.rpartition(".")[2] == block:
            return f"{key}[{name!r}]"
    return f"{key}.{name}" if key else name
