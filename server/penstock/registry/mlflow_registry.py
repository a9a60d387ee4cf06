"""An MLflow registry: its database, or a tracking server. Only the agent's process imports this."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from penstock.errors import ConfigError, Forbidden, LoadFailed, NotFound, PenstockError, Unavailable
from penstock.redaction import redacted
from penstock.registry.fetch import Artifacts
from penstock.registry.local_artifacts import LocalArtifacts
from penstock.registry.messages import RunFacts, VersionLineage
from penstock.registry.reasons import brief, reason_of
from penstock.registry.remote_artifacts import RemoteArtifacts
from penstock.registry.source import READY, ModelFacts, VersionFacts

LATEST_OF: Final = 10
"""So many of the highest versions are looked at for one that is ready."""

_MISSING: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_REFUSED: Final = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_WRONG: Final = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "FEATURE_DISABLED"}
)
_DATABASE: Final = re.compile(r"sqlite:///([^?]*)")
_GIT: Final = {
    "revision": "mlflow.source.git.commit",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
    "file": "mlflow.source.name",
}


class MlflowRegistry:
    """As `source.Registry` says."""

    def __init__(
        self,
        uri: str,
        artifact_folders: Sequence[Path] = (),
        show_credentials: Callable[[], None] = lambda: None,
    ) -> None:
        """`artifact_folders`: local ones that a registry on another machine may name. `show_credentials`: puts them
        where MLflow looks for them, before each question. Nothing is asked yet.

        How long MLflow waits is for the process's environment to say."""
        self._show_credentials: Final = show_credentials
        self._uri: Final = uri
        self._folders: Final = tuple(folder.resolve() for folder in artifact_folders)
        self._made: MlflowClient | None = None

    def model(self, name: str, *, latest: bool) -> ModelFacts:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking(f"no registered model '{name}'"):
            client = self._client()
            found = client.get_registered_model(name)
            aliases = {str(alias): int(number) for alias, number in found.aliases.items()}
            return ModelFacts(aliases, self._latest(client, name) if latest else None)

    def version(self, name: str, version: int) -> VersionFacts:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking(f"registered model '{name}' has no version {version}"):
            client = self._client()
            found = client.get_model_version(name, str(version))
            source = client.get_model_version_download_uri(name, str(version))
            return VersionFacts(
                version=int(found.version),
                status=str(found.status),
                source=str(source),
                run_id=str(found.run_id or ""),
                aliases=tuple(map(str, found.aliases)),
                tags=_texts(found.tags),
            )

    def artifacts(self, facts: VersionFacts) -> Artifacts:
        """Raises Forbidden for files that a registry elsewhere says are on this machine, Unavailable, LoadFailed."""
        folder = _local_folder(facts.source)
        if folder is not None:
            return self._local(folder)
        with self._asking(f"its files are not at {redacted(facts.source)}"):
            repository = get_artifact_repository(
                facts.source, tracking_uri=self._uri, registry_uri=self._uri
            )
        # what `runs:/…` and `models:/…` stand for is no less to be looked at
        inner: Any = repository
        while getattr(inner, "repo", None) is not None:
            inner = inner.repo
        if isinstance(inner, LocalArtifactRepository):
            return self._local(Path(inner.artifact_dir))
        if isinstance(inner, HttpArtifactRepository):
            self._check_host(inner.artifact_uri)
        away = f"its files can't be read: {redacted(str(inner.artifact_uri))}"
        return RemoteArtifacts(repository, lambda: _asking("a file is not there", away))

    def _local(self, folder: Path) -> LocalArtifacts:
        """Raises Forbidden."""
        self._check_local(folder)
        return LocalArtifacts(folder)

    def _check_host(self, uri: str) -> None:
        """MLflow sends the registry's credentials to whatever host a source names."""
        own, other = urlsplit(self._uri), urlsplit(uri)
        if own.scheme not in ("http", "https"):
            return
        if (own.scheme, own.hostname, _port(own)) != (other.scheme, other.hostname, _port(other)):
            raise Forbidden(
                f"the registry says that its files are at {redacted(uri)}, which is another server than the registry:"
                " the registry's credentials are not for that"
            )

    def lineage(self, name: str, version: int) -> VersionLineage:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking(f"registered model '{name}' has no version {version}"):
            client = self._client()
            found = client.get_model_version(name, str(version))
            run = self._run(client, found.run_id)
        tags = _texts(found.tags)
        return VersionLineage(
            name=name,
            version=int(found.version),
            aliases=tuple(map(str, found.aliases)),
            tags=tags,
            description=str(found.description or ""),
            source=redacted(str(found.source or "")),
            registered_at_ms=int(found.creation_timestamp or 0),
            registered_by=str(found.user_id or ""),
            run=None if run is None else _run_facts(run),
            data=() if run is None else tuple(_datasets(run)),
            code=_code(tags, {} if run is None else run.data.tags),
        )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking(f"registered model '{name}' has no version {version}"):
            self._client().set_registered_model_alias(name, alias, str(version))

    def set_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        with self._asking(f"registered model '{name}' has no version {version}"):
            self._client().set_model_version_tag(name, str(version), key, value)

    def _asking(self, missing: str) -> contextlib.AbstractContextManager[None]:
        return _asking(missing, f"the registry can't be asked: {redacted(self._uri)}")

    def _client(self) -> MlflowClient:
        """Raises Unavailable."""
        try:
            self._show_credentials()
        except ConfigError as error:
            raise Unavailable(f"the registry can't be asked: {error}") from error
        if self._made is None:
            if database := _DATABASE.fullmatch(self._uri):
                # else MLflow makes it: a wrong path would look like a registry without models
                path = Path(database[1])
                if not path.exists():
                    raise Unavailable(f"there is no database {path} yet")
            self._made = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._made

    def _latest(self, client: MlflowClient, name: str) -> int | None:
        found = client.search_model_versions(
            f"name='{name}'", max_results=LATEST_OF, order_by=["version_number DESC"]
        )
        ready = [int(each.version) for each in found if str(each.status) == READY]
        return max(ready, default=None)

    def _run(self, client: MlflowClient, run_id: str | None) -> Any:
        if not run_id:
            return None
        try:
            return client.get_run(run_id)
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise

    def _check_local(self, folder: Path) -> None:
        """Whoever may write to a registry elsewhere must not have this machine's files served."""
        if urlsplit(self._uri).scheme not in ("http", "https", "databricks", "databricks-uc"):
            return
        real = folder.resolve()
        if not any(real.is_relative_to(allowed) for allowed in self._folders):
            raise Forbidden(
                f"the registry says that its files are in {folder} on this machine, which is none of"
                " registry.artifact_folders"
            )


