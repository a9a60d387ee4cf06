"""Models of several versions that tests roll out, and the traffic that they get meanwhile."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from served import Served
from served_models import APPS
from shared_regions import PROTOCOLS, Client

Fault = Mapping[str, float]

XY: Final = """
    input [ { name: "X" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
ALL: Final = "version_policy { all { } }"


def write_versions(
    folder: Path, versions: Mapping[int, Fault], config: str = "", app: str = "fickle"
) -> None:
    """A model whose versions are good but for their faults."""
    folder.mkdir(parents=True)
    text = f'backend: "python"\nmax_batch_size: 8\n{XY}\n{ALL}\n{config}'
    (folder / "config.pbtxt").write_text(text)
    for number, fault in versions.items():
        write_version(folder, number, fault, app)


def write_version(folder: Path, number: int, fault: Fault, app: str = "fickle") -> None:
    """One more version of a model, which appears with all that belongs to it."""
    made = folder.parent.parent / f".{folder.name}-{number}"
    made.mkdir()
    shutil.copy(APPS / f"{app}.py", made / "model.py")
    (made / "fault.json").write_text(json.dumps(dict(fault)))
    made.rename(folder / str(number))


def plan(to: int, **changes: Any) -> dict[str, Any]:
    """A quick roll-out, whose steps end as soon as there were a few requests."""
    return {"to": to, "steps": [10, 50, 100], "step_s": 1, "min_requests": 20, **changes}


QUICK_GUARDS: Final = {"window_s": 0.02, "window_requests": 5}
"""Evidence within seconds rather than minutes."""


class Asking(threading.Thread):
    """A client that asks one thing after the other, over one protocol, until it is told to stop."""

    def __init__(self, server: Served, model: str, protocol: str, number: int) -> None:
        super().__init__()
        self._server, self._model, self._protocol, self._number = server, model, protocol, number
        self._stopped = threading.Event()
        self.versions: Counter[str] = Counter()
        """Which have answered, how often."""
        self.failures: list[str] = []
        """What was no answer, or a wrong one."""

    def stop(self) -> None:
        """After the next answer."""
        self._stopped.set()

    def run(self) -> None:
        """Until it is told."""
        with Client(self._server, self._protocol) as client:
            for count in itertools.count():
                if self._stopped.is_set():
                    return
                try:
                    self._ask(client, count)
                except Exception as error:  # noqa: BLE001 - any is a failure, and is shown
                    self.failures.append(repr(error))

    def _ask(self, client: Client, count: int) -> None:
        # another one each time: what a fault hits is chance
        x = np.array([[self._number * 10 + count * 0.01, 1]], np.float32)
        sent = client.sent("X", "FP32", x)
        result = client.client.infer(self._model, [sent], request_id=f"{self._number}-{count}")
        y = result.as_numpy("Y")
        if not np.allclose(y, x * 2 + 1, atol=1e-3):
            self.failures.append(f"{x} → {y}")
        response = result.get_response()
        version = (
            response["model_version"] if isinstance(response, dict) else response.model_version
        )
        self.versions[version] += 1


@contextmanager
def asking(server: Served, model: str, clients: int = 3) -> Iterator[list[Asking]]:
    """Some clients at work, over both protocols."""
    threads = [Asking(server, model, PROTOCOLS[n % 2], n) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(30)


def failures(clients: Sequence[Asking]) -> list[str]:
    """Of all of them."""
    return [failure for client in clients for failure in client.failures]


def versions(clients: Sequence[Asking]) -> Counter[str]:
    """Which versions have answered them."""
    return sum((client.versions for client in clients), Counter())
