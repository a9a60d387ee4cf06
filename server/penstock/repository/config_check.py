"""What a configuration must hold to be served, beyond the types of its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from penstock.devices.placement import MAX_INSTANCES
from penstock.errors import ConfigError
from penstock.model_config import ANY_SIZE, ConfigDict, known_datatypes
from penstock.repository.config_ensemble import ensemble_problems
from penstock.repository.config_images import image_problems, incomplete_images
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.config_rate_limits import rate_limit_problems
from penstock.repository.config_sequences import sequence_problems
from penstock.repository.config_uneven import incomplete_uneven, uneven_problems
from penstock.repository.config_unsupported import unsupported
from penstock.repository.labels import label_path
from penstock.workers import warmup_samples

KINDS_WITHOUT_GPUS: Final = ("KIND_CPU", "KIND_MODEL")


class Problem(NamedTuple):
    """One thing that is wrong: `path` is its key (`input[0].dims[1]`), `text` goes on."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}"


def problems(config: ConfigDict, *, batching_known: bool) -> Iterator[Problem]:
    """What is wrong in a configuration with all its defaults (`proto_to_config`).

    `batching_known`: max_batch_size is given, and not left to the backend.
    """
    checks: Sequence[Callable[[ConfigDict], Iterator[Problem]]] = (
        _batch_size,
        _tensors,
        _instances,
        _versions,
        _filenames,
        _priorities,
        _ordering,
        _warmup,
        _sequences,
        _rate_limits,
        _ensemble,
        *((_dynamic_batching,) if batching_known else ()),
    )
    for check in checks:
        yield from check(config)
    found = uneven_problems(config, batching_known=batching_known)
    yield from (Problem(path, text) for path, text in found)
    yield from (Problem(path, text) for path, text in image_problems(config))
    yield from (Problem(path, text) for path, text in unsupported(config))


def label_problems(config: ConfigDict, model_dir: Path) -> Iterator[Problem]:
    """Label files that are not in the model's folder."""
    for index, output in enumerate(config["output"]):
        if output["label_filename"]:
            try:
                label_path(model_dir, output["label_filename"])
            except ConfigError as error:
                yield Problem(f"output[{index}].label_filename", f"can't be used: {error}")


def check_complete(config: ConfigDict, where: str) -> None:
    """Check a configuration that a backend completed; keys with default values may be left out.

    Raises ConfigError that begins with `where` (say, the model's name).
    """
    full = proto_to_config(config_to_proto(config))
    found = next(_incomplete(full), None) or next(problems(full, batching_known=True), None)
    if found is not None:
        raise ConfigError(f"{where}: {found}")


def _incomplete(config: ConfigDict) -> Iterator[Problem]:
    for kind in ("input", "output"):
        if not config[kind]:
            yield Problem(kind, "is empty; expected at least one, and the model's files name none")
        for index, tensor in enumerate(config[kind]):
            if tensor["data_type"] not in known_datatypes():
                path = f"{kind}[{index}].data_type"
                yield Problem(path, f"is not given; expected one of {', '.join(known_datatypes())}")
    yield from (Problem(path, text) for path, text in incomplete_uneven(config))
    yield from (Problem(path, text) for path, text in incomplete_images(config))


def _batch_size(config: ConfigDict) -> Iterator[Problem]:
    size = config["max_batch_size"]
    if size < 0:
        yield Problem("max_batch_size", f"is {size}; expected 0 (no batch dimension) or more")


def _tensors(config: ConfigDict) -> Iterator[Problem]:
    for kind in ("input", "output"):
        seen: dict[str, int] = {}
        for index, tensor in enumerate(config[kind]):
            path, name = f"{kind}[{index}]", tensor["name"]
            if not name:
                yield Problem(f"{path}.name", "is not given; expected the tensor's name")
            elif name in seen:
                text = f"is {name!r}, as is that of {kind}[{seen[name]}]; expected different names"
                yield Problem(f"{path}.name", text)
            seen[name] = index
            yield from _shape(f"{path}.dims", tensor["dims"])
            if "reshape" in tensor:
                yield from _reshape(path, tensor["dims"], tensor["reshape"]["shape"])


def _shape(path: str, dims: Sequence[int]) -> Iterator[Problem]:
    for index, dim in enumerate(dims):
        if dim < 1 and dim != ANY_SIZE:
            yield Problem(f"{path}[{index}]", f"is {dim}; expected -1 (any size), or 1 or more")


def _reshape(path: str, dims: Sequence[int], shape: Sequence[int]) -> Iterator[Problem]:
    yield from _shape(f"{path}.reshape.shape", shape)
    if dims and _sections(dims) != _sections(shape):
        text = f"is {list(shape)}; expected as many elements as dims {list(dims)} has"
        yield Problem(f"{path}.reshape.shape", text)


def _sections(dims: Sequence[int]) -> list[int]:
    """Elements of the parts between dimensions of any size; equal ones reshape into each other."""
    cuts = [-1, *(index for index, dim in enumerate(dims) if dim == ANY_SIZE), len(dims)]
    return [prod(dims[start + 1 : end]) for start, end in pairwise(cuts)]


