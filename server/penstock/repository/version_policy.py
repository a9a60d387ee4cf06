"""Which of a model's versions are served."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict


def version_policy(config: ConfigDict | None, present: Sequence[int]) -> tuple[int, ...]:
    """The versions to serve of those `present` in the model's folder, lowest first.

    Without a policy: the latest one. Raises ConfigError when a version asked for is not present.
    """
    policy = (config or {}).get("version_policy") or {}
    versions = sorted(present)
    if "all" in policy:
        return tuple(versions)
    if "specific" in policy:
        return _specific(policy["specific"].get("versions", ()), versions)
    count = policy.get("latest", {}).get("num_versions", 1)
    return tuple(versions[-count:])


def _specific(wanted: Sequence[int], present: Sequence[int]) -> tuple[int, ...]:
    missing = sorted(set(wanted) - set(present))
    if missing:
        found = ", ".join(map(str, present)) or "none"
        text = (
            f"version_policy.specific asks for version {missing[0]}; the model's folder has {found}"
        )
        raise ConfigError(text)
    return tuple(sorted(set(wanted)))
