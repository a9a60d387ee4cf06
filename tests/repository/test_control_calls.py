"""What models ask to have done with other models: loads with what they give, unloads with dependents."""

from __future__ import annotations

from typing import Any

import pytest

from fake_workers import until
from nested_bench import Models
from penstock.repository.model_calls import ModelCalls
from penstock.repository.nested import NestedCalls
from penstock.repository.overrides import Override
from penstock.repository.served_model import ServedModel
from penstock.workers.worker_commands import CallAnswered
from penstock.workers.worker_events import CallModel, ControlModel


class Control:
    """In the repository's place: it notes what it shall do."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def check_control_allowed(self) -> None:
        """It is."""

    def is_ready(self, name: str, version: str = "") -> bool:
        """Never asked."""
        raise AssertionError(name, version)

    def served(self) -> list[ServedModel]:
        """None."""
        return []

    async def load(self, name: str, override: Override | None = None) -> None:
        """Note it."""
        self.done.append((name, override))

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """Note it."""
        self.done.append((name, dependents))


class Asking:
    """In the place of an instance whose model asks."""

    def __init__(self) -> None:
        self.control = Control()
        self.models = Models()
        self.running: dict[int, Any] = {}
        self.streaming: dict[int, Any] = {}
        self._calls = ModelCalls(NestedCalls(self.models), self.control)
        self.answers: list[CallAnswered] = []

    def answer(self, answer: CallAnswered) -> None:
        """As Instance."""
        self.answers.append(answer)

    def call(self) -> str:
        """Ask model `m`; the error's text."""
        asked = CallModel(1, -1, (), "m", "", "", (), (), {}, False)
        self._calls.hear("caller", None, self, asked)  # type: ignore[arg-type]
        error = self.answers.pop().error
        return "" if error is None else error.reason

    async def __call__(
        self, action: Any, config: str = "", files: Any = None, *, dependents: bool = False
    ) -> str:
        """Ask; the error's text, empty where there is none."""
        asked = ControlModel(1, action, "m", "", config, files or {}, dependents)
        self._calls.hear("caller", None, self, asked)  # type: ignore[arg-type]
        await until(lambda: bool(self.answers))
        error = self.answers.pop().error
        return "" if error is None else error.reason


@pytest.fixture
async def ask() -> Asking:
    return Asking()


async def test_loads(ask: Asking) -> None:
    files = {"file:1/model.py": b"code"}
    assert await ask("load") == ""
    assert await ask("load", "{}") == ""
    assert await ask("load", "{}", files) == ""
    assert ask.control.done == [
        ("m", None),
        ("m", Override("{}")),
        ("m", Override("{}", files)),
    ]


async def test_unloads(ask: Asking) -> None:
    assert await ask("unload") == await ask("unload", dependents=True) == ""
    assert ask.control.done == [("m", False), ("m", True)]


async def test_bad_files(ask: Asking) -> None:
    assert "must be specified for model file override" in await ask("load", files={"file:x": b""})
    assert "unrecognized load parameter 'x'." in await ask("load", "{}", {"x": b""})
    assert "it has a part '..'" in await ask("load", "{}", {"file:../x": b""})
    assert ask.control.done == []


async def test_a_call_that_fails_by_a_bug_is_answered_too(
    ask: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "'m' is not found" in ask.call()

    def broken(name: str, version: str = "") -> ServedModel:
        raise RuntimeError("a secret")

    monkeypatch.setattr(ask.models, "get", broken)
    assert ask.call() == "internal error"
