"""Responses that say which model's files gave them, where their request asks for it."""

from __future__ import annotations

from typing import Final

from penstock.errors import Unavailable
from penstock.gateway.client_memory import Wrapped
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor
from penstock.workers.request import Encode, PendingRequest

PARAMETER: Final = "model_digest"
"""`true` in a request's parameters; in its responses' the digest."""


class TellingDigest(Wrapped):
    """An `encode` whose responses have the digest among their parameters."""

    __slots__ = ("_digest",)

    def __init__(self, encode: Encode, model: ServedModel) -> None:
        """Raises Unavailable while the digest is not known."""
        super().__init__(encode)
        self._digest = _digest_of(model)

    def of(self, model: ServedModel) -> TellingDigest:
        """As Retargetable."""
        super().of(model)
        self._digest = _digest_of(model)
        return self

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says."""
        request.response_parameters = {**request.response_parameters, PARAMETER: self._digest}
        return self.encode(request, outputs)


def _digest_of(model: ServedModel) -> str:
    if model.digest is None:
        raise Unavailable(f"model '{model.name}' has no digest")
    return model.digest.now()
