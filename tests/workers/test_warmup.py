"""The samples of `model_warmup` in this process: what a model is fed, how often, and what makes a load fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_files import load_spec, write_onnx_identity, write_python
from penstock.backends.base import Batch, Outputs
from penstock.backends.registry import load
from penstock.backends.reshape import with_reshapes
from penstock.errors import LoadFailed, ModelFailed
from penstock.tensors import serialize_bytes
from penstock.types import NUMPY_DTYPES, Array
from penstock.workers.channel import Channel
from penstock.workers.warmup import warm_up
from penstock.workers.worker import Worker
from penstock.workers.worker_commands import Load
from penstock.workers.worker_events import LoadRefused, Ready, WorkerEvent, decode_worker_event
from triton_models import answering, executing

pytestmark = pytest.mark.extension("warmup")

NO_FOLDER = Path("/nowhere")
X = {"name": "X", "data_type": "TYPE_FP32", "dims": [3]}
Y = {"name": "Y", "data_type": "TYPE_FP32", "dims": [3]}
ZEROS = {"zero_data": True}
RANDOM = {"random_data": True}


class Model:
    """Keeps copies of its inputs, and answers as `run` does: as a rule with X."""

    def __init__(self, *samples: dict[str, Any], **config: Any) -> None:
        base = {"name": "m", "max_batch_size": 8, "input": [X], "output": [Y]}
        self.config: dict[str, Any] = {**base, **config, "model_warmup": list(samples)}
        self.seen: list[dict[str, Array]] = []
        self.rows: list[list[int]] = []
        self.closed = 0
        self.run: Callable[[Batch], Any] = lambda batch: {"Y": batch.inputs["X"]}

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | ModelFailed]:
        self.seen.append({name: array.copy() for name, array in batch.inputs.items()})
        self.rows.append([request.rows for request in batch.requests])
        answer: Outputs | Sequence[Outputs | ModelFailed] = self.run(batch)
        return answer

    def close(self) -> None:
        self.closed += 1


def sample(given: dict[str, Any] = ZEROS, **fields: Any) -> dict[str, Any]:
    """A sample named `s`, of X."""
    return {"name": "s", "batch_size": 1, "inputs": {"X": given}, **fields}


def fed(given: dict[str, Any], folder: Path = NO_FOLDER, **tensor: Any) -> Array:
    """What a model with such an input gets of such a sample, in one row."""
    model = Model(sample(given), input=[{**X, **tensor}], output=[{**Y, **tensor}])
    warm_up(model, folder)
    (array,) = model.seen[0]["X"]
    return np.asarray(array)


def reason(model: Model, folder: Path = NO_FOLDER) -> str:
    """Why the warm-up fails."""
    with pytest.raises(LoadFailed) as caught:
        warm_up(model, folder)
    return str(caught.value)


# ── what is run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_samples_nothing_is_run() -> None:
    model = Model()
    warm_up(model, NO_FOLDER)
    assert model.seen == []


@pytest.mark.parametrize(("count", "runs"), [(0, 1), (1, 1), (3, 3)])
def test_each_sample_is_run_count_times(count: int, runs: int) -> None:
    model = Model(sample(count=count), sample(RANDOM))
    warm_up(model, NO_FOLDER)
    assert [not seen["X"].any() for seen in model.seen] == [True] * runs + [False]


def test_a_batch_is_as_many_requests_of_the_same_row() -> None:
    """As in Triton: a model that walks its requests sees what it will see in service."""
    model = Model(sample(RANDOM, batch_size=4))
    warm_up(model, NO_FOLDER)
    (array,) = [seen["X"] for seen in model.seen]
    assert model.rows == [[1, 1, 1, 1]]
    assert array.shape == (4, 3)
    assert (array == array[0]).all()


@pytest.mark.parametrize("batch_size", [0, 1])
def test_without_batches_the_dims_are_the_shape(batch_size: int) -> None:
    model = Model(sample(batch_size=batch_size), max_batch_size=0)
    warm_up(model, NO_FOLDER)
    assert (model.seen[0]["X"].shape, model.rows) == ((3,), [[1]])


def test_a_model_may_write_into_its_inputs() -> None:
    """Also those that were read from a file or are the same in all runs."""
    model = Model(sample(count=2), sample(count=2, batch_size=2))

    def scribble(batch: Batch) -> Outputs:
        batch.inputs["X"][...] += 1
        return {"Y": batch.inputs["X"]}

    model.run = scribble
    warm_up(model, NO_FOLDER)
    assert all(not seen["X"].any() for seen in model.seen)


def test_optional_inputs_may_be_left_out() -> None:
    model = Model(sample(), input=[X, {**X, "name": "MASK", "optional": True}])
    warm_up(model, NO_FOLDER)
    assert list(model.seen[0]) == ["X"]


def test_variable_dims_come_from_the_sample() -> None:
    assert fed({**ZEROS, "dims": [2, 5]}, dims=[-1, 5]).shape == (2, 5)


def test_what_a_sample_leaves_out_is_the_inputs() -> None:
    array = fed({**ZEROS, "data_type": "TYPE_INVALID", "dims": []}, data_type="TYPE_INT64")
    assert array.shape == (3,)
    assert array.dtype == np.int64
    assert fed(ZEROS, dims=[]).shape == ()


def test_a_reshape_is_done_on_the_way() -> None:
    """A sample's dims are those that clients send."""
    model = Model(
        sample({**RANDOM, "dims": [6]}, batch_size=2),
        input=[{**X, "dims": [-1], "reshape": {"shape": [-1, 1]}}],
        output=[{**Y, "dims": [-1], "reshape": {"shape": [-1, 1]}}],
    )
    warm_up(with_reshapes(model), NO_FOLDER)
    assert model.seen[0]["X"].shape == (2, 6, 1)


