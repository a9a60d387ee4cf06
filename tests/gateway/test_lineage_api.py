"""GET …/lineage: files, signature, steps, and what a registry says, which may be away."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from penstock.access.session import OPEN
from penstock.errors import Forbidden, LoadFailed, NotFound, PenstockError, Unavailable
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.lineage_api import NOT_SERVED, LineageApi
from penstock.gateway.route_table import RouteTable
from penstock.model_digest import folder_digest
from penstock.repository.version_digest import VersionDigest
from penstock.trust.release import FILENAME
from penstock.trust.staging import Staged, Verified


class Told(msgspec.Struct):
    name: str
    version: int
    aliases: tuple[str, ...] = ("champion",)


class Registry:
    """Of `digits`."""

    problem: PenstockError | None = None

    def serves(self, model: str) -> bool:
        return model == "digits"

    async def lineage(self, model: str, version: int) -> Told:
        if self.problem is not None:
            raise self.problem
        return Told("team.digits", version)


def served(folder: Path, name: str = "digits", **fields: Any) -> Any:
    """A model whose version 3 lies there."""
    version = folder / "3"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights")
    digest = VersionDigest(version)
    given = {"staged": None, "config_dict": {}, "digest_text": "sha256:x", **fields}
    return SimpleNamespace(name=name, version=3, digest=digest, folder=version, **given)


class Models:
    def __init__(self, *models: Any) -> None:
        self.by_name = {model.name: model for model in models}
        for model in models:
            model.digest.start()

    def get(self, name: str, version: str = "") -> Any:
        if name not in self.by_name or version not in ("", "3"):
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        return self.by_name[name]


async def ask(models: Any, source: Any = None, path: str = "digits", session: Any = OPEN) -> Any:
    table = RouteTable(LineageApi(models, source).routes())
    request = HttpRequest("GET", {}, b"", session)
    reply = await table(f"/v2/models/{path}/lineage", request)
    assert isinstance(reply, HttpResponse) and reply.status == 200
    return json.loads(reply.body)


async def test_a_folder_without_anything_else(tmp_path: Path) -> None:
    model = served(tmp_path)
    told = await ask(Models(model))
    (file,) = told.pop("files")
    assert file["path"] == "model.onnx" and len(file["sha256"]) == 64
    assert told == {
        "model": "digits",
        "version": "3",
        "digest": folder_digest(model.folder),
        "release": None,
        "steps": [],
        "registry": None,
    }
    assert (await ask(Models(model), path="digits/versions/3"))["version"] == "3"
    with pytest.raises(NotFound):
        await ask(Models(model), path="digits/versions/4")


async def test_what_was_verified(tmp_path: Path) -> None:
    (tmp_path / "copy" / "model" / "digits" / "3").mkdir(parents=True)
    release = {"model": "digits", "version": 3, "serial": 5, "created": "2026-11-28T10:00:00Z"}
    copied = tmp_path / "copy" / "model" / "digits" / "3" / FILENAME
    copied.write_text(json.dumps(release))
    verified = Verified(
        model="digits",
        version=3,
        key=b"",
        signer="ops@example.org",
        serial=5,
        released=True,
        digest="ab",
    )
    model = served(tmp_path / "digits", staged=Staged(tmp_path / "copy", verified))
    expected = {
        "signer": "ops@example.org",
        "serial": 5,
        "created": "2026-11-28T10:00:00Z",
        "manifest_sha256": "ab",
        "encrypted": False,
    }
    assert (await ask(Models(model)))["release"] == expected
    copied.unlink()
    assert (await ask(Models(model)))["release"] == expected | {"created": ""}


async def test_files_that_are_gone(tmp_path: Path) -> None:
    model = served(tmp_path)
    (model.folder / "model.onnx").unlink()
    model.folder.rmdir()
    told = await ask(Models(model))
    assert (told["digest"], told["files"]) == ("", [])
    assert "No such file or directory" in told["digest_problem"]


async def test_what_the_registry_says(tmp_path: Path) -> None:
    model, registry = served(tmp_path / "digits"), Registry()
    told = await ask(Models(model), registry)
    assert told["registry"] == {"name": "team.digits", "version": 3, "aliases": ["champion"]}
    for kind in (Unavailable, Forbidden, NotFound, LoadFailed):
        registry.problem = kind("it does not say")
        told = await ask(Models(model), registry)
        assert (told["registry"], told["registry_problem"]) == (None, "it does not say")
        assert told["digest"]
    other = served(tmp_path / "other", "other")
    assert (await ask(Models(other), registry, "other"))["registry"] is None


async def test_a_version_that_is_not_served_any_more(tmp_path: Path) -> None:
    """An answer of before can be traced back: what the registry knows is told."""
    models, registry = Models(served(tmp_path)), Registry()
    told = await ask(models, registry, "digits/versions/2")
    assert told == {
        "model": "digits",
        "version": "2",
        "digest": "",
        "files": [],
        "digest_problem": NOT_SERVED,
        "release": None,
        "steps": [],
        "registry": {"name": "team.digits", "version": 2, "aliases": ["champion"]},
    }
    for path in ("other/versions/2", "digits/versions/0", "digits/versions/" + 30 * "9"):
        with pytest.raises(NotFound, match="unknown model"):
            await ask(models, registry, path)
    registry.problem = NotFound("the registry has it not")
    with pytest.raises(NotFound, match="unknown model"):
        await ask(models, registry, "digits/versions/2")
    registry.problem = Unavailable("the registry is away")
    with pytest.raises(Unavailable, match="the registry is away"):
        await ask(models, registry, "digits/versions/2")


async def test_an_ensembles_steps_that_the_caller_may_know_of(tmp_path: Path) -> None:
    steps = [("digits", -1), ("secret", -1), ("gone", -1), ("digits", 3)]
    scheduling = {"step": [{"model_name": name, "model_version": v} for name, v in steps]}
    whole = served(tmp_path / "whole", "whole", config_dict={"ensemble_scheduling": scheduling})
    models = Models(whole, served(tmp_path / "digits"), served(tmp_path / "secret", "secret"))
    session: Any = SimpleNamespace(
        known=lambda: None, check=lambda *_: None, may=lambda _, model: model != "secret"
    )
    told = await ask(models, path="whole", session=session)
    assert told["steps"] == [
        {"model": "digits", "version": "3", "digest": "sha256:x"},
        {"model": "gone"},
    ]
