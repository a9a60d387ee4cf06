"""The table of the protocol's extensions in docs/protocol.md: made of the marks that tests have, and of what the server
advertises. A test says `pytest.mark.extension("name")`, and `refused=True` where it is about the answer of a server
that does not have the extension."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from extension_marks import PROTOCOLS, Marked
from penstock.config import Settings
from penstock.gateway.server_state import ServerState
from penstock_loadtest.marked import table
from served import FRONTS

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = ROOT / "tests"

EXTENSIONS: Final[Mapping[str, str]] = {
    "binary_tensor_data": "binary tensors over HTTP",
    "classification": "the largest elements of an output, with their labels",
    "parameters": "a request's own parameters",
    "model_configuration": "a model's complete configuration",
    "model_repository": "index, load and unload, with configuration and files",
    "model_repository(unload_dependents)": "unload a model with those that it needs",
    "statistics": "what each model has done",
    "trace": "traces of single requests",
    "logging": "what is logged, at run time",
    "schedule_policy": "priorities and time-outs",
    "rate_limiter": "resources that models share",
    "sequence": "stateful models",
    "streaming": "ModelStreamInfer, and decoupled models",
    "generate": "plain JSON, in one response or a stream of events",
    "ensemble": "models made of models",
    "bls": "models that call models",
    "ragged_batching": "requests of different shapes in one batch, by batch inputs",
    "padded_buckets": "requests of different shapes in one batch, by padding",
    "images": "images of any size, resized and normalised in the worker",
    "response_cache": "answers that were given before",
    "gpu_placement": "instances on GPUs, and in the place of them",
    "warmup": "samples that are run before a model serves",
    "system_shared_memory": "tensors in POSIX shared memory",
    "cuda_shared_memory": "tensors in a GPU's memory",
    "mlflow": "models that MLflow has saved",
    "tensorrt": "models for TensorRT, and what runs in its place",
    "rollouts": "a new version on a share of the requests, watched",
    "check": "`penstock check`",
    "openapi": "`/openapi.json` and `/docs`",
    "kserve_v1": "KServe's `:predict`",
    "sagemaker": "`/ping` and `/invocations`",
    "vertex_ai": "Vertex AI's `AIP_*`",
    "registry": "models of an MLflow registry",
}
"""In the table's order. What tests have beside is appended to it."""

WITHOUT_A_SERVER: Final = frozenset({"check"})
"""What no front serves."""

NOT_YET: Final = "not there yet"
NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class Extension:
    """What tests say of one."""

    name: str
    tests: Sequence[Marked]

    @property
    def served(self) -> Sequence[Marked]:
        """Tests of a running server."""
        return [test for test in self.tests if test.e2e]

    @property
    def works(self) -> bool:
        """Some are about more than a refusal."""
        return any(not test.refused for test in self.tests)

    @property
    def state(self) -> str:
        """In a word or two."""
        if not self.tests:
            return NOT_YET
        if not self.works:
            return "refused"
        if not self.served and self.name not in WITHOUT_A_SERVER:
            return "in parts"
        return "works"

    @property
    def fronts(self) -> Sequence[str]:
        """On which it is tested through a client."""
        return [front for front in FRONTS if any(front in test.fronts for test in self.served)]

    @property
    def protocols(self) -> Sequence[str]:
        """Over which it is tested through a client."""
        return [name for name in PROTOCOLS if any(name in test.protocols for test in self.served)]

    @property
    def files(self) -> Sequence[str]:
        """Where its tests are."""
        return sorted({test.file for test in self.tests})


def extensions() -> Sequence[Extension]:
    """All of them."""
    marks = collected()
    names = dict.fromkeys((*EXTENSIONS, *advertised(), *sorted({mark.extension for mark in marks})))
    return [Extension(name, [m for m in marks if m.extension == name]) for name in names]


def extensions_table() -> str:
    """A row for each."""
    always, sometimes = set(advertised(Settings())), set(advertised())
    rows = []
    for each in extensions():
        shown = "yes" if each.name in always else "with its flag" if each.name in sometimes else ""
        what = EXTENSIONS.get(each.name, "")
        over = ", ".join({"http": "HTTP", "grpc": "gRPC"}[name] for name in each.protocols)
        files = ", ".join(f"`{file.removesuffix('.py')}`" for file in each.files)
        cells = (shown or NONE, over or NONE, ", ".join(each.fronts) or NONE, files or NONE)
        rows.append((f"`{each.name}`", what, each.state, *cells))
    heads = ("extension", "what", "state", "in `/v2`", "clients", "fronts", "tests")
    return table(heads, rows)


def advertised(settings: Settings | None = None) -> Sequence[str]:
    """What the server's metadata lists with these settings; by default with all that add to it."""
    repository: Any = SimpleNamespace(set_logging=None)
    return ServerState(settings or Settings(allow_client_shm=True), repository).extensions


@cache
def collected() -> Sequence[Marked]:
    """The marks of all tests. Collects those files only that have some."""
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if _has_marks(path)]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "marks.json"
        environment = {
            **os.environ,
            "EXTENSION_MARKS": str(found),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "extension_marks"]
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", *map(str, files)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return _decode(found.read_bytes())


_decode: Final = msgspec.json.Decoder(list[Marked]).decode


def _has_marks(path: Path) -> bool:
    return "mark.extension(" in path.read_text()


def lacking(names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Of those extensions, the ones that are not tested through a client on both fronts → where they are."""
    by_name = {each.name: each for each in extensions()}
    return {
        name: by_name[name].fronts
        for name in names
        if not by_name[name].works or set(by_name[name].fronts) != set(FRONTS)
    }
