"""The machine at hand: each candidate is a model of its own on one server, with the same files and its own
configuration."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.errors import LoadFailed, ModelFailed
from penstock.tuning.calls import Calls, request_message
from penstock.tuning.candidate import Candidate
from penstock.tuning.model import PBTXT, YAML, TunedModel
from penstock.tuning.samples import difference
from penstock.tuning.search import Slice
from penstock.types import Array

WARM_S: Final = 0.2
"""Of load before a candidate is measured: backends compile for batch sizes as they come."""


@dataclass(slots=True)
class ServerMachine:
    """A `Machine` over a private server."""

    repository: Path
    """Its, empty at first."""
    calls: Calls
    model: TunedModel
    row: Mapping[str, Array]
    """What is asked."""
    concurrency: int
    slice_s: float
    on_slice: Callable[[], None] = lambda: None
    _names: dict[Candidate, str] = field(default_factory=dict)
    _count: int = 0
    _expected: Mapping[str, Array] | None = None
    """What the model answers as it is configured now, which is prepared first."""

    async def prepare(self, candidates: Sequence[Candidate]) -> Mapping[Candidate, str]:
        """Load them side by side, and see that all answer the same."""
        reasons = await asyncio.gather(*(self._load(c) for c in candidates))
        refused = {c: why for c, why in zip(candidates, reasons, strict=True) if why}
        for candidate in candidates:
            if candidate not in refused:
                why = await self._try(candidate)
                if why:
                    refused[candidate] = why
        return refused

    async def measure(self, candidate: Candidate) -> Slice:
        """Raises ModelFailed where a request fails."""
        found = await self._ask_again_and_again(candidate, self.slice_s)
        self.on_slice()
        return found

    async def release(self, candidates: Sequence[Candidate]) -> None:
        """Unload them, whatever has become of them."""
        for candidate in candidates:
            name = self._names.pop(candidate, None)
            if name is not None:
                await self.calls.unload(name)
                shutil.rmtree(self.repository / name)

    async def _load(self, candidate: Candidate) -> str:
        self._count += 1
        name = f"{self.model.folder.name}--{self._count}"
        copy_of(self.model, candidate, self.repository / name)
        self._names[candidate] = name
        try:
            await self.calls.load(name)
        except LoadFailed as error:
            return str(error)
        return ""

    async def _try(self, candidate: Candidate) -> str:
        try:
            found = await self.calls.infer(self._message(candidate))
            await self._ask_again_and_again(candidate, WARM_S)
        except ModelFailed as error:
            return str(error)
        if self._expected is None:
            self._expected = found
        return difference(self._expected, found)

    async def _ask_again_and_again(self, candidate: Candidate, seconds: float) -> Slice:
        return await self.calls.load_test(self._message(candidate), self.concurrency, seconds)

    def _message(self, candidate: Candidate) -> bytes:
        return request_message(self._names[candidate], self.model.config, self.row)


def copy_of(model: TunedModel, candidate: Candidate, folder: Path) -> None:
    """A model folder of another name with a configuration of its own. Its version is a link to the model's; what lies
    beside (labels, samples) is copied, for nothing of that may be outside of a model's folder."""
    folder.mkdir()
    for path in model.folder.absolute().iterdir():
        if path.name == str(model.version):
            (folder / path.name).symlink_to(path)
        elif path.is_dir() and not path.name.isdecimal():
            shutil.copytree(path, folder / path.name)
        elif path.is_file() and path.name not in (PBTXT, YAML):
            shutil.copy(path, folder / path.name)
    text = model.text_for(candidate, name=folder.name, version_policy=None)
    (folder / model.filename).write_text(text)
