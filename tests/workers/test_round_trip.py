"""What requests hold goes through a slab to the model, and what it gives comes back to each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pending import pending, to_buffer
from penstock.backends.base import Outputs, RequestInfo
from penstock.errors import ModelFailed, PenstockError, Unavailable
from penstock.model_config import ModelConfig, Tensor
from penstock.types import NUMPY_DTYPES, Array, OutputTensor
from penstock.workers.copy_in import JOIN_BELOW_BYTES
from penstock.workers.gather import gather, scatter
from penstock.workers.message import encode
from penstock.workers.message_parts import OutputSlot, RequestError
from penstock.workers.request import PendingRequest
from penstock.workers.scatter import write_outputs
from penstock.workers.slab import PAGE_BYTES, Slab
from penstock.workers.tensors_in_slab import read_inputs
from penstock.workers.worker_commands import Execute, decode_worker_command
from penstock.workers.worker_events import Done, decode_worker_event
from tensor_strategies import DATATYPES


def array_of(datatype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Some array of that datatype and shape, of any bit pattern."""
    bits = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if datatype == "BYTES":
        elements = np.empty(count, np.object_)
        elements[:] = [bits.bytes(int(bits.integers(0, 9))) for _ in range(count)]
        return elements.reshape(shape)
    dtype = NUMPY_DTYPES[datatype]
    raw = np.frombuffer(bits.bytes(count * dtype.itemsize), np.uint8)
    return (raw & 1 if datatype == "BOOL" else raw).view(dtype).reshape(shape)


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Array]]:
    """The inputs of some requests that can be joined: alike but for their rows."""
    inputs = draw(
        st.lists(
            st.tuples(
                st.sampled_from(DATATYPES),
                st.sampled_from([(), (0,), (1,), (2, 3), (0, 2), (700,)]),
            ),
            min_size=1,
            max_size=3,
        )
    )
    rows = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32))
    return [
        {
            f"T{i}": array_of(datatype, (n, *tail), seed + 10 * request + i)
            for i, (datatype, tail) in enumerate(inputs)
        }
        for request, n in enumerate(rows)
    ]


def config_of(inputs: Mapping[str, Array], max_batch_size: int = 16) -> ModelConfig:
    """An identity model of these tensors."""
    kept = 1 if max_batch_size else 0
    types = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
    tensors = tuple(
        Tensor(
            name=name,
            data_type="TYPE_" + types[array.dtype].replace("BYTES", "STRING"),
            dims=array.shape[kept:],
        )
        for name, array in inputs.items()
    )
    return ModelConfig(name="m", max_batch_size=max_batch_size, input=tensors, output=tensors)


def run(
    slab: Slab, requests: list[PendingRequest], config: ModelConfig, *, one_by_one: bool
) -> list[list[OutputTensor] | PenstockError]:
    """Gather, an identity model in the worker's place, scatter."""
    command = decode_worker_command(encode(gather(1, 0, slab, requests)))
    assert isinstance(command, Execute)
    inputs = {slot.name: read_inputs(slab, slot) for slot in command.inputs}
    infos = [RequestInfo(r.rows, r.id, r.parameters, r.outputs) for r in command.requests]
    answers: Any = inputs
    if one_by_one:
        ends = np.cumsum([info.rows for info in infos])
        answers = [
            {n: array[end - info.rows : end] for n, array in inputs.items()}
            for info, end in zip(infos, ends, strict=True)
        ]
    outputs, errors = write_outputs(slab, command.output_offset, config, infos, answers)
    done = Done(1, outputs, errors, slab.size_bytes, 0, 0, 0)
    decoded = decode_worker_event(encode(done))
    assert isinstance(decoded, Done)
    return scatter(slab, decoded, requests)


@settings(deadline=None, database=None, max_examples=150)
@given(batches(), st.booleans())
def test_every_request_gets_its_own_tensors_back(
    batch: list[dict[str, Array]], one_by_one: bool
) -> None:
    slab = Slab.create(PAGE_BYTES)
    requests = [pending(inputs, id=str(n)) for n, inputs in enumerate(batch)]
    answered = run(slab, requests, config_of(batch[0]), one_by_one=one_by_one)
    for inputs, outputs in zip(batch, answered, strict=True):
        assert isinstance(outputs, list)
        got = {o.name: (o.datatype, o.shape, bytes(o.data)) for o in outputs}
        assert got == {
            name: (config.datatype, array.shape, to_buffer(array))
            for (name, array), config in zip(inputs.items(), config_of(inputs).input, strict=True)
        }
    slab.close()


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_without_a_batch_dimension_a_request_runs_as_it_is(shape: tuple[int, ...]) -> None:
    slab = Slab.create(1)
    array = array_of("INT32", shape, 1)
    (answer,) = run(
        slab, [pending({"T": array}, rows=1)], config_of({"T": array}, 0), one_by_one=False
    )
    assert isinstance(answer, list)
    (output,) = answer
    assert (output.shape, bytes(output.data)) == (shape, array.tobytes())
    slab.close()