def _port(uri: SplitResult) -> int | None:
    return uri.port or {"http": 80, "https": 443}.get(uri.scheme)


def _local_folder(source: str) -> Path | None:
    """Where they are on this machine, if they are."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(source) if not parts.scheme else None


@contextlib.contextmanager
def _asking(missing: str, away: str) -> Iterator[None]:
    """MLflow's errors, and those of what lies below it, as ours. `missing`: the text of a NotFound. `away`: that of an
    Unavailable, as far as the reason."""
    try:
        yield
    except PenstockError:
        raise
    except MlflowException as error:
        if error.error_code in _MISSING:
            raise NotFound(missing) from error
        if error.error_code in _REFUSED:
            raise Forbidden(f"the registry refuses: {brief(error)}") from error
        if error.error_code in _WRONG:
            raise LoadFailed(f"the registry does not take this: {brief(error)}") from error
        raise Unavailable(f"{away}: {reason_of(error)}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            # of this machine's disk: those of requests have no number
            raise
        # of databases and storage services, of which each has errors of its own
        raise Unavailable(f"{away}: {reason_of(error)}") from error


def _texts(tags: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in tags.items()}


def _run_facts(run: Any) -> RunFacts:
    info, data = run.info, run.data
    return RunFacts(
        run_id=str(info.run_id),
        name=str(info.run_name or ""),
        experiment_id=str(info.experiment_id or ""),
        status=str(info.status or ""),
        started_at_ms=int(info.start_time or 0),
        ended_at_ms=int(info.end_time or 0),
        user=str(data.tags.get("mlflow.user") or info.user_id or ""),
        params=_texts(data.params),
        metrics={str(name): float(value) for name, value in data.metrics.items()},
        tags=_texts(data.tags),
    )


def _datasets(run: Any) -> Iterator[dict[str, str]]:
    for each in getattr(run.inputs, "dataset_inputs", None) or ():
        tags = {str(tag.key): str(tag.value) for tag in each.tags or ()}
        dataset = each.dataset
        found = {
            "name": str(dataset.name or ""),
            "digest": str(dataset.digest or ""),
            "source": redacted(str(dataset.source or "")),
            "context": tags.get("mlflow.data.context", ""),
        }
        yield {name: text for name, text in found.items() if text}


def _code(tags: Mapping[str, str], run_tags: Mapping[str, str]) -> dict[str, str]:
    found = {name: str(run_tags.get(tag) or "") for name, tag in _GIT.items()}
    found["revision"] = tags.get("penstock.git.revision") or found["revision"]
    found["dirty"] = tags.get("penstock.git.dirty", "")
    return {name: redacted(text) for name, text in found.items() if text}
