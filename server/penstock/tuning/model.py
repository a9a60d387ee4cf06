"""The model that is tuned: its folder, its configuration file, and why it can't be."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from penstock.backends.registry import backend_for
from penstock.errors import ConfigError
from penstock.model_config import ConfigDict, ModelConfig, asks_decoupled, parse
from penstock.repository.config_file import read_config
from penstock.repository.dependencies import needs_of
from penstock.repository.folders import versions_in
from penstock.repository.version_policy import version_policy
from penstock.trust.copying import SIGNATURE
from penstock.trust.sealed import SUFFIX
from penstock.tuning.candidate import EXCHANGEABLE, Candidate, Space, candidate_of, changes_between
from penstock.tuning.config_edit import Changes, edit_pbtxt, edit_yaml

PBTXT: Final = "config.pbtxt"
YAML: Final = "config.yaml"


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A model as it lies there. `read` makes it."""

    folder: Path
    version: int
    given: ConfigDict
    """What its file says, with all defaults; without a file: nothing."""
    text: str | None
    """Of its file; None: it has none."""
    filename: str
    complete: ConfigDict
    signed: bool

    @property
    def config(self) -> ModelConfig:
        """The complete configuration."""
        return parse(self.complete)

    @property
    def now(self) -> Candidate:
        """How it runs now."""
        return candidate_of(self.complete)

    def space(self, cores: int) -> Space:
        """What may be tried with it."""
        backend = self.complete["backend"]
        file = self.given.get("default_model_filename") or "model.onnx"
        onnx = file.endswith(".onnx") and (self.folder / str(self.version) / file).exists()
        exchangeable = backend in EXCHANGEABLE and onnx and not self._has_own_parameters()
        groups = self.given.get("instance_group") or []
        plain = all(_is_plain(group) for group in groups) and len(groups) <= 1
        return Space(
            backends=EXCHANGEABLE if exchangeable else (backend,),
            cores=cores,
            batches=self.complete["max_batch_size"] > 0 and backend in EXCHANGEABLE,
            waits=self.complete.get("dynamic_batching") is not None,
            instances=plain,
        )

    def _has_own_parameters(self) -> bool:
        """Some that only its backend knows: another one would not do what they ask for."""
        known = {*self.given.get("parameters", {})} - {
            *("intra_op_thread_count", "INFERENCE_NUM_THREADS", "slo_p99_ms"),
            *("execution_timeout_ms",),
        }
        return bool(known)

    def text_for(self, candidate: Candidate, **more: str | None) -> str:
        """The configuration file for another way to run it. `more`: what else is to be another than it says."""
        changes: dict[tuple[str, ...], object] = {}
        if self.text is None:
            changes |= self._unsaid(candidate)
        changes |= changes_between(self.now, candidate, self.complete)
        changes |= {(key,): value for key, value in more.items()}
        edit = edit_pbtxt if self.filename == PBTXT else edit_yaml
        return edit(self.text or "", changes)

    def _unsaid(self, candidate: Candidate) -> Changes:
        """What a file has to say that a model without one does not need: with the first key the rest is no longer
        left to the backend."""
        changes: dict[tuple[str, ...], object] = {("backend",): candidate.backend}
        if candidate.max_batch_size:
            changes["max_batch_size",] = candidate.max_batch_size
        if self.complete.get("dynamic_batching") is not None:
            changes["dynamic_batching", "max_queue_delay_microseconds"] = candidate.delay_us
        return changes

    def check_writable(self) -> None:
        """Raises ConfigError where `write` is bound to fail, before anything is measured. Files that are signed are
        not written."""
        if not self.signed and not os.access(self.folder, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{self.folder} can't be written, where {self.filename} is to be changed:"
                " --dry-run shows what would be"
            )

    def write(self, candidate: Candidate) -> None:
        """Put the text into the file's place, whole or not at all. Raises ConfigError where it would not mean what it
        should, OSError where it can't be written."""
        path = self.folder / self.filename
        if (path.read_text() if path.exists() else None) != self.text:
            raise ConfigError(f"{path} was changed meanwhile; it stays as it is")
        new = path.with_name(f".{self.filename}.{os.getpid()}")
        try:
            new.write_text(self.text_for(candidate))
            if path.exists():
                new.chmod(path.stat().st_mode & 0o777)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)


def read_model(folder: Path) -> TunedModel:
    """Raises ConfigError with why it can't be tuned. `complete` is still what the file says: see `completed`."""
    config = read_config(folder) or {}
    name = folder.name
    _refuse(name, config)
    versions = version_policy(config, versions_in(folder))
    if not versions:
        raise ConfigError(f"no version folder (a number, such as 1/) in {folder}")
    version = versions[-1]
    version_dir = folder / str(version)
    if any(version_dir.rglob(f"*{SUFFIX}")):
        raise ConfigError(f"{name!r} is encrypted: tune it before it is, on a machine you trust")
    backend = backend_for(config, version_dir)
    filename = PBTXT if (folder / PBTXT).exists() else YAML
    path = folder / filename
    return TunedModel(
        folder=folder,
        version=version,
        given=config,
        text=path.read_text() if path.exists() else None,
        filename=filename if path.exists() else PBTXT,
        complete={**config, "backend": backend},
        signed=(version_dir / SIGNATURE).exists(),
    )


def _refuse(name: str, config: ConfigDict) -> None:
    """What a closed loop of single requests says nothing of."""
    if needs_of(config):
        raise ConfigError(f"{name!r} is an ensemble: tune the models that it is made of")
    if config.get("sequence_batching") is not None:
        raise ConfigError(f"{name!r} takes sequences: those can't be tuned")
    if asks_decoupled(config):
        raise ConfigError(f"{name!r} is decoupled: that can't be tuned")
    kinds = {group.get("kind") for group in config.get("instance_group") or []}
    if "KIND_GPU" in kinds:
        raise ConfigError(f"{name!r} asks for KIND_GPU: only what runs on CPUs can be tuned")


def _is_plain(group: ConfigDict) -> bool:
    said = {key for key, value in group.items() if value} - {"name", "count", "kind"}
    return not said


def as_json(candidate: Candidate) -> dict[str, object]:
    """For other programs."""
    return asdict(candidate)
