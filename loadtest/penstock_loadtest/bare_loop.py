"""What the embedder's ONNX session reaches with nothing round it: one process, one loop, batches of 32.

    python -m penstock_loadtest.bare_loop MODEL_VERSION_FOLDER THREADS SECONDS {loop,onnx}

`loop` tokenises and runs; `onnx` runs on tokens made before. Prints one line of JSON: a BareResult.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from penstock_loadtest.texts import sample_texts

BatchMaker = Callable[[Sequence[str]], "Feeds"]
Feeds = Mapping[str, npt.NDArray[np.integer[Any]]]
Mode = Literal["loop", "onnx"]

BATCH: Final = 32
TEXTS: Final = 256
WARM_UP_BATCHES: Final = 8
INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
ENCODING_FIELDS: Final = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""Usual name of a transformer's input → the attribute of a `tokenizers.Encoding`."""


@dataclass(frozen=True, slots=True)
class BareResult:
    """What the loop did."""

    texts: int
    seconds: float
    cpu_s: float


def main() -> None:
    """Parse the four words and print the result."""
    folder, threads, seconds, mode = sys.argv[1:]
    run, batch = open_model(Path(folder), int(threads))
    steps = loop_steps(run, batch) if mode == "loop" else onnx_steps(run, batch)
    for _ in range(WARM_UP_BATCHES):
        steps()
    sys.stdout.write(json.dumps(asdict(timed(steps, float(seconds)))) + "\n")


def open_model(folder: Path, threads: int) -> tuple[Callable[[Feeds], object], BatchMaker]:
    """The ONNX session's run over `threads` threads, and what turns texts into its inputs."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # As the served model sets it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    types = {one.name: INTEGERS[one.type] for one in session.get_inputs()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()

    def batch(texts: Sequence[str]) -> Feeds:
        encodings = tokenizer.encode_batch_fast(list(texts))
        return {
            name: np.array([getattr(e, ENCODING_FIELDS[name]) for e in encodings], dtype)
            for name, dtype in types.items()
        }

    return lambda feeds: session.run(None, feeds), batch


def loop_steps(run: Callable[[Feeds], object], batch: BatchMaker) -> Callable[[], object]:
    """Each call tokenises the next batch and runs it."""
    texts = itertools.cycle(batches())
    return lambda: run(batch(next(texts)))


def onnx_steps(run: Callable[[Feeds], object], batch: BatchMaker) -> Callable[[], object]:
    """Each call runs the next batch, tokenised beforehand."""
    feeds = itertools.cycle([batch(texts) for texts in batches()])
    return lambda: run(next(feeds))


def batches() -> list[list[str]]:
    """The benchmark's texts in their order, 32 at a time."""
    texts = sample_texts(TEXTS)
    return [texts[at : at + BATCH] for at in range(0, TEXTS, BATCH)]


def timed(step: Callable[[], object], seconds: float) -> BareResult:
    """Call `step` until `seconds` have passed."""
    count, cpu_before, started = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        count += 1
    elapsed = time.perf_counter() - started
    return BareResult(count * BATCH, elapsed, time.process_time() - cpu_before)


if __name__ == "__main__":
    main()
