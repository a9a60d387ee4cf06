"""What a request's parameters say of its sequence, checked against what its model can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from penstock.errors import InvalidRequest
from penstock.model_config import CORRELATION_ID, ModelConfig
from penstock.types import Parameter, SequenceId, SequenceTerms

MAX_ID_BYTES: Final = 128
"""As in Triton."""

HIGHEST: Final[Mapping[str, int]] = MappingProxyType(
    {
        "TYPE_UINT64": 2**64 - 1,
        "TYPE_INT64": 2**63 - 1,
        "TYPE_UINT32": 2**32 - 1,
        "TYPE_INT32": 2**31 - 1,
    }
)
"""Datatype of the correlation id's control → the highest number it can tell."""

Reader = Callable[[Mapping[str, Parameter], int], SequenceTerms]
"""(a request's parameters, its rows) → its terms. Raises InvalidRequest."""


def sequence_reader(config: ModelConfig) -> Reader | None:
    """Reads the requests of a model; None where it is not stateful."""
    if config.sequence_batching is None:
        return None
    told = [
        given.control[0].data_type
        for given in config.sequence_batching.control_input
        if given.control[0].kind == CORRELATION_ID
    ]
    id_type = told[0] if told else "TYPE_STRING"

    def read(parameters: Mapping[str, Parameter], rows: int) -> SequenceTerms:
        if rows != 1:
            raise InvalidRequest(
                f"inference request to model '{config.name}' must specify batch-size 1 due to requirements of sequence"
                " batcher"
            )
        given = parameters.get("sequence_id", 0)
        if not isinstance(given, int | str) or not given:
            raise InvalidRequest(
                f"inference request to model '{config.name}' must specify a non-zero or non-empty correlation ID"
            )
        _check_id(config.name, given, id_type)
        start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
        return SequenceTerms(given, bool(start), bool(end))

    return read


def _check_id(model: str, given: SequenceId, id_type: str) -> None:
    """Raises InvalidRequest for an id that the model can't be told, or that is too long to be remembered."""
    if isinstance(given, str):
        if len(given.encode()) > MAX_ID_BYTES:
            raise InvalidRequest(
                f"sequence_id of {len(given.encode())} bytes, expected {MAX_ID_BYTES} at most"
            )
        if id_type in HIGHEST:
            raise InvalidRequest(
                f"sequence_id is the text '{given}', but model '{model}' takes {id_type} correlation IDs: expected a"
                " number"
            )
    elif given > HIGHEST.get(id_type, given):
        raise InvalidRequest(
            f"sequence_id is {given}, but model '{model}' takes {id_type} correlation IDs: expected"
            f" {HIGHEST[id_type]} at most"
        )
