"""Requests that Triton's Python models send to other models: what Triton calls Business Logic Scripting.

https://github.com/triton-inference-server/python_backend#business-logic-scripting
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.backends.base import ModelAnswer, ModelRequest, OpenCall, OtherModels
from penstock.backends.readings import asked_for
from penstock.backends.triton_objects import Tensor, TritonModelException
from penstock.errors import InvalidRequest, PenstockError
from penstock.types import Parameter


def ask(
    others: OtherModels | None,
    model: str,
    version: int,
    tensors: Sequence[Tensor],
    outputs: tuple[str, ...],
    request_id: str,
    parameters: dict[str, Parameter],
    *,
    decoupled: bool,
) -> OpenCall:
    """Send a request. Raises TritonModelException where it is none."""
    if others is None:
        raise TritonModelException("other models can't be reached from here")
    inputs = {tensor._name: tensor._array for tensor in tensors}
    if len(inputs) != len(tensors):
        raise TritonModelException(f"two inputs of the request to model '{model}' have one name")
    batch, requests = asked_for()
    number = str(version) if version > 0 else ""
    try:
        return others.ask(
            ModelRequest(
                model, number, inputs, outputs, request_id, parameters, decoupled, batch, requests
            )
        )
    except InvalidRequest as error:
        raise TritonModelException(str(error)) from error


class ResponseIterator:
    """The responses of a decoupled model, each as soon as it is there."""

    def __init__(self, call: OpenCall, response_of: Callable[[ModelAnswer], Any]) -> None:
        self._call = call
        self._response_of = response_of
        self._over = False

    def __iter__(self) -> ResponseIterator:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        answer = self._call.next()
        self._over = answer.final
        return self._response_of(answer)

    def cancel(self) -> None:
        """No more responses are needed."""
        self._call.cancel()

    def __del__(self) -> None:
        if not self._over:
            self._call.cancel()


def control(act: Callable[[], None]) -> None:
    """Do something with another model. Raises TritonModelException."""
    try:
        act()
    except PenstockError as error:
        raise TritonModelException(str(error)) from error
