"""Controls, states and rows of empty slots, as models get them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_files import load_spec, whole, write_onnx, write_python
from penstock.backends import registry
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.errors import LoadFailed, ModelFailed
from penstock.types import Array, Step

X = {"name": "X", "data_type": "TYPE_FP32", "dims": [1]}
STATE = {"input_name": "BEFORE", "output_name": "AFTER", "data_type": "TYPE_FP32", "dims": [1]}
OLDEST = {"oldest": {"max_candidate_sequences": 8}}


def pair(kind: str, key: str, values: list[Any]) -> dict[str, Any]:
    """A control input, called as its kind."""
    return {"name": kind, "control": [{"kind": f"CONTROL_SEQUENCE_{kind}", key: values}]}


CONTROLS = [
    pair("START", "int32_false_true", [-1, 1]),
    pair("END", "fp32_false_true", [0.5, 1.5]),
    pair("READY", "bool_false_true", [False, True]),
]


def corrid(data_type: str) -> dict[str, Any]:
    """The id's control input."""
    control = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": data_type}
    return {"name": "CORRID", "control": [control]}


def accumulator(model_dir: Path, **batching: Any) -> LoadedModel:
    """SUM is X and the state."""
    write_onnx(
        model_dir,
        [("Add", ["X", "BEFORE"], ["AFTER"]), ("Identity", ["AFTER"], ["SUM"])],
        {name: ("FP32", ["batch", 1]) for name in ("X", "BEFORE")},
        {name: ("FP32", ["batch", 1]) for name in ("SUM", "AFTER")},
    )
    config = {
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [X],
        "output": [{**X, "name": "SUM"}],
        "sequence_batching": {"state": [STATE], **batching},
    }
    return registry.load(load_spec(model_dir, config))


def run(
    model: LoadedModel, rows: Mapping[int, float], *, start: bool = False, end: bool = False
) -> Any:
    """One request of each slot."""
    steps = [Step(slot, start, end, slot + 100) for slot in rows]
    inputs = {"X": np.array([[value] for value in rows.values()], np.float32)}
    return model.execute(Batch(inputs, [RequestInfo(1)] * len(steps), steps=steps))


def sums(answer: Any) -> list[float]:
    """The values of SUM."""
    assert set(whole(answer)) == {"SUM"}
    values: list[float] = whole(answer)["SUM"].ravel().tolist()
    return values


@pytest.mark.parametrize("strategy", [{}, {"direct": {}}, OLDEST])
def test_a_state_goes_from_request_to_request(model_dir: Path, strategy: Any) -> None:
    model = accumulator(model_dir, **strategy)
    assert sums(run(model, {0: 1, 1: 10}, start=True)) == [1, 10]
    assert sums(run(model, {0: 2, 1: 20})) == [3, 30]
    assert sums(run(model, {1: 30})) == [60]
    assert sums(run(model, {0: 3}, end=True)) == [6]
    assert sums(run(model, {0: 5, 4: 7}, start=True)) == [5, 7]
    assert sums(run(model, {1: 1, 4: 1})) == [61, 8]


def test_clients_do_not_see_what_the_server_adds(model_dir: Path) -> None:
    config = accumulator(model_dir, control_input=[]).config
    assert [tensor["name"] for tensor in config["input"]] == ["X"]
    assert [tensor["name"] for tensor in config["output"]] == ["SUM"]
    assert config["sequence_batching"]["max_sequence_idle_microseconds"] == 1_000_000


def test_a_failed_request_leaves_the_state_as_it_was(model_dir: Path) -> None:
    model = accumulator(model_dir, **OLDEST)
    run(model, {0: 1}, start=True)
    steps = [Step(0, False, False, 1)]
    broken: Array = np.zeros((1, 7), np.float32)
    with pytest.raises(ModelFailed):
        model.execute(Batch({"X": broken}, [RequestInfo(1)], steps=steps))
    assert sums(run(model, {0: 1})) == [2]


