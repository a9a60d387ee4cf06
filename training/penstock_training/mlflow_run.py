"""One run in MLflow: found again after a restart, and opened once however often that is tried. All of it blocks."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.redaction import redacted
from penstock.trust.signing import write_whole
from penstock_training.metric_journal import Entry
from penstock_training.mlflow_link import connect, experiment_id
from penstock_training.run_facts import Opening
from penstock_training.tracking_config import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY: Final = "penstock.run.key"
"""Tag by which a run is found whose id was lost: the answer to its creation did not come, or the process was killed."""
MAX_BATCH: Final = 1000
"""Metrics that MLflow takes at once."""
MAX_PARAMETERS: Final = 100
MAX_DIGEST: Final = 36
"""Characters of a dataset's digest."""
MAX_CHANGE: Final = 500
"""Characters of a tag that says what a resume has changed."""

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run's folder remembers of the run in MLflow."""

    uri: str
    key: str
    run_id: str = ""
    """Empty: it was not made yet, or nobody has heard of it."""


class MlflowRun:
    """The run of a folder. Methods raise what MLflow raises."""

    def __init__(self, settings: TrackingSettings, folder: Path) -> None:
        """`folder`: where it is remembered."""
        self._settings: Final = settings
        self._path: Final = folder / "run.json"
        self._client: MlflowClient | None = None
        self._identity = remembered(self._path, settings.uri) or Identity(
            redacted(settings.uri), uuid.uuid4().hex
        )

    @property
    def client(self) -> MlflowClient:
        """Made when it is needed first."""
        if self._client is None:
            self._client = connect(self._settings.uri)
        return self._client

    @property
    def run_id(self) -> str:
        """Empty: it was not opened yet."""
        return self._identity.run_id

    def open(self) -> str:
        """Find the run, or make it. Returns its id."""
        if not self._identity.run_id:
            # known before it is made: whatever happens in between, it is found again
            self._remember(self._identity)
            experiment = experiment_id(self.client, self._settings.uri, self._settings.experiment)
            found = self._made_before(experiment)
            if not found:
                self._make(experiment)
                found = self._made_before(experiment)
            self._remember(Identity(self._identity.uri, self._identity.key, found))
            log.info("MLflow's run is %s, in the experiment %s", found, self._settings.experiment)
        return self._identity.run_id

    def describe(self, told: Opening) -> None:
        """Parameters, tags, datasets and files. Parameters can't change: what a resume has changed is a tag."""
        from mlflow.entities import Param

        run = self.client.get_run(self.run_id)
        if run.info.status != "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        known = run.data.params
        new = [Param(name, value) for name, value in told.parameters.items() if name not in known]
        for part in _parts(new, MAX_PARAMETERS):
            self.client.log_batch(self.run_id, params=part, synchronous=True)
        self.set_tags({**told.tags, **_changes(known, told.parameters)})
        if not run.inputs or not run.inputs.dataset_inputs:
            self._note_data(told.tables)
        with tempfile.TemporaryDirectory(prefix="penstock-") as name:
            for path, text in told.files.items():
                file = Path(name, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            self.client.log_artifacts(self.run_id, name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags of the run."""
        from mlflow.entities import RunTag

        found = [RunTag(name, value) for name, value in tags.items()]
        for part in _parts(found, MAX_PARAMETERS):
            self.client.log_batch(self.run_id, tags=part, synchronous=True)

    def log(self, entries: Iterable[Entry]) -> None:
        """Metrics. The same ones, sent again, are there once."""
        from mlflow.entities import Metric

        found = [
            Metric(name, value, entry.time_ms, entry.step)
            for entry in entries
            for name, value in entry.values.items()
        ]
        for part in _parts(found, MAX_BATCH):
            self.client.log_batch(self.run_id, metrics=part, synchronous=True)

    def upload(self, source: Path, artifact_path: str) -> None:
        """A file, or a folder, with all that is in it."""
        if source.is_dir():
            self.client.log_artifacts(self.run_id, str(source), artifact_path)
        else:
            self.client.log_artifact(self.run_id, str(source), artifact_path)

    def end(self, status: str) -> None:
        """`FINISHED`, `FAILED` or `KILLED`."""
        self.client.set_terminated(self.run_id, status, time.time_ns() // 1_000_000)

    def _made_before(self, experiment: str) -> str:
        found = self.client.search_runs(
            [experiment],
            f"tags.`{KEY}` = '{self._identity.key}'",
            order_by=["attributes.start_time ASC"],
        )
        for other in found[1:]:
            # a server that hung has done late what nobody waited for any more
            self.client.delete_run(other.info.run_id)
        return str(found[0].info.run_id) if found else ""

    def _make(self, experiment: str) -> None:
        self.client.create_run(
            experiment,
            tags={KEY: self._identity.key},
            run_name=self._settings.run_name or None,
        )

    def _note_data(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=str(table["version"]).removeprefix("sha256:")[:MAX_DIGEST] or "unpinned",
                    source_type="delta_table" if _is_delta(str(table["version"])) else "parquet",
                    source=redacted(json.dumps(table)),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for name, table in tables.items()
        ]
        if inputs:
            self.client.log_inputs(self.run_id, inputs)

    def _remember(self, identity: Identity) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        found = {"uri": identity.uri, "key": identity.key, "run_id": identity.run_id}
        write_whole(self._path, json.dumps(found, indent=1).encode() + b"\n")
        self._identity = identity


def remembered(path: Path, uri: str) -> Identity | None:
    """The run that a folder was noted as; None: none yet, or in another place. Raises OSError."""
    try:
        found: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if found["uri"] != redacted(uri):
        log.warning(
            "the run was noted in %s before, and is noted anew in %s", found["uri"], redacted(uri)
        )
        return None
    return Identity(found["uri"], found["key"], found["run_id"])


def _is_delta(version: str) -> bool:
    """By how the lake writes versions."""
    return version.isdigit() or version.startswith("delta-")


def _changes(known: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    return {
        f"penstock.changed.{name}": f"{known[name]} → {value}"[:MAX_CHANGE]
        for name, value in now.items()
        if name in known and known[name] != value
    }


def _parts(items: Sequence[Item], most: int) -> Iterable[Sequence[Item]]:
    return (items[start : start + most] for start in range(0, len(items), most))
