"""What MLflow is told of a run beside its metrics: parameters, tags, data, and files."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from penstock.redaction import redacted
from penstock_training.config import TrainConfig
from penstock_training.data_config import TableSettings
from penstock_training.environment import frozen_packages, hardware
from penstock_training.git_revision import GitRevision, git_revision
from penstock_training.tracking import RunFacts

MAX_PARAMETER: Final = 5000
"""Characters of a value that all of MLflow's stores take."""

DATA_URI: Final = "penstock.data.uri"
DATA_VERSION: Final = "penstock.data.version"
CONFIG_DIGEST: Final = "penstock.config.digest"
FOLDER: Final = "penstock.run.folder"
HOST: Final = "penstock.run.host"


@dataclass(frozen=True)
class Opening:
    """All that is told when a run starts, of JSON's kinds: it is kept until it was told."""

    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    files: Mapping[str, str]
    """Path of an artifact → its text."""
    tables: Mapping[str, Mapping[str, Any]]


def opening(config: TrainConfig, facts: RunFacts) -> Opening:
    """Gather it: takes as long as git does."""
    revision = git_revision(code_folder(config.recipe.name))
    if not revision.commit:
        revision = git_revision(Path.cwd())
    return Opening(
        parameters=parameters(config, facts),
        tags=tags(config, facts, revision),
        files=dict(_files(config, facts, revision)),
        tables={name: t.model_dump(mode="json") for name, t in config.data.tables.items()},
    )


def parameters(config: TrainConfig, facts: RunFacts) -> dict[str, str]:
    """The whole configuration, one value each: `optimizer.learning_rate`. And what came of it, as `facts.…`."""
    found = dict(flattened(config.model_dump(mode="json", by_alias=True)))
    told = {**asdict(facts), "folder": None, "resumed_from_step": None, "restarts": None}
    found |= {f"facts.{name}": value for name, value in flattened(told)}
    return {name: value[:MAX_PARAMETER] for name, value in found.items()}


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested tables by their path. What is not given is left out; credentials in URLs are hidden."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{prefix}{name}", redacted(text)


def tags(config: TrainConfig, facts: RunFacts, revision: GitRevision) -> dict[str, str]:
    """What runs are found by, and what versions made of them are traced back by."""
    return {
        "mlflow.user": _user(),
        "mlflow.source.name": config.recipe.name,
        "mlflow.source.type": "LOCAL",
        CONFIG_DIGEST: config.digest(),
        FOLDER: str(facts.folder.resolve()),
        HOST: socket.gethostname(),
        **data_tags(config.data.tables),
        **revision.tags,
        **config.tracking.tags,
    }


def data_tags(tables: Mapping[str, TableSettings]) -> dict[str, str]:
    """Where the data lies, and which version of it was read; of several tables the one after the other, and each by its
    name too."""
    if not tables:
        return {}
    uris = {name: redacted(table.uri) for name, table in tables.items()}
    found = {
        DATA_URI: ", ".join(uris.values()),
        DATA_VERSION: ", ".join(table.version for table in tables.values()),
    }
    if len(tables) > 1:
        for name, table in tables.items():
            found |= {
                f"penstock.data.{name}.uri": uris[name],
                f"penstock.data.{name}.version": table.version,
            }
    return found


def code_folder(recipe: str) -> Path:
    """Where the recipe's code lies; the current folder where that is not known."""
    place, _, _ = recipe.rpartition(":") if recipe.count(":") else (recipe, "", "")
    if place.endswith(".py"):
        return Path(place).absolute().parent
    module = sys.modules.get(place)
    try:
        found = module.__spec__ if module is not None else find_spec(place)
    except (ImportError, ValueError):
        return Path.cwd()
    origin = None if found is None else found.origin
    return Path(origin).parent if origin and Path(origin).exists() else Path.cwd()


def _files(
    config: TrainConfig, facts: RunFacts, revision: GitRevision
) -> Iterator[tuple[str, str]]:
    # a run that is resumed elsewhere has another machine: none of them is overwritten
    start = f"starts/from-step-{facts.resumed_from_step or 0}"
    if facts.restarts:
        start += f"-restart-{facts.restarts}"
    yield f"{start}.json", _json({"facts": asdict(facts), "hardware": hardware()})
    yield "environment/requirements.txt", frozen_packages()
    yield "environment/hardware.json", _json(hardware())
    yield "config.json", redacted(_json(config.model_dump(mode="json", by_alias=True)))
    if config.tracking.git_diff and revision.dirty:
        yield "git/changes.diff", redacted(revision.changes)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # a container's user may have no name
        return "unknown"
