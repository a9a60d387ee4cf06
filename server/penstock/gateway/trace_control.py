"""The trace extension: shows and changes what is traced. The same for both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.message import Message

from penstock.errors import InvalidRequest
from penstock.protobuf import message_class
from penstock.repository.repository import ModelRepository
from penstock.telemetry.tracing.array_file import check_writable
from penstock.telemetry.tracing.settings import Changes
from penstock.telemetry.tracing.tracing import Tracing

LISTS: Final = frozenset({"trace_level"})
"""Settings that are lists over HTTP."""


class TraceControl:
    """One a gateway. Model "" is the server's own setting."""

    def __init__(self, tracing: Tracing, repository: ModelRepository) -> None:
        self._tracing = tracing
        self._repository = repository

    def to_json(self, model: str) -> dict[str, Any]:
        """The settings as HTTP shows them. Raises InvalidRequest for a model that is not known."""
        self._check(model)
        return {
            name: texts if name in LISTS or len(texts) != 1 else texts[0]
            for name, texts in self._tracing.to_texts(model).items()
        }

    async def update(self, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change what the body of a POST names; null clears. Returns all settings.

        Raises InvalidRequest, Unsupported. Then nothing is changed.
        """
        await self._change(model, {name: _texts(name, value) for name, value in body.items()})
        return self.to_json(model)

    async def answer(self, request: Any) -> Message:
        """Change what a TraceSettingRequest names, and tell all settings. Raises as `update` does."""
        changes = {name: list(each.value) or None for name, each in request.settings.items()}
        await self._change(request.model_name, changes)
        response: Any = message_class("inference.TraceSettingResponse")()
        for name, texts in self._tracing.to_texts(request.model_name).items():
            response.settings[name].value.extend(texts)
        return response  # type: ignore[no-any-return]

    async def _change(self, model: str, changes: Changes) -> None:
        self._check(model)
        if not changes:
            return
        file = self._tracing.config.file
        if file and changes.get("trace_level") not in (None, ["OFF"]):
            await _check_file(file)
        self._tracing.update(model, changes)

    def _check(self, model: str) -> None:
        if model and not self._repository.knows(model):
            raise InvalidRequest(f"Request for unknown model : {model[:200]}")


async def _check_file(file: str) -> None:
    try:
        await asyncio.to_thread(check_writable, file)
    except OSError as error:
        raise InvalidRequest(
            f"Attempting to set invalid trace setting :{file} can't be written: {error.strerror}"
        ) from error


def _texts(name: str, value: object) -> list[str] | None:
    if value is None or name == "trace_file":
        return None
    if name in LISTS:
        if not isinstance(value, list):
            raise InvalidRequest(f"attempt to access JSON non-array as array: '{name}'")
        if not all(isinstance(each, str) for each in value):
            raise InvalidRequest(f"attempt to access JSON non-string as string: '{name}'")
        return value
    if not isinstance(value, str):
        raise InvalidRequest(f"attempt to access JSON non-string as string: '{name}'")
    return [value]
