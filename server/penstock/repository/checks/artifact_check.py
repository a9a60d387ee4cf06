"""Verifies the versions of checked models as a server would, and makes the copies that they are to be loaded from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.backends.registry import backend_for
from penstock.config import Settings
from penstock.errors import PenstockError
from penstock.repository.checks.findings import error
from penstock.repository.checks.model_check import CheckedModel
from penstock.secrets.source import SecretSource
from penstock.trust.artifact import Artifact
from penstock.trust.staging import Staging
from penstock.trust.trust import Trust

Copies = Mapping[tuple[str, int], Path]
"""Model and version → the model's folder to load it from, where it is not the one that it lies in."""


@contextmanager
def copies(settings: Settings, models: Sequence[CheckedModel]) -> Iterator[Copies]:
    """What can't be trusted, and pickles, are findings of their models. The copies are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="penstock-check-") as name:
        # it holds what was decrypted, and only for as long as the check takes
        staging = Staging(Path(name) / "plain", Path(name) / "decrypted")
        secrets = SecretSource(settings.secrets)
        trust = Trust(
            settings.artifacts,
            staging,
            lambda reference: secrets.get(reference).reveal(),
            has_clients=False,
        )
        try:
            yield {
                key: folder
                for model in models
                for key, folder in _judge(trust, model)
                if folder is not None
            }
        finally:
            secrets.close()


def _judge(trust: Trust, model: CheckedModel) -> Iterator[tuple[tuple[str, int], Path | None]]:
    for version in model.served:
        try:
            staged = trust.stage(Artifact(model.name, version, model.folder.absolute(), b""))
        except PenstockError as problem:
            place = str(model.folder / str(version))
            model.findings.insert(0, error(f"version {version} is refused: {problem}", place))
        else:
            if staged is not None:
                _name_backend(model, staged.model_dir / str(version))
            yield (model.name, version), None if staged is None else staged.model_dir


def _name_backend(model: CheckedModel, version_dir: Path) -> None:
    """What an encrypted model is of is seen in its copy only."""
    if model.config is not None and not model.backend:
        # what is wrong with it loading tells
        with suppress(PenstockError):
            model.backend = backend_for(model.config, version_dir)