def _instances(config: ConfigDict) -> Iterator[Problem]:
    total = 0
    for index, group in enumerate(config["instance_group"]):
        path = f"instance_group[{index}]"
        if group["count"] < 0:
            yield Problem(f"{path}.count", f"is {group['count']}; expected 1 or more")
        total += group["count"]
        if total > MAX_INSTANCES:
            text = f"makes {total} instances of the model; expected {MAX_INSTANCES} at most"
            yield Problem(f"{path}.count", text)
            return
        if group["gpus"] and group["kind"] in KINDS_WITHOUT_GPUS:
            text = f"are given with {group['kind']}; expected them only with KIND_GPU or KIND_AUTO"
            yield Problem(f"{path}.gpus", text)
        for number, gpu in enumerate(group["gpus"]):
            if gpu < 0:
                yield Problem(f"{path}.gpus[{number}]", f"is {gpu}; expected 0 or more")


def _versions(config: ConfigDict) -> Iterator[Problem]:
    policy: dict[str, Any] = config.get("version_policy", {})
    if policy.get("latest", {}).get("num_versions") == 0:
        yield Problem("version_policy.latest.num_versions", "is 0; expected 1 or more")
    if "specific" in policy:
        path, versions = "version_policy.specific.versions", policy["specific"]["versions"]
        if not versions:
            yield Problem(path, "is empty; expected at least one version")
        for index, version in enumerate(versions):
            if version < 1:
                yield Problem(f"{path}[{index}]", f"is {version}; expected 1 or more")


def _filenames(config: ConfigDict) -> Iterator[Problem]:
    names = {"default_model_filename": config["default_model_filename"]}
    for key, name in config["cc_model_filenames"].items():
        names[f"cc_model_filenames[{key!r}]"] = name
    for path, name in names.items():
        if name in (".", "..") or "\0" in name or "/" in name or "\\" in name:
            text = (
                f"is {name!r}; expected the name of a file in the version's folder, without a path"
            )
            yield Problem(path, text)


def _dynamic_batching(config: ConfigDict) -> Iterator[Problem]:
    batching, largest = config.get("dynamic_batching"), config["max_batch_size"]
    # without a batch dimension it has no effect; Triton takes such configurations, so they are taken here
    if batching is None or largest <= 0:
        return
    for index, size in enumerate(batching["preferred_batch_size"]):
        if not 1 <= size <= largest:
            text = f"is {size}; expected 1 to max_batch_size, which is {largest}"
            yield Problem(f"dynamic_batching.preferred_batch_size[{index}]", text)


def _priorities(config: ConfigDict) -> Iterator[Problem]:
    batching = config.get("dynamic_batching")
    levels = 0 if batching is None else batching["priority_levels"]
    if batching is None or levels == 0:
        return
    default = batching["default_priority_level"]
    expected = f"expected 1 to priority_levels, which is {levels}"
    if not 1 <= default <= levels:
        yield Problem("dynamic_batching.default_priority_level", f"is {default}; {expected}")
    for level in batching["priority_queue_policy"]:
        if not 1 <= int(level) <= levels:
            path = f"dynamic_batching.priority_queue_policy[{level!r}]"
            yield Problem(path, f"is for a level that isn't there; {expected}")


def _ordering(config: ConfigDict) -> Iterator[Problem]:
    batching = config.get("dynamic_batching")
    if batching is None or not batching["preserve_ordering"]:
        return
    levels = batching["priority_levels"]
    if levels > 1:
        text = f"is {levels}; expected 1 at most, for preserve_ordering is true"
        yield Problem("dynamic_batching.priority_levels", text)
    policies = {key: batching[key] for key in ("default_queue_policy",) if key in batching}
    for level, policy in batching["priority_queue_policy"].items():
        policies[f"priority_queue_policy[{level!r}]"] = policy
    for name, policy in policies.items():
        times = policy["default_timeout_microseconds"] or policy["allow_timeout_override"]
        if times and policy["timeout_action"] == "DELAY":
            text = "is DELAY; expected REJECT, for preserve_ordering is true"
            yield Problem(f"dynamic_batching.{name}.timeout_action", text)


def _warmup(config: ConfigDict) -> Iterator[Problem]:
    # what needs the complete inputs is checked by the worker, which has them before it runs the samples
    parsed = warmup_samples.parse(config)
    for index in range(len(parsed.model_warmup)):
        for path, text in warmup_samples.complaints(parsed, index, complete=False):
            yield Problem(path, text)


def _rate_limits(config: ConfigDict) -> Iterator[Problem]:
    yield from (Problem(path, text) for path, text in rate_limit_problems(config))


def _sequences(config: ConfigDict) -> Iterator[Problem]:
    yield from (Problem(path, text) for path, text in sequence_problems(config))


def _ensemble(config: ConfigDict) -> Iterator[Problem]:
    yield from (Problem(path, text) for path, text in ensemble_problems(config))
