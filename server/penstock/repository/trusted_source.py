"""What a version of a model is loaded from where somebody has to have signed it, or where it is encrypted."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ConfigError, ContentChanged, OverrideRefused, Untrusted
from penstock.model_config import ConfigDict
from penstock.repository.config_file import read_config
from penstock.repository.config_given import given_config
from penstock.repository.folders import folders_of, versions_in
from penstock.repository.model_source import ModelSource
from penstock.repository.overrides import KeptOverride
from penstock.repository.version_policy import version_policy
from penstock.trust.artifact import Artifact
from penstock.trust.staging import Staged
from penstock.trust.trust import Trust

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrustedSource:
    """What a version is loaded from."""

    folder: Path
    config: ConfigDict | None
    staged: Staged | None
    """Where it is a private copy, that copy."""


def trusted_source(trust: Trust, name: str, source: ModelSource, number: int) -> TrustedSource:
    """Verify the version, and make a private copy of it where anything is asked of it. It blocks.

    Raises Untrusted, LoadFailed, ConfigError, Unavailable, OSError.
    """
    artifact = _artifact(name, source, number)
    try:
        return _trusted_source(trust, artifact, source)
    except OverrideRefused as error:
        trust.refused(artifact, error)
        raise


def _trusted_source(trust: Trust, artifact: Artifact, source: ModelSource) -> TrustedSource:
    name, number = artifact.model, artifact.version
    _check_override(trust, name, source.override)
    try:
        staged = trust.stage(artifact)
    except Untrusted as error:
        # the gateway that crashed had verified what it served: that goes on
        staged = trust.fallback(artifact)
        if staged is None:
            raise
        log.error("model '%s' version %d goes on as it was: %s", name, number, error)  # noqa: TRY400
    if staged is None:
        return TrustedSource(source.folder, source.config, None)
    try:
        config = _config(trust, name, source, staged)
        if not source.from_registry and number not in version_policy(
            config, [*source.keys, number]
        ):
            raise ContentChanged("the configuration was changed while it was read")
    except BaseException:
        staged.close()
        raise
    return TrustedSource(staged.model_dir, config, staged)


@contextlib.contextmanager
def tampering_first(trust: Trust, name: str, repositories: Sequence[Path]) -> Iterator[None]:
    """Where a configuration can't be read, say so only if it is what was signed. Raises Untrusted in its place."""
    try:
        yield
    except ConfigError:
        folders = folders_of(name, repositories)
        if trust.rule_for(name) is not None and len(folders) == 1:
            for number in versions_in(folders[0])[-1:]:
                trust.check(Artifact(name, number, folders[0], b""))
        raise


def _artifact(name: str, source: ModelSource, number: int) -> Artifact:
    override = source.override
    tenant = override.tenant if override is not None else ""
    return Artifact(name, number, source.folder, source.keys[number], tenant)


def _check_override(trust: Trust, name: str, override: KeptOverride | None) -> None:
    if override is None or override.model_dir is not None:
        return
    rule = trust.rule_for(name, override.tenant)
    if rule is not None and not rule.allow_config_override:
        raise OverrideRefused(
            "the request gives a configuration that nobody has signed; expected none, or signed files with it"
        )


def _config(trust: Trust, name: str, source: ModelSource, staged: Staged) -> ConfigDict | None:
    """The configuration, as it lies in the private copy, or as a request may give it. Raises OverrideRefused."""
    override = source.override
    if override is None:
        return read_config(staged.model_dir)
    rule = trust.rule_for(name, override.tenant)
    if rule is None or rule.allow_config_override:
        return given_config(override.config, staged.model_dir)
    signed = read_config(staged.model_dir)
    if (
        not _says_nothing(override.config)
        and given_config(override.config, staged.model_dir) != signed
    ):
        raise OverrideRefused(
            "the configuration that the request gives is not the one that was signed; expected that one, or {}"
        )
    return signed


def _says_nothing(config: str) -> bool:
    try:
        return bool(json.loads(config) == {})
    except ValueError:
        return False
