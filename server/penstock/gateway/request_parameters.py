"""Types and ranges of request parameters, which both wires can carry beyond what the protocol allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from penstock.errors import InvalidRequest
from penstock.types import Parameter

EMPTY_FINAL: Final = "triton_enable_empty_final_response"
"""A client's wish, for streams, to be told of a request's end also where there is nothing else to say."""

_Unsigned = Annotated[int, Meta(ge=0)]
_RESERVED: Final[Mapping[str, Any]] = {
    "sequence_id": _Unsigned | str,
    "sequence_start": bool,
    "sequence_end": bool,
    "priority": _Unsigned,
    "timeout": _Unsigned,
    "binary_data_output": bool,
    # responses say which model's files gave them
    "model_digest": bool,
    # perf_analyzer sends it with every request; it has a meaning for streams only
    EMPTY_FINAL: bool,
}
_RESERVED_PREFIX: Final = "triton_"
_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64 - 1


def check_parameters(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """The same parameters, all of which are bool, int64 or uint64, float or str, reserved ones of their own type.

    Raises InvalidRequest, naming the parameter.
    """
    for key, value in parameters.items():
        _check(key, value)
    return dict(parameters)


def _check(key: str, value: Any) -> None:
    if not isinstance(value, bool | int | float | str):
        raise InvalidRequest(
            f"parameter '{key}' has invalid type."
            " It should be either 'int', 'bool', 'double', or 'string'."
        )
    if isinstance(value, int) and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise InvalidRequest(f"parameter '{key}' is out of range, expected 64 bits")
    if key.startswith(_RESERVED_PREFIX) and key not in _RESERVED:
        raise InvalidRequest(
            f"parameter '{key}': parameter keys starting with 'triton_' are reserved"
            " for Triton usage and should not be specified."
        )
    if key in _RESERVED:
        try:
            msgspec.convert(value, _RESERVED[key])
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"Unable to parse '{key}': {error}") from error
