"""MLflow itself: a tracking server over HTTP, and its database without one."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

from mlflow_server import MlflowServer
from penstock.errors import Forbidden, LinkOutside, LoadFailed, NotFound, Unavailable
from penstock.registry.agent import patience
from penstock.registry.cache import Cache
from penstock.registry.fetch import fetch
from penstock.registry.mlflow_registry import MlflowRegistry
from penstock.registry.remote_artifacts import RemoteArtifacts
from penstock.registry.source import READY, VersionFacts
from registered import Registered

# those of libraries below MLflow
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in patience(2).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def model(mlflow_server: MlflowServer) -> Registered:
    """With two versions, the first of which has two aliases."""
    made = Registered(mlflow_server)
    files: dict[str, str | bytes] = {
        "MLmodel": "flavors:",
        "data/weights.bin": os.urandom(3 << 20),
        "a b/é.txt": "x",
    }
    made.add(1, "champion", files)
    made.point("other", 1)
    made.add(2)
    return made


def test_a_tracking_server_is_asked(model: Registered, tmp_path: Path) -> None:
    registry = MlflowRegistry(model.server.uri)
    facts = registry.model(model.name, latest=True)
    assert (facts.aliases, facts.latest) == ({"champion": 1, "other": 1}, 2)
    assert registry.model(model.name, latest=False).latest is None
    version = registry.version(model.name, 1)
    assert (version.version, version.status) == (1, READY)
    assert sorted(version.aliases) == ["champion", "other"]
    artifacts = registry.artifacts(version)
    assert isinstance(artifacts, RemoteArtifacts)
    cache = Cache(tmp_path, "r")
    manifest = fetch(
        cache,
        artifacts,
        model=model.name,
        version=1,
        source=version.source,
        run_id=version.run_id,
    )
    assert {path: file.size for path, file in manifest.files.items()} == {
        "MLmodel": 8,
        "data/weights.bin": 3 << 20,
        "a b/é.txt": 1,
    }
    assert cache.damaged(manifest) == []


def test_where_a_version_comes_from(model: Registered) -> None:
    registry = MlflowRegistry(model.server.uri)
    registry.set_tag(model.name, 1, "penstock.git.revision", "abc")
    registry.set_tag(model.name, 1, "penstock.deployment.host:8000", "{}")
    found = registry.lineage(model.name, 1)
    assert (found.name, found.version) == (model.name, 1)
    assert sorted(found.aliases) == ["champion", "other"]
    assert found.tags["penstock.deployment.host:8000"] == "{}"
    assert found.code == {"revision": "abc"}
    assert found.registered_at_ms > 1_700_000_000_000
    assert found.run is not None
    assert found.run.params == {"factor": "1"}
    assert found.run.name == "times 1"
    registry.set_alias(model.name, "champion", 2)
    assert model.aliases()["champion"] == 2
    assert registry.lineage(model.name, 2).aliases == ("champion",)


def test_what_is_not_there(model: Registered) -> None:
    registry = MlflowRegistry(model.server.uri)
    with pytest.raises(NotFound, match="no registered model 'none'"):
        registry.model("none", latest=False)
    for ask in (registry.version, registry.lineage):
        with pytest.raises(NotFound, match=f"registered model '{model.name}' has no version 9"):
            ask(model.name, 9)
    with pytest.raises(NotFound):
        registry.set_alias(model.name, "champion", 9)
    with pytest.raises(NotFound):
        registry.set_tag(model.name, 9, "a", "b")
    with pytest.raises(LoadFailed, match="the registry does not take this"):
        registry.set_tag(model.name, 1, "a\nb", "c")
    model.remove(2)
    with pytest.raises(NotFound):
        registry.version(model.name, 2)
    assert registry.model(model.name, latest=True).latest == 1


def test_a_server_that_is_away_is_said_soon() -> None:
    registry = MlflowRegistry("http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="the registry can't be asked: ") as error:
        registry.model("m", latest=False)
    # one sentence, and nothing of the libraries below
    assert str(error.value) == "the registry can't be asked: http://127.0.0.1:9: connection refused"
    files = registry.artifacts(VersionFacts(1, READY, "mlflow-artifacts:/1/model"))
    with pytest.raises(
        Unavailable, match=r"^its files can't be read: http://127\.0\.0\.1:9/"
    ) as error:
        files.files()
    assert str(error.value).endswith("/1/model: connection refused")


def test_a_server_that_says_nothing_is_not_waited_for_for_minutes(model: Registered) -> None:
    registry = MlflowRegistry(model.server.uri)
    os.environ.update(patience(0.1))
    assert registry.model(model.name, latest=False)
    model.server.stop()
    try:
        with pytest.raises(Unavailable, match="the registry can't be asked") as error:
            registry.model(model.name, latest=False)
        assert str(error.value).endswith(f"{model.server.uri}: no answer in time")
    finally:
        model.server.go_on()


def test_patience_is_bounded() -> None:
    given = patience(0.2)
    assert given["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"
    assert patience(7.5)["MLFLOW_HTTP_REQUEST_TIMEOUT"] == str(math.ceil(7.5))
    assert given["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_the_database_without_a_server_and_folders_of_this_machine(
    model: Registered, tmp_path: Path
) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / "weights").write_text("w")
    direct = MlflowRegistry(model.server.store_uri)
    made: Any = direct._client().create_model_version(model.name, folder.as_uri())
    facts = direct.version(model.name, int(made.version))
    target = tmp_path / "copy"
    artifacts = direct.artifacts(facts)
    assert artifacts.files() == {"weights": 1}
    artifacts.copy("weights", target)
    assert target.read_text() == "w"
    # whoever may write to a server elsewhere could have any file of this machine served
    remote = MlflowRegistry(model.server.uri)
    facts = remote.version(model.name, facts.version)
    with pytest.raises(Forbidden, match=r"none of registry\.artifact_folders"):
        remote.artifacts(facts)
    allowed = MlflowRegistry(model.server.uri, [tmp_path])
    assert allowed.artifacts(facts).files() == {"weights": 1}
    outside = tmp_path / "allowed"
    outside.mkdir()
    (outside / "link").symlink_to(folder)
    facts = type(facts)(facts.version, READY, str(outside / "link"))
    with pytest.raises(Forbidden):
        MlflowRegistry(model.server.uri, [outside]).artifacts(facts)


@pytest.mark.parametrize(
    "underneath",
    ["/etc", "file:///etc", "http://198.51.100.1/files", "mlflow-artifacts://198.51.100.1/files"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_no_source_leads_to_this_machine_or_takes_credentials_elsewhere(
    underneath: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(*_: Any, **__: Any) -> str:
        return underneath

    monkeypatch.setattr(RunsArtifactRepository, "get_underlying_uri", staticmethod(lookup))
    registry = MlflowRegistry("http://127.0.0.1:9")
    source = "runs:/0123/model" if wrapped else underneath
    with pytest.raises(Forbidden, match=r"artifact_folders|another server"):
        registry.artifacts(VersionFacts(1, READY, source, "", (), {}))


def test_the_servers_own_files_are_taken_however_they_are_named() -> None:
    registry = MlflowRegistry("http://127.0.0.1:9")
    for source in (
        "mlflow-artifacts:/1/model",
        "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/1",
    ):
        facts = VersionFacts(1, READY, source, "", (), {})
        assert isinstance(registry.artifacts(facts), RemoteArtifacts)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with pytest.raises(Unavailable, match=f"there is no database {path} yet"):
        MlflowRegistry(f"sqlite:///{path}").model("m", latest=False)
    assert not path.exists()


class Listing:
    """An artifact repository that lists what it likes."""

    def __init__(self, paths: dict[str | None, list[tuple[str, bool]]]) -> None:
        self._paths = paths

    def list_artifacts(self, path: str | None) -> list[Any]:
        from mlflow.entities import FileInfo

        return [FileInfo(name, is_dir, 1) for name, is_dir in self._paths[path]]


@pytest.mark.parametrize(
    "paths",
    [
        {None: [("../x", False)]},
        {None: [("/etc/passwd", False)]},
        {None: [("a", True)], "a": [("b/x", False)]},
        {None: [("a", True)], "a": [("a/../../x", False)]},
    ],
)
def test_a_listing_is_not_believed(paths: dict[str | None, list[tuple[str, bool]]]) -> None:
    import contextlib

    with pytest.raises(LinkOutside):
        RemoteArtifacts(Listing(paths), contextlib.nullcontext).files()


def test_a_listing_without_an_end(tmp_path: Path) -> None:
    import contextlib

    class Endless:
        def list_artifacts(self, path: str | None) -> list[Any]:
            from mlflow.entities import FileInfo

            return [FileInfo(f"{path}/d" if path else "d", True, None)]

    with pytest.raises(LinkOutside, match="over 64 folders deep"):
        RemoteArtifacts(Endless(), contextlib.nullcontext).files()
