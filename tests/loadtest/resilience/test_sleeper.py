"""The model under test, its requests and answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from penstock.backends.base import Batch, LoadSpec, RequestInfo
from penstock.backends.registry import load
from penstock.repository.config_file import read_config
from penstock_loadtest.resilience import sleeper


def test_a_request_carries_its_number() -> None:
    message = sleeper.MESSAGES.ModelInferRequest.FromString(sleeper.Requests().body(12_345_678))
    row = np.frombuffer(message.raw_input_contents[0], np.float32)
    assert list(message.inputs[0].shape) == [1, len(row)]
    assert message.model_name == sleeper.NAME
    assert row[0] == 12_345_678
    assert not row[1:].any()


def test_an_answer_is_read() -> None:
    contents = np.array([7, 4242], np.float32).tobytes()
    message = sleeper.MESSAGES.ModelInferResponse(raw_output_contents=[contents])
    assert sleeper.read_answer(message.SerializeToString()) == (7, 4242)


@pytest.mark.parametrize("contents", [[], [b"1234"], [bytes(8), bytes(8)]])
def test_another_answer_is_refused(contents: list[bytes]) -> None:
    message = sleeper.MESSAGES.ModelInferResponse(raw_output_contents=contents)
    with pytest.raises(ValueError, match="expected one output of 8 bytes"):
        sleeper.read_answer(message.SerializeToString())


def test_the_model_answers_with_number_and_process(tmp_path: Path) -> None:
    folder = sleeper.write_sleeper(tmp_path / "repository") / sleeper.NAME
    config = read_config(folder)
    assert config is not None
    assert config["max_batch_size"] == sleeper.BATCH_ROWS
    model = load(LoadSpec(sleeper.NAME, 1, folder, config, "0", "cpu", threads=1))
    rows = np.zeros((1, sleeper.INPUT_FLOATS), np.float32)
    rows[0, 0] = 99
    (answer,) = model.execute(Batch({"INPUT0": rows}, [RequestInfo(1)]))
    assert isinstance(answer, dict)
    number, process = answer["OUTPUT0"][0]
    assert number == 99
    assert process > 0


def test_a_touched_model_is_another_file(tmp_path: Path) -> None:
    repository = sleeper.write_sleeper(tmp_path / "repository")
    file = repository / sleeper.NAME / "1" / "model.py"
    before = file.read_text()
    sleeper.touch_sleeper(repository)
    assert file.read_text() != before
    assert file.read_text().startswith(before)
