"""What `rate_limiter` of an instance group must hold to be served."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.model_config import ConfigDict


def rate_limit_problems(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Path and what is wrong, of a configuration with all its defaults."""
    for number, group in enumerate(config["instance_group"]):
        seen: dict[str, str] = {}
        for index, resource in enumerate(group.get("rate_limiter", {}).get("resources", [])):
            path = f"instance_group[{number}].rate_limiter.resources[{index}]"
            name = resource["name"]
            if not name:
                yield f"{path}.name", "is not given; expected the resource's name"
            elif name in seen:
                yield f"{path}.name", f"is {name!r}, as is that of {seen[name]}; expected one of it"
            seen[name] = f"resources[{index}]"
