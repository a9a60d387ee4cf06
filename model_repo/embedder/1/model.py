"""Sentence embeddings: all-MiniLM-L6-v2 on ONNX Runtime, tokenizer included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

import penstock
from penstock import Context, Spec
from penstock.errors import LoadFailed

MAX_TOKENS = 256
"""What the network was trained with; the rest of a longer text is left out."""

MAX_TEXT_BYTES = 64 * 1024
"""More than 256 tokens of any real text. A huge one must not keep its batch mates waiting."""


@penstock.model(
    inputs={"TEXT": Spec("BYTES", 1)},
    outputs={"EMBEDDING": Spec("FP32", 384)},
    max_batch_size=32,
)
class Embedder:
    """TEXT [n, 1] of UTF-8 → EMBEDDING [n, 384] of length 1: a dot product is a similarity."""

    def __init__(self, context: Context) -> None:
        model, tokenizer = (context.directory / name for name in ("model.onnx", "tokenizer.json"))
        if not (model.exists() and tokenizer.exists()):
            raise LoadFailed(f"not made yet, run: python {_export_script(context.directory)}")
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._session = onnxruntime.InferenceSession(
            model, _session_options(context.threads), providers=["CPUExecutionProvider"]
        )

    def __call__(self, TEXT: NDArray[np.object_]) -> dict[str, NDArray[np.float32]]:
        """Embed a batch, padded to its longest text."""
        texts = [text[:MAX_TEXT_BYTES].decode("utf-8", "replace") for text in TEXT[:, 0]]
        encodings = self._tokenizer.encode_batch_fast(texts)
        feeds = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        }
        return {"EMBEDDING": self._session.run(["embedding"], feeds)[0]}


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait would take the CPU from the gateway and from other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _export_script(version_dir: Path) -> Path:
    """The script's path, as short as it can be said from here."""
    script = version_dir.parent.resolve() / "export.py"
    here = Path.cwd()
    return script.relative_to(here) if script.is_relative_to(here) else script
