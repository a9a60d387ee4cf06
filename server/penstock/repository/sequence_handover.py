"""Sequences of models that are loaded anew: those that are under way end where they began."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from penstock.repository.sequence_pool import SequencePool
from penstock.repository.served_model import ServedModel
from penstock.types import Parameter


class Handovers:
    """Knows the models that go while others have taken their place."""

    def __init__(self) -> None:
        self._retiring: list[ServedModel] = []

    async def retire(
        self, old: ServedModel, grace_s: float, served: Callable[[], Iterable[ServedModel]]
    ) -> None:
        """Close a model that was replaced. Those that are served after it know which of its sequences are lost."""
        if isinstance(old.pool, SequencePool):
            old.pool.replaced = True
        self._retiring.append(old)
        try:
            await old.close(grace_s)
        finally:
            self._retiring.remove(old)
        for model in served():
            if model.name == old.name:
                _adopt(model, old)

    def keeper(
        self, model: ServedModel, parameters: Mapping[str, Parameter], tenant: str
    ) -> ServedModel | None:
        """Which model that goes has the sequence of the tenant's that a request goes on with; None: none has it."""
        sequence_id = parameters.get("sequence_id")
        if parameters.get("sequence_start") or not isinstance(sequence_id, int | str):
            return None
        if isinstance(model.pool, SequencePool) and model.pool.holds((tenant, sequence_id)):
            return None
        for old in self._retiring:
            if (
                old.name == model.name
                and isinstance(old.pool, SequencePool)
                and old.pool.holds((tenant, sequence_id))
            ):
                return old
        return None


def _adopt(model: ServedModel, old: ServedModel) -> None:
    if isinstance(model.pool, SequencePool) and isinstance(old.pool, SequencePool):
        model.pool.queue.endings.adopt(old.pool.queue.endings)
