"""Where versions of models come from, as roll-outs need to know it: folders, or a registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from penstock.errors import InvalidRequest, NotFound, Unavailable
from penstock.model_config import ModelConfig, Tensor
from penstock.repository.folders import MAX_VERSION
from penstock.repository.index import ModelIndex
from penstock.repository.served_model import ServedModel
from penstock.rollouts.plan import RolloutPlan

GATES: Final = "penstock.gates"
"""The tag in which the training says whether a version is good enough."""
CHAMPION: Final = "champion"
"""The alias that a promotion moves, unless another one means the stable version."""


class Resolved(Protocol):
    """What a reference means."""

    @property
    def version(self) -> int: ...

    @property
    def tags(self) -> Mapping[str, str]: ...


class VersionSource(Protocol):
    """A registry of models. All methods are those of `registry/link.py`."""

    def serves(self, model: str) -> bool:
        """Whether the model comes from it."""
        ...

    def aliases(self, model: str) -> Mapping[str, int]:
        """All aliases of the model, as they were when it was last asked."""
        ...

    async def resolve(self, model: str, ref: str) -> Resolved:
        """What a reference means now. Raises NotFound, Unavailable."""
        ...

    async def want(self, model: str, version: int) -> None:
        """Have that version loaded beside the others; returns when it is. Raises NotFound, Unavailable, LoadFailed."""
        ...

    def unwant(self, model: str, version: int) -> None:
        """It may go again."""
        ...

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """Have the alias mean that version. Raises NotFound, Unavailable, Forbidden."""
        ...

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Have tags of the version written, sooner or later."""
        ...


class Folders:
    """The source of models that lie in folders: all their versions are there, and have no aliases."""

    def serves(self, model: str) -> bool:
        """None of them comes from a registry."""
        return False

    def aliases(self, model: str) -> Mapping[str, int]:
        """None."""
        return {}

    async def resolve(self, model: str, ref: str) -> Resolved:
        """Raises NotFound."""
        raise NotFound(f"'{ref}' of model '{model}': the model comes from no registry")

    async def want(self, model: str, version: int) -> None:
        """It is there, or isn't."""

    def unwant(self, model: str, version: int) -> None:
        """It stays."""

    async def set_alias(self, model: str, alias: str, version: int) -> None:
        """Raises NotFound."""
        raise NotFound(f"'@{alias}' of model '{model}': the model comes from no registry")

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """There is nothing to tag."""


async def version_of(source: VersionSource, model: str, ref: object) -> int:
    """The version that a person means: `4`, or `@challenger`. Raises InvalidRequest, NotFound, Unavailable."""
    text = str(ref).strip()
    if text.startswith("@"):
        if not source.serves(model):
            raise InvalidRequest(
                f"'{text[:80]}': model '{model}' comes from a folder, where versions have no aliases; expected a"
                " version's number"
            )
        return (await source.resolve(model, text)).version
    known = text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= MAX_VERSION
    if isinstance(ref, bool) or not known:
        raise InvalidRequest(
            f"'{text[:80]}' is no version of model '{model}': expected its number, or an alias such as @challenger"
        )
    return int(text)


async def stable_version(
    models: ModelIndex, source: VersionSource, model: str, ref: object, candidate: int
) -> int:
    """From which version a roll-out to the candidate goes. `ref`: what a person says of it; None: nothing. Raises
    InvalidRequest, NotFound, Unavailable."""
    if ref is not None:
        return await version_of(source, model, ref)
    now = models.get(model).version
    if now != candidate:
        return now
    before = [each for each in models.versions(model) if each < candidate]
    if models.default_version(model) == candidate or not before:
        raise InvalidRequest(
            f"version {candidate} of model '{model}' answers all requests already: 'from' says which version it is"
            " to be compared with"
        )
    # it was loaded beside the other, and took its place as the highest
    return before[-1]


