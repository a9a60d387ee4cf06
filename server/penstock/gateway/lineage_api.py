"""GET …/lineage: where a model version comes from, as far as this server and its registry know."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from penstock.access.session import AnySession
from penstock.errors import NotFound, PenstockError, SignatureInvalid, Unavailable
from penstock.gateway import descriptions as described
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.route_table import PathParameters, Route
from penstock.repository.index import ModelIndex
from penstock.repository.served_model import ServedModel
from penstock.trust.release import FILENAME, MAX_BYTES, parse_release
from penstock.trust.staging import Staged
from penstock.verbs import Verb

NOT_SERVED: Final = "this server does not serve the version"
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")


class LineageSource(Protocol):
    """What knows of models that come from a registry."""

    def serves(self, model: str) -> bool:
        """Whether the model comes from there."""
        ...

    async def lineage(self, model: str, version: int) -> msgspec.Struct:
        """Where the version comes from. Raises NotFound, Unavailable, Forbidden, LoadFailed."""
        ...


class LineageApi:
    """One a gateway."""

    def __init__(self, models: ModelIndex, source: LineageSource | None = None) -> None:
        """`source`: None: there is no registry."""
        self._models = models
        self._source = source

    def routes(self) -> Iterator[Route]:
        """The one."""
        path = "/v2/models/{model}[/versions/{version}]/lineage"
        yield Route("GET", path, self._answer, described.LINEAGE)

    async def _answer(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        name, version = parameters["model"], parameters.get("version", "")
        try:
            model = self._models.get(name, version)
        except (NotFound, Unavailable):
            told = await self._not_served(name, version)
            if told is None:
                raise
            return json_response(told)
        return json_response(
            {
                "model": model.name,
                "version": str(model.version),
                **await _files(model),
                "release": await asyncio.to_thread(_release, model),
                "steps": self._steps(model, request.session),
                **await self._registered(model),
            }
        )

    def _steps(self, model: ServedModel, session: AnySession) -> list[dict[str, str]]:
        """Of an ensemble those models that the caller may know of."""
        scheduling = model.config_dict.get("ensemble_scheduling") or {}
        told: dict[str, dict[str, str]] = {}
        for step in scheduling.get("step", ()):
            name, number = step["model_name"], int(step.get("model_version", -1))
            if name in told or not session.may(Verb.READ_STATISTICS, name):
                continue
            try:
                found = self._models.get(name, str(number) if number >= 0 else "")
            except (NotFound, Unavailable):
                told[name] = {"model": name}
                continue
            told[name] = {
                "model": name,
                "version": str(found.version),
                "digest": found.digest_text,
            }
        return list(told.values())

    async def _not_served(self, name: str, version: str) -> Mapping[str, Any] | None:
        """Of a version that gave answers once, or never will: the registry knows it all the same. None: it does not.

        Raises what the registry does not answer for.
        """
        source = self._source
        if source is None or not source.serves(name) or not _NUMBER.fullmatch(version):
            return None
        try:
            lineage = await source.lineage(name, int(version))
        except NotFound:
            return None
        return {
            "model": name,
            "version": version,
            "digest": "",
            "files": [],
            "digest_problem": NOT_SERVED,
            "release": None,
            "steps": [],
            "registry": msgspec.to_builtins(lineage),
        }

    async def _registered(self, model: ServedModel) -> Mapping[str, Any]:
        """What the registry says. That it does not leaves the rest as it is."""
        source = self._source
        if source is None or not source.serves(model.name):
            return {"registry": None}
        try:
            lineage = await source.lineage(model.name, model.version)
        except PenstockError as error:
            return {"registry": None, "registry_problem": str(error)}
        return {"registry": msgspec.to_builtins(lineage)}


async def _files(model: ServedModel) -> Mapping[str, Any]:
    if model.digest is None:
        return {"digest": "", "files": []}
    try:
        digest = await model.digest.known()
    except PenstockError as error:
        return {"digest": "", "files": [], "digest_problem": str(error)}
    files = [{"path": path, "sha256": of} for path, of in sorted(model.digest.files.items())]
    return {"digest": digest, "files": files}


def _release(model: ServedModel) -> dict[str, Any] | None:
    """Of what was verified before it was loaded; what nobody has checked says nothing."""
    staged = model.staged
    if staged is None or not (staged.verified.signer or staged.verified.encrypted):
        return None
    found = staged.verified
    return {
        "signer": found.signer,
        "serial": found.serial if found.released else None,
        "created": _created(staged),
        "manifest_sha256": found.digest,
        "encrypted": found.encrypted,
    }


def _created(staged: Staged) -> str:
    found = staged.verified
    path = staged.model_dir / str(found.version) / FILENAME
    try:
        with path.open("rb") as file:
            return parse_release(file.read(MAX_BYTES), found.model, found.version).created
    except (OSError, SignatureInvalid):
        return ""