def test_states_of_different_shapes_run_one_after_the_other(model_dir: Path) -> None:
    """The state is all that came so far."""
    write_onnx(
        model_dir,
        [("Concat", ["BEFORE", "X"], ["AFTER"]), ("Identity", ["AFTER"], ["ALL"])],
        {"X": ("FP32", ["batch", 1]), "BEFORE": ("FP32", ["batch", "n"])},
        {"AFTER": ("FP32", ["batch", "m"]), "ALL": ("FP32", ["batch", "m"])},
    )
    path = model_dir / "1" / "model.onnx"
    _set_axis(path)
    state = {**STATE, "dims": [-1]}
    config = {"backend": "onnxruntime", "sequence_batching": {"state": [state], **OLDEST}}
    model = registry.load(load_spec(model_dir, config))
    run(model, {0: 1}, start=True)
    run(model, {0: 2})
    run(model, {1: 5}, start=True)
    answers = run(model, {0: 3, 1: 6})
    assert [each["ALL"].tolist() for each in answers] == [[[0, 1, 2, 3]], [[0, 5, 6]]]


def _set_axis(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axis", 1))
    onnx.save(model, path)


def test_an_initial_state_is_read_from_its_file(model_dir: Path) -> None:
    (model_dir / "initial_state").mkdir()
    (model_dir / "initial_state" / "ten").write_bytes(np.float32(10).tobytes())
    initial = {"name": "ten", "data_type": "TYPE_FP32", "dims": [1], "data_file": "ten"}
    model = accumulator(model_dir, state=[{**STATE, "initial_state": [initial]}])
    assert sums(run(model, {0: 1}, start=True)) == [11]
    assert sums(run(model, {0: 1}, start=True)) == [11]


@pytest.mark.parametrize("content", [None, b"\0\0\0"])
def test_an_initial_state_that_can_not_be_read_is_told(
    model_dir: Path, content: bytes | None
) -> None:
    if content is not None:
        (model_dir / "initial_state").mkdir()
        (model_dir / "initial_state" / "ten").write_bytes(content)
    initial = {"name": "ten", "data_type": "TYPE_FP32", "dims": [1], "data_file": "ten"}
    with pytest.raises(LoadFailed, match="the initial state of 'BEFORE' can't be read from"):
        accumulator(model_dir, state=[{**STATE, "initial_state": [initial]}])


def test_a_state_that_contradicts_the_model_is_told_at_load(model_dir: Path) -> None:
    with pytest.raises(LoadFailed, match="'BEFORE': the model has TYPE_FP32"):
        accumulator(model_dir, state=[{**STATE, "data_type": "TYPE_INT64"}])


PYTHON = """
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            self.seen = []
            responses = []
            for request in requests:
                given = {t.name(): t.as_numpy().ravel().tolist() for t in request.inputs()}
                self.seen.append(given)
                after = np.array([[given.get("BEFORE", [0.0])[0] + given["X"][0]]], np.float32)
                tensors = [pb_utils.Tensor("Y", after), pb_utils.Tensor("AFTER", after)]
                if given["X"][0] == 13:
                    responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("13")))
                elif given["X"][0] == 14:
                    responses.append(pb_utils.InferenceResponse(tensors[:1]))
                elif given["X"][0] == 15:
                    odd = pb_utils.Tensor("AFTER", after.astype(np.float64))
                    responses.append(pb_utils.InferenceResponse([tensors[0], odd]))
                else:
                    responses.append(pb_utils.InferenceResponse(tensors))
            return responses
"""


def python_model(model_dir: Path, **batching: Any) -> Any:
    """A model that keeps what it saw, in `seen`."""
    write_python(model_dir, PYTHON)
    config = {
        "backend": "python",
        "max_batch_size": 4,
        "input": [X],
        "output": [{**X, "name": "Y"}],
        "sequence_batching": batching,
    }
    return registry.load(load_spec(model_dir, config))


def seen(model: Any) -> Any:
    """What each row of the last batch was."""
    return model._model._instance.seen


@pytest.mark.parametrize(
    ("id_type", "ids"),
    [
        ("TYPE_STRING", [b"100", b"", b"102"]),
        *((f"TYPE_{kind}", [100, 0, 102]) for kind in ("UINT64", "INT64", "UINT32", "INT32")),
    ],
)
def test_direct_slots_without_a_request_are_rows_that_are_not_ready(
    model_dir: Path, id_type: str, ids: list[Any]
) -> None:
    model = python_model(model_dir, control_input=[*CONTROLS, corrid(id_type)])
    answers = run(model, {0: 5, 2: 7}, start=True)
    assert [each["Y"].tolist() for each in answers] == [[[5]], [[7]]]
    assert seen(model) == [
        {"X": [5], "START": [1], "END": [0.5], "READY": [True], "CORRID": [ids[0]]},
        {"X": [0], "START": [-1], "END": [0.5], "READY": [False], "CORRID": [ids[1]]},
        {"X": [7], "START": [1], "END": [0.5], "READY": [True], "CORRID": [ids[2]]},
    ]


def test_oldest_has_no_rows_without_a_request(model_dir: Path) -> None:
    model = python_model(model_dir, control_input=CONTROLS, **OLDEST)
    run(model, {6: 5, 2: 7}, end=True)
    assert [(each["X"], each["END"], each["READY"]) for each in seen(model)] == [
        ([5], [1.5], [True]),
        ([7], [1.5], [True]),
    ]


def test_a_python_model_can_have_implicit_state(model_dir: Path) -> None:
    model = python_model(model_dir, state=[STATE], **OLDEST)
    run(model, {0: 1, 1: 2}, start=True)
    answers = run(model, {0: 13, 1: 5})
    assert str(answers[0]) == "13"
    assert answers[1]["Y"].tolist() == [[7]]
    assert "AFTER" not in answers[1]
    assert run(model, {0: 1})[0]["Y"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (14, "the model gave no output 'AFTER', which is state"),
        (15, "output 'AFTER', which is state, is float64 of shape [1] a request, expected float32"),
    ],
)
def test_a_model_that_does_not_give_its_state_fails(
    model_dir: Path, value: float, expected: str
) -> None:
    model = python_model(model_dir, state=[STATE], **OLDEST)
    run(model, {0: 1}, start=True)
    (answer,) = run(model, {0: value})
    assert isinstance(answer, ModelFailed)
    assert str(answer).startswith(expected)
    assert run(model, {0: 1})[0]["Y"].tolist() == [[2]]