# ── what it is fed ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("datatype", NUMPY_DTYPES)
def test_zeros_and_random_values_of_every_datatype(datatype: str) -> None:
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    tensor: dict[str, Any] = {"data_type": name, "dims": [50, 2]}
    zeros, first, again = (fed(given, **tensor) for given in (ZEROS, RANDOM, RANDOM))
    assert {array.dtype for array in (zeros, first, again)} == {NUMPY_DTYPES[datatype]}
    assert {array.shape for array in (zeros, first, again)} == {(50, 2)}
    assert (first == again).all(), "each load sees the same"
    values = first.ravel().tolist()
    assert len(set(values)) > 1
    if datatype == "BYTES":
        assert set(zeros.ravel().tolist()) == {b""}
        assert all(len(value) == 8 and int(value) >= 10**7 for value in values)
    else:
        assert not zeros.any()
        assert 0 <= min(values) <= max(values) <= (127 if "INT" in datatype else 1)


def test_inputs_get_different_random_values_whatever_their_order() -> None:
    inputs = [X, {**X, "name": "X2"}]
    found = []
    for names in (("X", "X2"), ("X2", "X")):
        model = Model(sample(inputs=dict.fromkeys(names, RANDOM)), input=inputs)
        warm_up(model, NO_FOLDER)
        found.append(model.seen[0])
    assert (found[0]["X"] != found[0]["X2"]).any()
    assert all((found[0][name] == found[1][name]).all() for name in ("X", "X2"))


def write(folder: Path, data: bytes) -> dict[str, Any]:
    """A data file, and the input that asks for it."""
    (folder / "warmup").mkdir(exist_ok=True)
    (folder / "warmup" / "x.bin").write_bytes(data)
    return {"input_data_file": "x.bin"}


def test_numbers_of_a_file(tmp_path: Path) -> None:
    values = np.array([1.5, -2, 3], "<f4")
    assert (fed(write(tmp_path, values.tobytes()), tmp_path) == values).all()


