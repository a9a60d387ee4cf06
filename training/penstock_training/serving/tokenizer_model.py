"""Texts as tokens, for a classifier behind it in an ensemble. `text_repository.py` copies this file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

import penstock
from penstock import Context, Spec

MAX_TEXT_BYTES = 64 * 1024
"""More than the network looks at. A huge text must not keep its batch mates waiting."""


@penstock.model(
    inputs={"TEXT": Spec("BYTES", 1)},
    outputs={"INPUT_IDS": Spec("INT64", -1), "ATTENTION_MASK": Spec("INT64", -1)},
    max_batch_size=64,
)
class TextTokenizer:
    """TEXT [n, 1] of UTF-8 → tokens [n, length]. The tokenizer's own file says how long: longer texts are cut."""

    def __init__(self, context: Context) -> None:
        self._tokenizer = Tokenizer.from_file(str(context.directory / "tokenizer.json"))

    def __call__(self, TEXT: NDArray[np.object_]) -> dict[str, NDArray[np.int64]]:
        texts = [text[:MAX_TEXT_BYTES].decode("utf-8", "replace") for text in TEXT[:, 0]]
        encodings = self._tokenizer.encode_batch_fast(texts)
        return {
            "INPUT_IDS": np.array([encoding.ids for encoding in encodings], np.int64),
            "ATTENTION_MASK": np.array(
                [encoding.attention_mask for encoding in encodings], np.int64
            ),
        }
