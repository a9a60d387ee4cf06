"""Batches of requests whose shapes differ answer each request as if it had run alone, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_files import write_python
from pending import to_buffer
from penstock.errors import InvalidRequest, ModelFailed
from penstock.types import Array, RegionRef
from penstock.workers.client_regions import Region, RegionInput
from penstock.workers.copy_in import JOIN_BELOW_BYTES
from penstock.workers.gather import InputsLost
from penstock.workers.warmup import warm_up
from region_files import region_file
from served_models import write_config
from uneven_bench import UnevenBench, check_equal
from uneven_models import (
    PADDED_MODELS,
    RAGGED_MODELS,
    mean_and_scores,
    sums_and_doubles,
    write_uneven,
)

ragged = pytest.mark.extension("ragged_batching")
padded = pytest.mark.extension("padded_buckets")

IDENTITY = """
    import penstock
    from penstock import Spec

    @penstock.model(
        inputs={"X": Spec("FP32", 3, -1, 2), "MASK": Spec("BOOL", -1, 1)},
        outputs={"Y": Spec("FP32", 3, -1, 2)},
        max_batch_size=16,
    )
    class Identity:
        def __call__(self, X, MASK):
            if (X == -9).any():
                raise ValueError("nine")
            return {"Y": X}
"""
IDENTITY_CONFIG = """
    backend: "python"
    parameters { key: "padding.X.buckets" value { string_value: "powers_of_two" } }
    parameters { key: "padding.X.value" value { string_value: "-0.5" } }
    parameters { key: "padding.X.mask" value { string_value: "MASK" } }
    parameters { key: "padding.Y.cut_to" value { string_value: "X" } }
"""

Bench = Callable[[str], UnevenBench]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """`bench(model)` has it loaded."""
    folder = tmp_path_factory.mktemp("uneven")
    write_uneven(folder)
    write_python(folder / "identity", IDENTITY)
    write_config(folder / "identity", IDENTITY_CONFIG)
    loaded: dict[str, UnevenBench] = {}

    def of(name: str) -> UnevenBench:
        if name not in loaded:
            loaded[name] = UnevenBench(folder / name)
        loaded[name].batches.clear()
        return loaded[name]

    yield of
    for each in loaded.values():
        each.close()


shapes = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=5)


@ragged
@pytest.mark.parametrize("name", RAGGED_MODELS)
@given(shapes=shapes)
def test_ragged_requests_are_answered_as_each_alone(
    bench: Bench, name: str, shapes: list[tuple[int, int]]
) -> None:
    served = bench(name)
    arrays = [
        (np.arange(rows * length, dtype=np.float32) + number).reshape(rows, length)
        for number, (rows, length) in enumerate(shapes)
    ]
    together = served.run(*[{"X": array} for array in arrays])
    assert [len(batch.requests) for batch in served.batches] == [len(arrays)]
    for array, answer in zip(arrays, together, strict=True):
        check_equal(answer, sums_and_doubles(array))
        (alone,) = served.run({"X": array})
        check_equal(alone, sums_and_doubles(array))


@padded
@pytest.mark.parametrize("name", PADDED_MODELS)
@given(data=st.data())
def test_padded_requests_are_answered_as_each_alone(
    bench: Bench, name: str, data: st.DataObject
) -> None:
    low, high = data.draw(st.sampled_from([(1, 4), (5, 8), (9, 16), (17, 17)]))
    shapes = data.draw(
        st.lists(st.tuples(st.integers(1, 3), st.integers(low, high)), min_size=1, max_size=5)
    )
    served = bench(name)
    arrays = [
        (np.arange(rows * length) * (number + 1) % 15).reshape(rows, length)
        for number, (rows, length) in enumerate(shapes)
    ]
    together = served.run(*[{"TOKENS": array} for array in arrays])
    (batch,) = served.batches
    assert batch.inputs["TOKENS"].shape == (sum(rows for rows, _ in shapes), high)
    for array, answer in zip(arrays, together, strict=True):
        check_equal(answer, mean_and_scores(array))
        (alone,) = served.run({"TOKENS": array})
        check_equal(alone, mean_and_scores(array))


def cubes(*shapes: tuple[int, int], start: int = 1) -> list[Array]:
    """Rows of [3, length, 2], all elements different, by (rows, length)."""
    arrays = []
    for rows, length in shapes:
        count = rows * 3 * length * 2
        arrays.append(np.arange(start, start + count, dtype=np.float32).reshape(rows, 3, length, 2))
        start += count
    return arrays


def check_padded(served: UnevenBench, arrays: list[Array], size: int) -> None:
    """The model's input has each request in its place, -0.5 behind it; the mask says so."""
    (batch,) = served.batches
    x, mask = batch.inputs["X"], batch.inputs["MASK"]
    row = 0
    for array in arrays:
        rows, length = array.shape[0], array.shape[2]
        own = slice(row, row + rows)
        assert (x[own, :, :length] == array).all()
        assert (x[own, :, length:] == -0.5).all()
        assert mask[own, :length].all()
        assert not mask[own, length:].any()
        row += rows
    assert x.shape == (row, 3, size, 2)
    assert mask.shape == (row, size, 1)
    assert mask.dtype == np.bool_


