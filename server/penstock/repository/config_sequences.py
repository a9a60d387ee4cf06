"""What `sequence_batching` of a configuration must hold to be served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from penstock.model_config import ANY_SIZE, CORRELATION_ID, ConfigDict, known_datatypes
from penstock.repository.sequence_terms import HIGHEST

Found = Iterator[tuple[str, str]]
"""Path and what is wrong."""

ID_TYPES: Final = (*HIGHEST, "TYPE_STRING")
PAIRS: Final = ("int32_false_true", "fp32_false_true", "bool_false_true")


def sequence_problems(config: ConfigDict) -> Found:
    """What is wrong in it, of a configuration with all its defaults."""
    batching = config.get("sequence_batching")
    if batching is None:
        return
    yield from _strategy(batching, config["max_batch_size"])
    yield from _controls(batching["control_input"])
    yield from _states(batching["state"])
    yield from _names(config, batching)
    if config.get("model_transaction_policy", {}).get("decoupled"):
        yield from _decoupled(batching, config["max_batch_size"])


def _strategy(batching: Mapping[str, Any], max_batch_size: int) -> Found:
    direct, oldest = batching.get("direct"), batching.get("oldest")
    if direct is not None and not 0 <= float(direct["minimum_slot_utilization"]) <= 1:
        path = "sequence_batching.direct.minimum_slot_utilization"
        yield path, f"is {direct['minimum_slot_utilization']}; expected 0 to 1"
    if oldest is None:
        return
    if oldest["max_candidate_sequences"] < 1:
        path = "sequence_batching.oldest.max_candidate_sequences"
        yield path, f"is {oldest['max_candidate_sequences']}; expected 1 or more"
    for index, size in enumerate(oldest["preferred_batch_size"]):
        if max_batch_size > 0 and not 1 <= size <= max_batch_size:
            path = f"sequence_batching.oldest.preferred_batch_size[{index}]"
            yield path, f"is {size}; expected 1 to max_batch_size, which is {max_batch_size}"


def _controls(inputs: Sequence[Mapping[str, Any]]) -> Found:
    kinds: dict[str, str] = {}
    for index, given in enumerate(inputs):
        path = f"sequence_batching.control_input[{index}]"
        if len(given["control"]) != 1:
            yield f"{path}.control", f"has {len(given['control'])} entries; expected exactly one"
        for control in given["control"]:
            kind = control["kind"]
            if kind in kinds:
                yield f"{path}.control[0].kind", f"is {kind}, as is that of {kinds[kind]}"
            kinds[kind] = f"control_input[{index}]"
            yield from _values(f"{path}.control[0]", control)


def _values(path: str, control: Mapping[str, Any]) -> Found:
    given = [pair for pair in PAIRS if control[pair]]
    if control["kind"] == CORRELATION_ID:
        if control["data_type"] not in ID_TYPES:
            yield (
                f"{path}.data_type",
                f"is {control['data_type']}; expected one of {', '.join(ID_TYPES)}",
            )
        if given:
            yield f"{path}.{given[0]}", f"is given for {CORRELATION_ID}; expected data_type only"
    elif len(given) != 1:
        yield path, f"has {' and '.join(given) or 'no values'}; expected one of {', '.join(PAIRS)}"
    elif len(control[given[0]]) != 2:
        count = len(control[given[0]])
        yield f"{path}.{given[0]}", f"has {count} values; expected 2, for false and true"
    elif not all(isinstance(value, int | float) for value in control[given[0]]):
        yield f"{path}.{given[0]}", "is not finite; expected two numbers"


def _states(states: Sequence[Mapping[str, Any]]) -> Found:
    for index, state in enumerate(states):
        path = f"sequence_batching.state[{index}]"
        if state["data_type"] not in known_datatypes():
            known = ", ".join(known_datatypes())
            yield f"{path}.data_type", f"is {state['data_type']}; expected one of {known}"
        yield from _dims(f"{path}.dims", state["dims"], free=True)
        if state["use_growable_memory"]:
            text = "is for GPUs, which are not supported yet; expected false"
            yield f"{path}.use_growable_memory", text
        initial = state["initial_state"]
        if len(initial) > 1:
            yield f"{path}.initial_state", f"has {len(initial)} entries; expected one at most"
        for each in initial[:1]:
            yield from _initial(f"{path}.initial_state[0]", each, state)


def _initial(path: str, initial: Mapping[str, Any], state: Mapping[str, Any]) -> Found:
    if not initial["name"]:
        yield f"{path}.name", "is not given; expected a name"
    if initial["data_type"] != state["data_type"]:
        text = f"is {initial['data_type']}; expected the state's, {state['data_type']}"
        yield f"{path}.data_type", text
    yield from _dims(f"{path}.dims", initial["dims"], free=False)
    fits = len(initial["dims"]) == len(state["dims"]) and all(
        dim in (ANY_SIZE, size) for dim, size in zip(state["dims"], initial["dims"], strict=True)
    )
    if not fits:
        text = f"is {initial['dims']}; expected sizes that fit the state's {state['dims']}"
        yield f"{path}.dims", text
    if not initial.get("zero_data") and not initial.get("data_file"):
        yield path, "has no data; expected zero_data: true, or a data_file"
    name = initial.get("data_file", "")
    if name in (".", "..") or "/" in name or "\0" in name:
        text = f"is {name!r}; expected the name of a file in the folder initial_state"
        yield f"{path}.data_file", text


def _dims(path: str, dims: Sequence[int], *, free: bool) -> Found:
    for index, dim in enumerate(dims):
        if dim < 1 and not (free and dim == ANY_SIZE):
            expected = "-1 (any size), or 1 or more" if free else "1 or more"
            yield f"{path}[{index}]", f"is {dim}; expected {expected}"


def _names(config: ConfigDict, batching: Mapping[str, Any]) -> Found:
    """Inputs, and outputs, of the model must be different; what the server makes can't be sent by clients."""
    inputs = {tensor["name"]: f"input[{index}]" for index, tensor in enumerate(config["input"])}
    outputs: dict[str, str] = {}
    for kind, key, seen in (
        ("control_input", "name", inputs),
        ("state", "input_name", inputs),
        ("state", "output_name", outputs),
    ):
        for index, given in enumerate(batching[kind]):
            path, name = f"sequence_batching.{kind}[{index}].{key}", given[key]
            if not name:
                yield path, "is not given; expected the tensor's name"
            elif name in seen:
                yield path, f"is {name!r}, as is that of {seen[name]}; expected different names"
            seen[name] = path


def _decoupled(batching: Mapping[str, Any], max_batch_size: int) -> Found:
    if batching["state"]:
        yield "sequence_batching.state", "can't be kept for decoupled models; expected none"
    if batching.get("oldest") is None and max_batch_size > 1:
        text = "gives decoupled models rows without a request; expected oldest"
        yield "sequence_batching.direct", text