def test_a_longer_file_is_used_from_its_beginning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Triton does it, but not without a word."""
    values = np.arange(5, dtype="<f4")
    assert (fed(write(tmp_path, values.tobytes()), tmp_path) == values[:3]).all()
    assert "x.bin has 20 bytes; the first 12 are used" in caplog.text


def test_strings_of_a_file(tmp_path: Path) -> None:
    given = write(tmp_path, serialize_bytes([b"a", b"", b"\xff\x00c"]))
    assert fed(given, tmp_path, data_type="TYPE_STRING").tolist() == [b"a", b"", b"\xff\x00c"]


# ── what makes a load fail ──────────────────────────────────────────────────────────────────────────────────────────


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    path = "warmup/x.bin"
    missing = Model(sample({"input_data_file": "x.bin"}))
    expected = f"warm-up sample 's' failed: {path} can't be read: No such file or directory"
    assert reason(missing, tmp_path) == expected
    short = Model(sample(write(tmp_path, b"12345678")))
    expected = f"{path} has 8 bytes; expected 12 for FP32 of dims [3]"
    assert reason(short, tmp_path).endswith(expected)
    strings = [{**X, "data_type": "TYPE_STRING"}]
    torn = Model(sample(write(tmp_path, b"\x09\0\0\0abc")), input=strings)
    assert f"{path}, 7 bytes, is no BYTES of dims [3]: incomplete string" in reason(torn, tmp_path)


def test_a_file_outside_of_the_models_folder_is_not_read(tmp_path: Path) -> None:
    """A link is no way out of it either."""
    (tmp_path / "m").mkdir()
    (tmp_path / "secret").write_bytes(bytes(12))
    given = write(tmp_path / "m", b"")
    (tmp_path / "m" / "warmup" / "x.bin").unlink()
    (tmp_path / "m" / "warmup" / "x.bin").symlink_to(tmp_path / "secret")
    assert "x.bin is outside the model's folder" in reason(Model(sample(given)), tmp_path / "m")
    up = reason(Model(sample({"input_data_file": "../../secret"})), tmp_path / "m")
    assert "expected the name of a file in the folder warmup" in up


@pytest.mark.parametrize(
    ("given", "config", "expected"),
    [
        (sample(inputs={}), {}, "inputs lack 'X'; expected all that aren't optional"),
        (
            sample(inputs={"X": ZEROS, "Z": ZEROS}),
            {},
            "inputs['Z'] is for no input of the model; expected one of X",
        ),
        (
            sample({**ZEROS, "data_type": "TYPE_INT8"}),
            {},
            "inputs['X'].data_type is TYPE_INT8; expected TYPE_FP32, which the input has",
        ),
        (
            sample({**ZEROS, "dims": [4]}),
            {},
            "inputs['X'].dims are [4]; expected [3], which the input has",
        ),
        (
            sample(),
            {"input": [{**X, "dims": [-1]}]},
            "inputs['X'].dims are not given; expected sizes for [-1]",
        ),
        (
            sample({**ZEROS, "dims": [-1]}),
            {"input": [{**X, "dims": [-1]}]},
            "inputs['X'].dims[0] is -1; expected 1 or more, the size to warm up with",
        ),
        (sample({}), {}, "inputs['X'] says nothing of its data; expected one of zero_data, "),
        (
            sample(batch_size=9),
            {},
            "batch_size is 9; expected 1 to max_batch_size, which is 8",
        ),
        (
            sample(batch_size=2),
            {"max_batch_size": 0},
            "batch_size is 2; expected 1, for the model takes no batches",
        ),
    ],
)
def test_samples_that_do_not_fit(
    given: dict[str, Any], config: dict[str, Any], expected: str
) -> None:
    found = reason(Model(given, **config))
    assert found.startswith(f"warm-up sample 's': model_warmup[0].{expected}")


def wrong_shape(batch: Batch) -> Any:
    return {"Y": batch.inputs["X"][:, :2]}


def wrong_rows(batch: Batch) -> Any:
    return {"Y": np.zeros((3, 3), np.float32)}


def wrong_type(batch: Batch) -> Any:
    return {"Y": batch.inputs["X"].astype(np.float64)}


def wrong_name(batch: Batch) -> Any:
    return {"Z": batch.inputs["X"]}


def one_fails(batch: Batch) -> Any:
    return [{"Y": np.zeros((1, 3), np.float32)}, ModelFailed("not this one")]


def one_is_wrong(batch: Batch) -> Any:
    return [{"Y": np.zeros((1, 3), np.float32)}, {"Y": np.zeros((1, 4), np.float32)}]


def too_few(batch: Batch) -> Any:
    return [{"Y": np.zeros((1, 3), np.float32)}]


def raises(batch: Batch) -> Any:
    raise ValueError("no\nweights")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (wrong_shape, "output 'Y': the configuration says dims [3], the model gave [2]"),
        (wrong_rows, "output 'Y': expected a first dimension of 2, one row for each row of input"),
        (wrong_type, "output 'Y': the configuration says FP32, the model gave FP64"),
        (wrong_name, "gave output 'Z', its outputs are: Y"),
        (one_fails, "warm-up sample 's' failed: not this one"),
        (one_is_wrong, "output 'Y': the configuration says dims [3], the model gave [4]"),
        (too_few, "gave 1 answers to 2 requests"),
        (raises, "warm-up sample 's' failed: ValueError: no weights"),
    ],
)
def test_models_that_fail_or_contradict_their_configuration(
    run: Callable[[Batch], Any], expected: str
) -> None:
    model = Model(sample(batch_size=2, count=5))
    model.run = run
    found = reason(model)
    assert found.startswith("warm-up sample 's' failed: ")
    assert expected in found
    assert len(model.seen) == 1, "the first failure ends it"


def test_a_sample_without_a_name_is_told_by_its_number() -> None:
    model = Model(sample(name=""), sample({}, name=""))
    assert reason(model).startswith("warm-up sample '1': model_warmup[1].inputs['X'] says")


# ── in the worker, and in all kinds of models ───────────────────────────────────────────────────────────────────────


def loaded_by_a_worker(model: Model) -> WorkerEvent:
    """What a worker answers to the command to load it."""
    gateway, theirs = Channel.pair()
    worker = Worker(theirs, lambda spec: model)
    try:
        gateway.send(Load("m", 1, "/models/m", b'{"name":"m"}', "m_0", "cpu", 1))
        worker.step()
        event: WorkerEvent = decode_worker_event(gateway.receive()[0])
        return event
    finally:
        worker.close()
        gateway.close()
        theirs.close()


def test_a_worker_is_ready_when_its_model_is_warm() -> None:
    model = Model(sample(count=2))
    assert isinstance(loaded_by_a_worker(model), Ready)
    assert len(model.seen) == 2


def test_a_worker_refuses_a_model_that_fails_its_warm_up() -> None:
    model = Model(sample())
    model.run = raises
    event = loaded_by_a_worker(model)
    assert event == LoadRefused("warm-up sample 's' failed: ValueError: no weights")
    assert model.closed == 1, "it is loaded, so it is told that it ends"


def test_a_long_reason_is_cut() -> None:
    model = Model(sample())

    def verbose(batch: Batch) -> Any:
        raise ValueError("x" * 100_000)

    model.run = verbose
    event = loaded_by_a_worker(model)
    assert isinstance(event, LoadRefused)
    assert len(event.reason) == 2000


DECORATED = """
import penstock
from penstock import Spec