@padded
@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(5, 8)), min_size=1, max_size=4),
)
def test_an_inner_dimension_is_padded_and_cut_too(
    bench: Bench, shapes: list[tuple[int, int]]
) -> None:
    served = bench("identity")
    arrays = cubes(*shapes)
    answers = served.run(*[{"X": array} for array in arrays])
    check_padded(served, arrays, 8)
    for array, answer in zip(arrays, answers, strict=True):
        check_equal(answer, {"Y": array})


@padded
def test_large_requests_are_padded_as_small_ones_are(bench: Bench) -> None:
    served = bench("padded_onnx")
    rows = JOIN_BELOW_BYTES // 64 + 1
    small = [np.full((1, length), length) for length in (9, 12)]
    served.signature._max_batch_size = rows + 2
    large = np.arange(rows * 13).reshape(rows, 13) % 15
    assert large.nbytes > JOIN_BELOW_BYTES
    answers = served.run(*[{"TOKENS": array} for array in (small[0], large, small[1])])
    for array, answer in zip((small[0], large, small[1]), answers, strict=True):
        check_equal(answer, mean_and_scores(array))


@padded
def test_nothing_of_earlier_batches_is_left_in_the_padding(bench: Bench) -> None:
    served = bench("identity")
    served.run({"X": np.full((4, 3, 8, 2), 77, np.float32)})
    served.batches.clear()
    arrays = cubes((1, 5), (2, 6))
    served.run(*[{"X": array} for array in arrays])
    check_padded(served, arrays, 8)


@padded
def test_an_empty_request_is_all_padding(bench: Bench) -> None:
    served = bench("identity")
    arrays = cubes((1, 1), (2, 0))
    answers = served.run(*[{"X": array} for array in arrays])
    check_padded(served, arrays, 1)
    check_equal(answers[1], {"Y": arrays[1]})


@padded
def test_a_request_that_fails_alone_leaves_its_mates_padded_and_cut(bench: Bench) -> None:
    served = bench("identity")
    arrays = cubes((1, 5), (1, 7), (2, 6))
    arrays[1][0, 0, 0, 0] = -9
    first, second, third = served.run(*[{"X": array} for array in arrays])
    check_equal(first, {"Y": arrays[0]})
    assert isinstance(second, ModelFailed)
    check_equal(third, {"Y": arrays[2]})


