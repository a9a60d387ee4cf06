"""Decorated classes whose call is a generator: decoupled models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_batches import Gateway, instance_of
from model_files import load_spec, write_onnx_identity, write_python
from penstock.backends.base import LoadedModel
from penstock.backends.registry import load
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict, parse
from penstock.types import Array

CLASS = """
import numpy as np
import penstock
from penstock import Spec

@penstock.model(inputs={"N": Spec("INT32", 1)}, outputs={"I": Spec("FP32", 1)}, max_batch_size=%d)
class Counting:
    closed = 0
"""
COUNT = """
    def __call__(self, N):
        try:
            for i in range(int(N.max())):
                yield {"I": np.full(N.shape, i, np.float32)}
        finally:
            self.closed += 1
"""
DECOUPLED: ConfigDict = {"model_transaction_policy": {"decoupled": True}}


def loaded(
    model_dir: Path, body: str = COUNT, config: ConfigDict | None = None, max_batch_size: int = 4
) -> LoadedModel:
    write_python(model_dir, CLASS % max_batch_size + body)
    return load(load_spec(model_dir, config))


def n(*values: int) -> dict[str, Array]:
    return {"N": np.array(values, np.int32).reshape(-1, 1)}


@pytest.mark.parametrize("config", [None, DECOUPLED])
def test_a_generator_is_decoupled(model_dir: Path, config: ConfigDict | None) -> None:
    assert parse(loaded(model_dir, config=config).config).decoupled


def test_what_is_yielded_is_sent_to_each_request(model_dir: Path) -> None:
    gateway, model = Gateway(), loaded(model_dir)
    gateway.run(model, n(1), n(2, 1))
    told = [(0, 0), (1, 0, 0), (0, 1), (1, 1, 1), (0, "final"), (1, "final")]
    assert gateway.told(2) == told
    gateway.run(model, n(0))
    assert gateway.told() == [(0, "final")]


def test_without_batches(model_dir: Path) -> None:
    gateway = Gateway()
    gateway.run(loaded(model_dir, max_batch_size=0), {"N": np.array([2], np.int32)})
    assert gateway.told() == [(0, 0), (0, 1), (0, "final")]


def test_it_is_closed_when_nobody_wants_more(model_dir: Path) -> None:
    """One request of two is cancelled by what comes first, the other one by what comes then."""
    gateway, model = Gateway(), loaded(model_dir)
    sent = gateway.send

    def send(message: Any) -> None:
        sent(message)
        if message.outputs is not None:
            gateway.cancel(message.request)

    gateway.send = send  # type: ignore[method-assign]
    gateway.run(model, n(1000), n(1000))
    assert gateway.told(2) == [(0, 0), (1, 0), (0, "final"), (1, "final")]
    assert instance_of(model).closed == 1


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("raise ValueError('enough')", "ValueError: enough"),
        ("yield None", "the model returned NoneType, expected a dict with I"),
        ("yield {'I': N}", "output 'I' has dtype int32, expected float32 (FP32)"),
    ],
)
def test_what_it_does_wrong_ends_it(
    model_dir: Path, statement: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = COUNT.replace(
        "            for i",
        f"            yield {{'I': N / 2}}\n            {statement}\n            for i",
    )
    body = body.replace("N / 2", "(N / 2).astype(np.float32)")
    gateway, model = Gateway(), loaded(model_dir, body)
    gateway.run(model, n(4))
    assert gateway.told() == [(0, 2), (0, text, "final")]
    assert instance_of(model).closed == 1


def test_a_call_that_is_no_generator(model_dir: Path) -> None:
    body = '\n    def __call__(self, N):\n        return {"I": N}\n'
    assert not parse(loaded(model_dir, body).config).decoupled
    with pytest.raises(LoadFailed, match="decoupled is true, but __call__ is no generator"):
        loaded(model_dir, body, DECOUPLED)


def test_an_onnx_model_is_not_decoupled(model_dir: Path) -> None:
    write_onnx_identity(model_dir, "FP32", ["n", 2])
    with pytest.raises(LoadFailed, match="an ONNX model gives each request one response"):
        load(load_spec(model_dir, DECOUPLED))
