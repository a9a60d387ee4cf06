"""What a registration asks of MLflow: each call looks first at what is there, and can be made again. Blocks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_training.errors import RegistrationError
from penstock_training.mlflow_link import code_of, is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

META: Final = "registered_model_meta"
"""MLflow adds it to what it downloads; nobody has registered it."""


class Registry:
    """One registered model, and what one run makes for it. Methods raise what MLflow raises."""

    def __init__(self, client: MlflowClient, uri: str, name: str, run_id: str) -> None:
        self.client: Final = client
        self.name: Final = name
        self.run_id: Final = run_id
        self.uri: Final = uri

    def logged_model(self, step: int) -> Any:
        """The run's model, which is made where there is none. Its files come later."""
        found = self.find_logged_model()
        if found is None:
            found = self.client.create_logged_model(
                self.client.get_run(self.run_id).info.experiment_id,
                name=self._logged_name,
                source_run_id=self.run_id,
                model_type="onnx",
            )
        self._link_to_run(found.model_id, step)
        return found

    def find_logged_model(self) -> Any:
        """None: there is none."""
        experiment = self.client.get_run(self.run_id).info.experiment_id
        found = self.client.search_logged_models(
            [experiment],
            f"source_run_id = '{self.run_id}' AND name = '{self._logged_name}'",
            order_by=[{"field_name": "creation_time", "ascending": True}],
        )
        return next(iter(found), None)

    def upload(self, model_id: str, folder: Path) -> None:
        """All files of a folder into the run's model."""
        self.client.log_model_artifacts(model_id, str(folder))

    def complete(self, model_id: str) -> None:
        """Its files are all there."""
        if str(self.client.get_logged_model(model_id).status) != "READY":
            self.client.finalize_logged_model(model_id, "READY")

    def version(self, model_id: str, tags: Mapping[str, str], description: str) -> int:
        """The number of the run's version, which is made where there is none."""
        if not (found := self.versions()):
            self._make_model()
            self.client.create_model_version(
                self.name,
                self._source(model_id),
                self.run_id,
                tags=dict(tags),
                description=description or None,
                model_id=model_id,
            )
            found = self.versions()
        number, *others = found
        for other in others:
            # a request whose answer was lost, and that was sent again by some proxy
            self.client.delete_model_version(self.name, str(other))
        return number

    def versions(self) -> list[int]:
        """Those that were made of the run, the oldest first."""
        name = self.name.replace("'", "''")
        found = self.client.search_model_versions(f"name = '{name}' AND run_id = '{self.run_id}'")
        return sorted(int(each.version) for each in found)

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Tags of a version; those that it has already are left as they are."""
        known = self.client.get_model_version(self.name, str(version)).tags
        for name, value in tags.items():
            if known.get(name) != value:
                self.client.set_model_version_tag(self.name, str(version), name, value)

    def by_alias(self, alias: str) -> Any:
        """The version that an alias names; None: there is none."""
        try:
            return self.client.get_model_version_by_alias(self.name, alias)
        except Exception as error:
            # MLflow has one code for a missing alias, and another one for a missing model
            if is_missing(error) or code_of(error) == "INVALID_PARAMETER_VALUE":
                return None
            raise

    def set_alias(self, alias: str, version: int) -> None:
        """From now on it names this version."""
        found = self.by_alias(alias)
        if found is None or int(found.version) != version:
            self.client.set_registered_model_alias(self.name, alias, str(version))

    def drop_alias(self, alias: str, version: int) -> None:
        """It does not name this version any more."""
        found = self.by_alias(alias)
        if found is not None and int(found.version) == version:
            self.client.delete_registered_model_alias(self.name, alias)

    def fetch_model(self, model_id: str, folder: Path) -> None:
        """All files of a run's model into a folder, which appears as a whole."""
        location = self.client.get_logged_model(model_id).artifact_location
        self._fetch(str(location), folder)

    def fetch_version(self, version: int, folder: Path) -> None:
        """All files of a version, as servers get them."""
        found = self.client.get_model_version_download_uri(self.name, str(version))
        if str(found).startswith("models:/m-"):
            self.fetch_model(str(found).removeprefix("models:/"), folder)
        else:
            self._fetch(str(found), folder)

    def _fetch(self, location: str, folder: Path) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        repository: Any = get_artifact_repository(location, self.uri, self.uri)
        repository.download_artifacts("", str(draft))
        (draft / META).unlink(missing_ok=True)
        if not any(draft.iterdir()):
            raise RegistrationError(f"{location} holds no files")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)

    @property
    def _logged_name(self) -> str:
        return "".join(c if c.isalnum() or c in "-_" else "-" for c in self.name)

    def _source(self, model_id: str) -> str:
        """A store without a server would look for the model in the store of MLflow's global setting."""
        if self.uri.startswith(("http://", "https://")):
            return f"models:/{model_id}"
        return str(self.client.get_logged_model(model_id).artifact_location)

    def _link_to_run(self, model_id: str, step: int) -> None:
        from mlflow.entities import LoggedModelOutput

        outputs = self.client.get_run(self.run_id).outputs
        known = () if outputs is None else outputs.model_outputs
        if all(each.model_id != model_id for each in known):
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step)])

    def _make_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except Exception as error:
            if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                raise
