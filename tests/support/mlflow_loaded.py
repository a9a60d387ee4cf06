"""Models that MLflow has saved, as a worker has them: loaded, asked, and changed before that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from model_files import batch_of, load_spec, whole
from penstock.backends import registry
from penstock.backends.base import Batch, LoadedModel
from penstock.model_config import ConfigDict
from penstock.trust.pickles import find_pickle
from penstock.types import Array, Parameter


def load(model_dir: Path, config: ConfigDict | None = None, threads: int = 1) -> LoadedModel:
    return registry.load(load_spec(model_dir, config, threads))


def predict(model: LoadedModel, *requests: dict[str, Array], **options: Any) -> dict[str, Array]:
    return dict(whole(model.execute(batch_of(*requests, **options))))


def with_parameters(batch: Batch, *parameters: dict[str, Parameter]) -> Batch:
    infos = [
        msgspec.structs.replace(info, parameters=given)
        for info, given in zip(batch.requests, parameters, strict=True)
    ]
    return Batch(batch.inputs, infos)


def shapes(model: LoadedModel, key: str) -> list[tuple[str, str, list[int]]]:
    return [(t["name"], t["data_type"], t["dims"]) for t in model.config[key]]


def edit(model_dir: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a saved MLmodel file."""
    path = model_dir / "1" / "MLmodel"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def pickle_in(model_dir: Path, name: str) -> str:
    """What makes a file of the version one that runs code."""
    with (model_dir / "1" / name).open("rb") as file:
        return find_pickle(file, f"1/{name}")