def test_a_model_is_told_of_a_start_that_it_takes_over_from_one_before(model_dir: Path) -> None:
    model = python_model(model_dir, control_input=CONTROLS)
    parameters = {"sequence_id": 1, "sequence_start": False}
    infos = [RequestInfo(1, parameters=parameters)]
    inputs = {"X": np.ones((1, 1), np.float32)}
    model.execute(Batch(inputs, infos, steps=[Step(0, True, False, 1)]))
    assert seen(model)[0]["START"] == [1]


def test_a_model_without_batches_gets_controls_of_one_element(model_dir: Path) -> None:
    write_python(model_dir, PYTHON.replace("[[given", "[given").replace("[0]]]", "[0]]"))
    config = {
        "backend": "python",
        "input": [X],
        "output": [{**X, "name": "Y"}],
        "sequence_batching": {"control_input": CONTROLS, "state": [STATE]},
    }
    model: Any = registry.load(load_spec(model_dir, config))
    for expected in (1, 2):
        inputs = {"X": np.ones(1, np.float32)}
        steps = [Step(0, expected == 1, False, 1)]
        (answer,) = model.execute(Batch(inputs, [RequestInfo(1)], steps=steps))
        assert answer["Y"].tolist() == [expected]


def test_a_decorated_stateful_model_is_not_run_twice(model_dir: Path) -> None:
    write_python(
        model_dir,
        """
        import penstock
        from penstock import Spec

        @penstock.model(inputs={"X": Spec("FP32", 1), "START": Spec("INT32", 1)},
                        outputs={"Y": Spec("FP32", 1)}, max_batch_size=4)
        class Counts:
            calls = 0
            def __call__(self, X, START):
                self.calls += 1
                if self.calls == 1:
                    raise ValueError("no")
                return {"Y": X * 0 + self.calls}
        """,
    )
    config = {"backend": "python", "sequence_batching": {"control_input": CONTROLS[:1], **OLDEST}}
    model = registry.load(load_spec(model_dir, config))
    assert [tensor["name"] for tensor in model.config["input"]] == ["X"]
    with pytest.raises(ModelFailed, match="ValueError: no"):
        run(model, {0: 1, 1: 1}, start=True)
    assert whole(run(model, {0: 1, 1: 1}))["Y"].tolist() == [[2], [2]]