@pytest.mark.parametrize("nbytes", [JOIN_BELOW_BYTES - 4, JOIN_BELOW_BYTES, 100_000])
def test_large_tensors_of_several_requests(nbytes: int) -> None:
    slab = Slab.create(1)
    arrays = [array_of("FP32", (1, nbytes // 4), seed) for seed in range(3)]
    views = [[memoryview(array.tobytes())] for array in arrays]
    requests = [pending({"T": a}, buffers=v) for a, v in zip(arrays, views, strict=True)]
    answered = run(slab, requests, config_of({"T": arrays[0]}), one_by_one=False)
    for array, outputs in zip(arrays, answered, strict=True):
        assert isinstance(outputs, list)
        assert bytes(outputs[0].data) == array.tobytes()
    slab.close()


def test_inputs_begin_on_cache_lines_and_outputs_behind_them() -> None:
    slab = Slab.create(1)
    inputs = {"A": array_of("UINT8", (1, 3), 1), "B": array_of("UINT8", (1, 65), 2)}
    command = gather(7, 1, slab, [pending(inputs, id="r"), pending(inputs, id="s")])
    assert [(s.offset, s.nbytes) for s in command.inputs] == [(0, 6), (64, 130)]
    assert (command.batch, command.slab, command.output_offset) == (7, 1, 256)
    assert [(r.id, r.rows) for r in command.requests] == [("r", 1), ("s", 1)]
    slab.close()


def test_a_batch_there_is_no_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = Slab.create(1)

    def refuse(self: Slab, size_bytes: int) -> None:
        raise Unavailable("no memory")

    monkeypatch.setattr(Slab, "ensure", refuse)
    with pytest.raises(Unavailable, match="no memory"):
        gather(1, 0, slab, [pending({"A": array_of("UINT8", (1, 3), 1)})])
    slab.close()


# ── write_outputs: the model's answers are not trusted ──────────────────────────────────────────────────────────────

FP32 = np.dtype(np.float32)
CONFIG = ModelConfig(
    name="m",
    max_batch_size=8,
    output=(
        Tensor(name="Y", data_type="TYPE_FP32", dims=(-1,)),
        Tensor(name="S", data_type="TYPE_STRING", dims=(1,)),
        Tensor(name="FIXED", data_type="TYPE_INT64", dims=(2,)),
    ),
)
REQUESTS = [RequestInfo(1), RequestInfo(2), RequestInfo(1)]
Answers = Outputs | Sequence[Outputs | ModelFailed]


def write(
    answers: Answers, requests: list[RequestInfo] = REQUESTS, config: ModelConfig = CONFIG
) -> tuple[tuple[OutputSlot, ...], tuple[RequestError, ...], Slab]:
    slab = Slab.create(1)
    return *write_outputs(slab, 0, config, requests, answers), slab


def y(rows: int, columns: int = 2, dtype: Any = FP32) -> Array:
    return np.zeros((rows, columns), dtype)


WRONG: list[tuple[Outputs, str]] = [
    ({"Z": y(4)}, "model 'm' gave output 'Z', its outputs are: Y, S, FIXED"),
    ({"Y": y(4, dtype=np.float64)}, "output 'Y': the configuration says FP32, the model gave FP64"),
    ({"Y": y(4, dtype=">f4")}, "output 'Y': the configuration says FP32, the model gave >f4"),
    ({"Y": y(4, dtype=np.complex64)}, "'Y': the configuration says FP32, the model gave complex64"),
    ({"S": y(4, 1)}, "output 'S': the configuration says BYTES, the model gave FP32"),
    ({"Y": y(3)}, "output 'Y': expected a first dimension of 4, one row for each row of input, "),
    ({"Y": np.zeros((), FP32)}, r"expected a first dimension of 4, .* the model gave shape \[\]"),
    ({"Y": np.zeros((4,), FP32)}, r"the configuration says dims \[-1\], the model gave \[\]"),
    ({"FIXED": y(4, 3, np.int64)}, r"'FIXED': the configuration says dims \[2\], the model gave"),
]


@pytest.mark.parametrize(("outputs", "text"), WRONG)
def test_a_wrong_answer_for_the_whole_batch_fails_it(outputs: Outputs, text: str) -> None:
    with pytest.raises(ModelFailed, match=text):
        write(outputs)


@pytest.mark.parametrize(("outputs", "text"), WRONG)
def test_a_wrong_answer_of_one_request_is_its_own_error(outputs: Outputs, text: str) -> None:
    requests = [RequestInfo(1), RequestInfo(4), RequestInfo(2)]
    slots, (error,), slab = write([{"Y": y(1)}, outputs, {"Y": y(2)}], requests)
    assert error.index == 1
    with pytest.raises(ModelFailed, match=text):
        raise ModelFailed(error.reason)
    assert [(slot.first, slot.count, slot.shape) for slot in slots] == [
        (0, 1, (1, 2)),
        (2, 1, (2, 2)),
    ]
    slab.close()


def test_a_failed_request_leaves_its_mates_alone() -> None:
    one, two = np.full((1, 2), 1, FP32), np.full((1, 2), 2, FP32)
    slots, errors, slab = write([{"Y": one}, ModelFailed("no"), {"Y": two}])
    assert errors == (RequestError(1, "no"),)
    requests = [pending({"X": one}), pending({"X": y(2)}), pending({"X": two})]
    done = Done(1, slots, errors, slab.size_bytes, 0, 0, 0)
    first, failed, last = scatter(slab, done, requests)
    assert isinstance(failed, ModelFailed) and str(failed) == "no"
    assert isinstance(first, list) and bytes(first[0].data) == one.tobytes()
    assert isinstance(last, list) and bytes(last[0].data) == two.tobytes()
    slab.close()


def test_all_requests_failed() -> None:
    slots, errors, slab = write([ModelFailed(str(n)) for n in range(3)])
    assert (slots, [e.reason for e in errors]) == ((), ["0", "1", "2"])
    slab.close()


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_answers_as_requests(count: int) -> None:
    with pytest.raises(ModelFailed, match=f"model 'm' gave {count} answers to 3 requests"):
        write([{"Y": y(1)}] * count)


def test_neighbours_that_are_alike_share_a_slot() -> None:
    slots, errors, slab = write([{"Y": y(1)}, {"Y": y(2)}, {"Y": y(1)}])
    assert [(s.name, s.shape, s.first, s.count) for s in slots] == [("Y", (4, 2), 0, 3)]
    assert errors == ()
    slab.close()


def test_neighbours_of_other_shapes_or_names_do_not() -> None:
    slots, _, slab = write([{"Y": y(1, 5)}, {"Y": y(2, 6)}, {"FIXED": y(1, 2, np.int64)}])
    assert [(s.name, s.shape, s.first) for s in slots] == [
        ("Y", (1, 5), 0),
        ("Y", (2, 6), 1),
        ("FIXED", (1, 2), 2),
    ]
    assert all(slot.offset % 64 == 0 for slot in slots)
    slab.close()


@pytest.mark.parametrize("dtype", [object, "U3", "S3"])
def test_strings_of_any_kind_are_bytes_on_the_wire(dtype: Any) -> None:
    words = np.array([["a"], ["bcd"], [""], ["ef"]], dtype)
    slots, _, slab = write({"S": words})
    (slot,) = slots
    assert slot.datatype == "BYTES"
    assert [end - start for start, end in zip((0, *slot.ends), slot.ends, strict=False)] == [
        5,
        11,
        6,
    ]
    wire = b"\1\0\0\0a" + b"\3\0\0\0bcd\0\0\0\0" + b"\2\0\0\0ef"
    assert bytes(slab.view[slot.offset : slot.offset + slot.nbytes]) == wire
    slab.close()


def test_the_slab_grows_for_large_outputs_while_inputs_are_in_use() -> None:
    slab = Slab.create(PAGE_BYTES)
    slab.view[:4] = b"\0\0\x80?"
    one = np.ndarray((1, 1), FP32, buffer=slab.view)
    large = np.broadcast_to(one, (1, 1 << 20))
    slots, _ = write_outputs(slab, 64, CONFIG, [RequestInfo(1)], {"Y": large})
    assert slots[0].nbytes == 4 << 20
    assert slab.size_bytes >= 64 + slots[0].nbytes
    assert one[0, 0] == 1
    got = np.frombuffer(slab.view[64 : 64 + slots[0].nbytes], FP32)
    assert (got == 1).all()
    slab.close()


def test_a_view_that_is_not_contiguous_is_written_in_order() -> None:
    array = np.arange(16, dtype=FP32).reshape(4, 4)[:, ::-2]
    slots, _, slab = write({"Y": array})
    assert bytes(slab.view[: slots[0].nbytes]) == array.tobytes()
    slab.close()