@penstock.model(inputs={"X": Spec("FP32", -1)}, outputs={"Y": Spec("FP32", -1)}, max_batch_size=4)
class Same:
    def __call__(self, X):
        if X.shape[1] == 7:
            raise ValueError("seven")
        return {"Y": X}
"""
TRITON_CONFIG = {
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}


def warmed(folder: Path, size: int, config: dict[str, Any]) -> None:
    """Load version 1 in the folder, and warm it up with a batch of three rows of that size."""
    given = sample({**RANDOM, "dims": [size]}, batch_size=3)
    model = load(load_spec(folder, {**config, "model_warmup": [given]}))
    try:
        warm_up(model, folder)
    finally:
        model.close()


def test_decorated_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    write_python(tmp_path / "same", DECORATED)
    warmed(tmp_path / "same", 3, {})
    with pytest.raises(LoadFailed, match="warm-up sample 's' failed: ValueError: seven"):
        warmed(tmp_path / "same", 7, {})


def test_triton_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    write_python(tmp_path / "good", answering("r.inputs()[0].as_numpy() * 2"))
    warmed(tmp_path / "good", 3, TRITON_CONFIG)
    write_python(tmp_path / "bad", answering("r.inputs()[0].as_numpy().astype(np.int8)"))
    with pytest.raises(LoadFailed, match="the configuration says FP32, the model gave INT8"):
        warmed(tmp_path / "bad", 3, TRITON_CONFIG)


STATEFUL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            start, end, x = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in ("START", "END", "X")
            )
            if not (start.all() and end.all()):
                raise ValueError("no sequence of its own")
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return answers
"""


