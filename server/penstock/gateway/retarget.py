"""Encoders that can speak for another version of their model: of a request that one version could not answer."""

from __future__ import annotations

from typing import Protocol

from penstock.repository.served_model import ServedModel
from penstock.workers.request import Encode


class Retargetable(Protocol):
    """An `Encode` whose responses name the model."""

    def of(self, model: ServedModel) -> Encode:
        """What encodes that model's responses to the same request from now on: itself, unless others use it too."""
        ...


def for_model(encode: Encode, model: ServedModel) -> Encode:
    """The encoder of a request that this version answers now. Those that name no model are as they were."""
    of = getattr(encode, "of", None)
    return encode if of is None else of(model)