async def check_gates(source: VersionSource, model: str, version: int) -> None:
    """Raises InvalidRequest where the registry says that the version has failed the gates of its training, and what the
    registry raises, unless it is away: then it says nothing."""
    if not source.serves(model):
        return
    try:
        said = (await source.resolve(model, str(version))).tags.get(GATES, "")
    except Unavailable:
        return
    if said.startswith("failed"):
        raise InvalidRequest(
            f"version {version} of model '{model}' has not passed its quality gates: {said}; expected one that has, or"
            " that the request says despite_gates"
        )


def alias_to_move(source: VersionSource, model: str, stable: int) -> str:
    """By which alias clients of the registry know the stable version."""
    aliases = source.aliases(model)
    meaning = sorted(alias for alias, version in aliases.items() if version == stable)
    return CHAMPION if CHAMPION in aliases or not meaning else meaning[0]


def both_versions(models: ModelIndex, plan: RolloutPlan) -> tuple[ServedModel, ServedModel]:
    """The stable one and the candidate. Raises NotFound, Unavailable, and InvalidRequest where they don't answer the
    same requests, or can't be compared as the plan says."""
    stable = models.get(plan.model, str(plan.stable))
    candidate = models.get(plan.model, str(plan.candidate))
    if why := difference(stable, candidate):
        raise InvalidRequest(
            f"model '{plan.model}' can't be rolled out to version {plan.candidate}: {why}"
        )
    config = stable.config
    if plan.mode == "shadow" and (config.decoupled or config.sequence_batching is not None):
        kind = "decoupled" if config.decoupled else "stateful"
        raise InvalidRequest(
            f"model '{plan.model}' can't be rolled out in shadow mode: it is {kind}, and copies of its requests"
            " can't be compared; expected mode canary"
        )
    return stable, candidate


def difference(stable: ServedModel, candidate: ServedModel) -> str:
    """Why the candidate can't answer the stable version's requests, or would answer them otherwise; empty: it can."""
    one, other = stable.config, candidate.config
    for what, was, now in (
        ("batching (max_batch_size over 0)", one.max_batch_size > 0, other.max_batch_size > 0),
        ("decoupled", one.decoupled, other.decoupled),
        ("sequences", one.sequence_batching is not None, other.sequence_batching is not None),
    ):
        if was != now:
            return f"{what}: {_yes(now)}, and {_yes(was)} with version {stable.version}"
    if other.max_batch_size < one.max_batch_size:
        return (
            f"max_batch_size {other.max_batch_size}, and {one.max_batch_size} with version {stable.version}: larger"
            " requests would be refused"
        )
    return _other_tensors(one, other, stable.version)


def _other_tensors(one: ModelConfig, other: ModelConfig, stable: int) -> str:
    for kind, were, are in (
        ("input", one.input, other.input),
        ("output", one.output, other.output),
    ):
        named = {tensor.name: tensor for tensor in are}
        for was in were:
            now = named.pop(was.name, None)
            if now is None:
                return f"{kind} '{was.name}' is missing"
            if not _fits(was, now, is_input=kind == "input"):
                return (
                    f"{kind} '{was.name}' is {_told(now)}, and {_told(was)} with version {stable}"
                )
        new = next((tensor for tensor in named.values() if not tensor.optional), None)
        if new is not None:
            return f"{kind} '{new.name}' is new: version {stable} has none"
    return ""


def _fits(was: Tensor, now: Tensor, *, is_input: bool) -> bool:
    """An input may take more than it did."""
    if was.datatype != now.datatype or len(was.dims) != len(now.dims):
        return False
    if is_input and was.optional and not now.optional:
        return False
    return all(
        new == old or (is_input and new == -1) for old, new in zip(was.dims, now.dims, strict=True)
    )


def _told(tensor: Tensor) -> str:
    return f"{tensor.datatype} {list(tensor.dims)}{' (optional)' if tensor.optional else ''}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
