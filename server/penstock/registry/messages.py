"""What the gateway and the registry agent say to each other, and what either says of versions of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Problem = Literal["not_found", "unavailable", "refused", "failed"]
"""Why a question was not answered: there is no such thing; the registry can't be asked now, or may not be; else."""


class ResolvedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of a registered model a reference means, and what the registry knows of it."""

    name: str
    """The registered model's."""
    version: int
    run_id: str = ""
    tags: Mapping[str, str] = {}
    aliases: tuple[str, ...] = ()
    digest: str = ""
    """`sha256:…` of its files, as `model_digest` has it; empty: they were not fetched yet."""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The run that made a version."""

    run_id: str
    name: str = ""
    experiment_id: str = ""
    status: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    user: str = ""
    params: Mapping[str, str] = {}
    metrics: Mapping[str, float] = {}
    tags: Mapping[str, str] = {}


class VersionLineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version comes from. Times are in milliseconds since 1970; 0 and empty: the registry does not say."""

    name: str
    version: int
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = {}
    """Of the version, those of its lineage (`penstock.data.uri` …) among them."""
    description: str = ""
    source: str = ""
    """Where the registry has its files."""
    registered_at_ms: int = 0
    registered_by: str = ""
    digest: str = ""
    run: RunFacts | None = None
    """None: it was registered without one, or the run is not there any more."""
    data: tuple[Mapping[str, str], ...] = ()
    """The datasets of the run: name, digest, source, context."""
    code: Mapping[str, str] = {}
    """revision, branch, repository, file: as far as the run's tags say."""


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How this server serves a version. It is written back as a tag, when it changes."""

    state: str
    """As the index says: READY, LOADING, UNAVAILABLE; or STOPPED."""
    since: str
    """When that began, as RFC 3339."""
    share: float
    """Percent of the requests that name no version."""
    healthy: bool


# ── the agent's ─────────────────────────────────────────────────────────────────────────────────────────────────────


class RegistryVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that lies in the view."""

    version: int
    wanted: bool
    """A reference names it, or the gateway has asked for it; otherwise it may be released."""
    digest: str = ""
    run_id: str = ""


class RegistryModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is served from the registry."""

    name: str
    """Under which it is served."""
    registered: str
    """Its name in the registry."""
    refs: tuple[str, ...]
    versions: tuple[RegistryVersion, ...] = ()
    default: int | None = None
    """What the first reference means, as far as it is there; None: nobody knows yet."""
    aliases: Mapping[str, int] = {}
    """All that the registry has of it, when it was last asked."""
    problem: str = ""
    """Why a reference does not mean what it should, or is not there yet; empty: all is well."""
    fetching: tuple[int, ...] = ()
    """Versions that are on their way."""
    gone: bool = False
    """Nothing names it any more."""
    settled: bool = False
    """Each reference has had its first answer: the version is there, or why not."""
    revision: int = 0
    """Counts what was changed in the view."""


class RegistryCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent did since it started, for metrics."""

    reachable: bool = False
    last_contact_s: float = 0
    """When the registry last answered, in seconds since 1970; 0: it has not yet."""
    requests: int = 0
    failures: int = 0
    fetches: int = 0
    refused_fetches: int = 0
    failed_fetches: int = 0
    fetched_bytes: int = 0
    damaged_files: int = 0
    """Of the cache: they were not what they should be, and were fetched again."""
    cache_bytes: int = 0
    evicted_bytes: int = 0
    tags_written: int = 0


class RegistryState(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """All that there is: each one replaces the one before it."""

    uri: str = ""
    """Of the registry, without what only it may know."""
    models: tuple[RegistryModel, ...] = ()
    counts: RegistryCounts = RegistryCounts()
    problem: str = ""
    """Why the registry can't be asked; empty: it can."""


class FetchNote(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """Something that the audit log should have: each is told once."""

    action: Literal["registry.fetch", "registry.alias"]
    model: str
    outcome: Literal["done", "refused", "failed"]
    reason: str = ""
    details: Mapping[str, str] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """To the call of that number."""

    call: int
    resolved: ResolvedVersion | None = None
    lineage: VersionLineage | None = None
    problem: Problem | None = None
    text: str = ""


AgentMessage = RegistryState | FetchNote | Answer

# ── the gateway's ───────────────────────────────────────────────────────────────────────────────────────────────────


class Resolve(msgspec.Struct, frozen=True, kw_only=True, tag="resolve"):
    """Ask what a reference means now. `ref`: an alias with `@`, a number, or empty for the latest."""

    call: int
    model: str
    ref: str


class SetAlias(msgspec.Struct, frozen=True, kw_only=True, tag="set_alias"):
    """Have an alias mean that version."""

    call: int
    model: str
    alias: str
    version: int


class AskLineage(msgspec.Struct, frozen=True, kw_only=True, tag="lineage"):
    """Ask where a version comes from."""

    call: int
    model: str
    version: int


class Bring(msgspec.Struct, frozen=True, kw_only=True, tag="bring"):
    """Have a version in the view, and answer when it is there. It stays as long as `Held` names it."""

    call: int
    model: str
    version: int


class Held(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """All versions that stay in the view although no reference names them. Each such message replaces the last."""

    versions: Mapping[str, tuple[int, ...]]


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """Nothing is served from that version any more: take it out of the view, unless somebody wants it again."""

    model: str
    version: int


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """Ask the registry now: somebody says that it has changed."""


class WriteTag(msgspec.Struct, frozen=True, kw_only=True, tag="tag"):
    """Write tags of a version, sooner or later; answered when they are written, or never will be."""

    call: int
    model: str
    version: int
    tags: Mapping[str, str]


class Deployments(msgspec.Struct, frozen=True, kw_only=True, tag="deployments"):
    """How all versions are served. Each such message replaces the last."""

    statuses: Mapping[str, Mapping[int, DeploymentStatus]]


GatewayCall = (
    Resolve | SetAlias | AskLineage | Bring | Held | Release | Look | WriteTag | Deployments
)

SOCKET: Final = "registry.sock"
"""In the run's folder: there the agent listens."""