@pytest.mark.extension("sequence")
@pytest.mark.parametrize("strategy", ["direct", "oldest"])
def test_stateful_models(tmp_path: Path, strategy: str) -> None:
    """Each row is a whole sequence. Triton's samples give the controls, which are then the server's all the same."""
    write_python(tmp_path / "m", STATEFUL)
    controls = [
        {
            "name": name,
            "control": [{"kind": f"CONTROL_SEQUENCE_{name}", "int32_false_true": [0, 1]}],
        }
        for name in ("START", "END")
    ]
    options = {"max_candidate_sequences": 4} if strategy == "oldest" else {}
    batching = {"control_input": controls, strategy: options}
    control = {"data_type": "TYPE_INT32", "dims": [1], "zero_data": True}
    given = sample({**RANDOM, "dims": [3]}, batch_size=3, count=2)
    given["inputs"]["START"] = control
    config = {**TRITON_CONFIG, "sequence_batching": batching, "model_warmup": [given]}
    model = load(load_spec(tmp_path / "m", config))
    try:
        warm_up(model, tmp_path / "m")
        given["inputs"]["STRAT"] = given["inputs"].pop("START")
        model.config["model_warmup"] = [given]
        with pytest.raises(LoadFailed, match=r"'STRAT'.* is for no input of the model"):
            warm_up(model, tmp_path / "m")
    finally:
        model.close()


def test_onnx_models(tmp_path: Path) -> None:
    write_onnx_identity(tmp_path / "same", "FP32", ["batch", "n"])
    warmed(tmp_path / "same", 3, {})
    write_onnx_identity(tmp_path / "fixed", "FP32", ["batch", 3])
    with pytest.raises(LoadFailed, match=r"dims are \[4\]; expected \[3\]"):
        warmed(tmp_path / "fixed", 4, {})


def decoupled(body: str) -> str:
    """A model that does this with each request's sender and X, in a thread."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return executing(
        f"""
import threading

def answer(sender, x):
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    respond = lambda array: pb_utils.InferenceResponse([pb_utils.Tensor("Y", array)])
{lines}

for request in requests:
    x = request.inputs()[0].as_numpy()
    threading.Thread(target=answer, args=(request.get_response_sender(), x)).start()
"""
    )


def test_decoupled_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All responses of all requests are awaited, and looked at."""
    config = {**TRITON_CONFIG, "model_transaction_policy": {"decoupled": True}}
    many = "for _ in range(200):\n    sender.send(respond(x))\nsender.send(flags=final)"
    write_python(tmp_path / "good", decoupled(many))
    warmed(tmp_path / "good", 3, config)
    for name, body, text in (
        ("wrong", many.replace("respond(x)", "respond(x.astype(np.int8))", 1), "gave INT8"),
        ("dropped", "sender.send(respond(x))", "dropped a request without its final response"),
    ):
        write_python(tmp_path / name, decoupled(body))
        with pytest.raises(LoadFailed, match=text):
            warmed(tmp_path / name, 3, config)