@padded
@pytest.mark.parametrize("name", ["padded_onnx", "identity"])
def test_inputs_may_lie_in_clients_shared_memory(bench: Bench, name: str) -> None:
    served = bench(name)
    if name == "identity":
        arrays = cubes((2, 5), (1, 7))
        named, expected = [{"X": array} for array in arrays], [{"Y": array} for array in arrays]
    else:
        arrays = [np.arange(10).reshape(2, 5), np.arange(7).reshape(1, 7)]
        named = [{"TOKENS": array} for array in arrays]
        expected = [mean_and_scores(array) for array in arrays]
    content = to_buffer(arrays[0])
    with region_file(content) as (key, path):
        region = Region("r", key, 0, len(content))
        there = RegionInput(region, RegionRef("r", 0, len(content)))
        requests = [served.request(named[0], [there]), served.request(named[1])]
        for answer, wanted in zip(served.run_pending(requests), expected, strict=True):
            check_equal(answer, wanted)
        path.write_bytes(b"")
        with pytest.raises(InputsLost) as caught:
            served.run_pending(requests)
    (lost,) = caught.value.lost.items()
    assert lost[0] is requests[0]
    assert isinstance(lost[1], InvalidRequest)


@ragged
def test_ragged_texts_are_joined(tmp_path: Path) -> None:
    write_python(
        tmp_path / "m",
        """
        import triton_python_backend_utils as pb_utils

        class TritonPythonModel:
            def execute(self, requests):
                inputs = [each.inputs()[0].as_numpy() for each in requests]
                return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]) for x in inputs]
        """,
    )
    write_config(
        tmp_path / "m",
        """
        backend: "python"
        max_batch_size: 8
        input [ { name: "X" data_type: TYPE_STRING dims: [ -1 ] allow_ragged_batch: true } ]
        output [ { name: "Y" data_type: TYPE_STRING dims: [ -1 ] } ]
        """,
    )
    arrays = [
        np.array([[b"a", b"", b"ccc"]], np.object_),
        np.empty((2, 0), np.object_),
        np.array([[b"dd"], [b"e"]], np.object_),
    ]
    served = UnevenBench(tmp_path / "m")
    for array, answer in zip(arrays, served.run(*[{"X": a} for a in arrays]), strict=True):
        check_equal(answer, {"Y": array})
    served.close()


@ragged
def test_a_scattered_output_of_another_size_is_the_models_fault(tmp_path: Path) -> None:
    write_uneven(tmp_path)
    source = (tmp_path / "ragged_python/1/model.py").read_text()
    (tmp_path / "ragged_python/1/model.py").write_text(source.replace("2 * X}", "X[1:]}"))
    served = UnevenBench(tmp_path / "ragged_python")
    array = np.ones((2, 3), np.float32)
    with pytest.raises(ModelFailed, match="output 'DOUBLED' has 11 elements, expected 12: as 'X'"):
        served.run({"X": array}, {"X": array})
    served.close()


@padded
def test_an_output_that_is_shorter_than_what_was_sent_is_the_models_fault(tmp_path: Path) -> None:
    write_python(tmp_path / "m", IDENTITY.replace('{"Y": X}', '{"Y": X[:, :, :5]}'))
    write_config(tmp_path / "m", IDENTITY_CONFIG)
    served = UnevenBench(tmp_path / "m")
    good, bad = served.run(*[{"X": array} for array in cubes((1, 5), (1, 7))])
    assert isinstance(good, dict)
    assert isinstance(bad, ModelFailed)
    assert str(bad) == (
        "output 'Y' has shape [1, 3, 5, 2], expected at least 7 in dimension 2: as many as input 'X'"
        " had before it was padded"
    )
    served.close()


@pytest.mark.parametrize(
    ("name", "inputs"),
    [*((m, "X") for m in RAGGED_MODELS), *((m, "TOKENS") for m in PADDED_MODELS)],
)
def test_they_can_be_warmed_up(tmp_path: Path, name: str, inputs: str) -> None:
    """The mask is made: all ones."""
    sample = f'inputs {{ key: "{inputs}" value: {{ dims: [ 8 ] random_data: true }} }}'
    text = f'model_warmup [ {{ name: "w" batch_size: 3 {sample} }} ]'
    if inputs == "TOKENS":
        text = text.replace("random_data", "zero_data")
    write_uneven(tmp_path, text)
    served = UnevenBench(tmp_path / name)
    warm_up(served.model, tmp_path / name)
    served.close()
