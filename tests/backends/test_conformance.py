"""What every backend does alike, whatever runs its models: one network, in each one's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from backend_cases import CASES, DIMS, FAR, MAX_BATCH_SIZE, BackendCase
from model_files import batch_of, each, load_spec, whole
from penstock.backends.base import Batch, LoadedModel, RequestInfo
from penstock.backends.registry import load
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_config import ConfigDict, parse
from penstock.repository.config_file import read_config
from penstock.types import NUMPY_DTYPES, Array

# MLflow would like type hints, which its signature makes needless
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")

DATATYPES = [(case, datatype) for case in CASES for datatype in case.datatypes]
RNG = np.random.default_rng(11)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> BackendCase:
    found = request.param
    assert isinstance(found, BackendCase)
    return found


@contextmanager
def loaded(folder: Path, changes: ConfigDict | None = None) -> Iterator[LoadedModel]:
    """The model, as a worker loads it by its configuration file; closed at the end."""
    config = read_config(folder) or {}
    model = load(load_spec(folder, {**config, **(changes or {})}))
    try:
        yield model
    finally:
        model.close()


@pytest.fixture
def network(case: BackendCase, tmp_path: Path) -> Iterator[LoadedModel]:
    """SUM = A + B, SCALED = A * 2."""
    case.write(tmp_path / "network")
    with loaded(tmp_path / "network") as model:
        yield model


def inputs_of(rows: int, datatype: str = "FP32") -> dict[str, Array]:
    """Small whole numbers: exact in every datatype."""
    return {
        name: RNG.integers(0, 30, (rows, DIMS)).astype(NUMPY_DTYPES[datatype])
        for name in ("A", "B")
    }


def expected(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"SUM": inputs["A"] + inputs["B"], "SCALED": inputs["A"] + inputs["A"]}


def check(outputs: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    for name, array in expected(inputs).items():
        found = np.asarray(outputs[name])
        assert found.dtype == array.dtype
        assert found.tolist() == array.tolist(), name


def parts(answers: object, batch: Batch) -> list[Mapping[str, Array]]:
    """Each request's outputs, whether the backend answers as a whole or one by one."""
    if not isinstance(answers, Mapping):
        return list(each(answers))
    starts = np.cumsum([0, *(request.rows for request in batch.requests)]).tolist()
    return [
        {name: array[start : start + request.rows] for name, array in answers.items()}
        for start, request in zip(starts, batch.requests, strict=False)
    ]


def test_it_says_what_it_takes(network: LoadedModel) -> None:
    config = parse(network.config)
    assert config.max_batch_size == MAX_BATCH_SIZE
    tensors = [(t.name, t.datatype, t.dims) for t in (*config.input, *config.output)]
    assert sorted(tensors) == [(n, "FP32", (DIMS,)) for n in ("A", "B", "SCALED", "SUM")]


@pytest.mark.parametrize("rows", [(1,), (MAX_BATCH_SIZE,), (1, 2, 4, 1), (1,) * MAX_BATCH_SIZE])
def test_requests_share_a_batch(rows: tuple[int, ...], network: LoadedModel) -> None:
    requests = [inputs_of(count) for count in rows]
    batch = batch_of(*requests)
    answers = parts(network.execute(batch), batch)
    assert len(answers) == len(requests)
    for outputs, inputs in zip(answers, requests, strict=True):
        check(outputs, inputs)


def test_batches_of_one_model_differ_in_size(network: LoadedModel) -> None:
    """What an earlier batch has left behind shows in no later one."""
    for rows in (3, 8, 1, 2, 8, 1):
        inputs = inputs_of(rows)
        batch = batch_of(inputs)
        (outputs,) = parts(network.execute(batch), batch)
        check(outputs, inputs)


def test_a_row_does_not_depend_on_its_mates(network: LoadedModel) -> None:
    inputs = {name: RNG.random((MAX_BATCH_SIZE, DIMS), np.float32) for name in ("A", "B")}
    together = batch_of(inputs)
    (whole_batch,) = parts(network.execute(together), together)
    kept = {name: np.array(array) for name, array in whole_batch.items()}
    for row in range(MAX_BATCH_SIZE):
        alone = batch_of({name: array[row : row + 1].copy() for name, array in inputs.items()})
        (outputs,) = parts(network.execute(alone), alone)
        for name, array in outputs.items():
            assert np.asarray(array).tobytes() == kept[name][row].tobytes()


def test_only_what_is_asked_for(case: BackendCase, network: LoadedModel) -> None:
    inputs = inputs_of(2)
    batch = batch_of(inputs, inputs, outputs=[["SCALED"], ["SCALED"]])
    for outputs in parts(network.execute(batch), batch):
        assert np.asarray(outputs["SCALED"]).tolist() == expected(inputs)["SCALED"].tolist()
        assert case.computes_all or "SUM" not in outputs


@pytest.mark.parametrize(("offset", "step"), [(0, 1), (4, 1), (64, 2), (1, 1)])
def test_views_of_a_slab(offset: int, step: int, network: LoadedModel) -> None:
    """Contiguous, on any border that a request's rows can begin at, with holes, and even on no border at all."""
    inputs = inputs_of(3)
    views: dict[str, Array] = {}
    for name, array in inputs.items():
        slab = np.zeros(offset + array.nbytes * step, np.uint8)
        view = np.ndarray((3 * step, DIMS), np.float32, slab.data, offset)[::step]
        view[:] = array
        views[name] = view
    batch = Batch(views, (RequestInfo(3),))
    (outputs,) = parts(network.execute(batch), batch)
    check(outputs, inputs)
    assert all(views[name].tolist() == inputs[name].tolist() for name in inputs)


@pytest.mark.parametrize(("case", "datatype"), DATATYPES, ids=lambda v: getattr(v, "name", v))
def test_datatypes(case: BackendCase, datatype: str, tmp_path: Path) -> None:
    case.write(tmp_path / "network", datatype)
    inputs = inputs_of(3, datatype)
    with loaded(tmp_path / "network") as model:
        assert {t.datatype for t in parse(model.config).input} == {datatype}
        batch = batch_of(inputs)
        (outputs,) = parts(model.execute(batch), batch)
        check(outputs, inputs)


def test_a_request_that_fails_does_so_alone(case: BackendCase, tmp_path: Path) -> None:
    if case.write_picky is None:
        pytest.skip("no request's data makes this backend fail")
    case.write_picky(tmp_path / "picky")
    rows = (2, FAR, 0, 3)
    with loaded(tmp_path / "picky") as model:
        answers = each(
            model.execute(batch_of(*({"X": np.array([[row]], np.int64)} for row in rows)))
        )
        for row, answer in zip(rows, answers, strict=True):
            if row == FAR:
                assert isinstance(answer, ModelFailed)
                assert str(answer) and "\n" not in str(answer)
            else:
                assert np.asarray(answer["Y"]).tolist() == [[row] * DIMS]
        good = batch_of({"X": np.array([[1]], np.int64)})
        (outputs,) = parts(model.execute(good), good)
        assert np.asarray(outputs["Y"]).tolist() == [[1.0] * DIMS]


def test_close_gives_back(case: BackendCase, tmp_path: Path) -> None:
    """No file stays open or mapped: the folder may be swapped, or be memory that is to be freed."""
    case.write(tmp_path / "network")

    def held() -> set[str]:
        open_files = {os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors()}
        maps = Path("/proc/self/maps").read_text().split()
        return {path for path in (*open_files, *maps) if path.startswith(str(tmp_path))}

    for _ in range(2):
        with loaded(tmp_path / "network") as model:
            whole_or_each = model.execute(batch_of(inputs_of(1)))
            del whole_or_each, model
        assert not held()


def descriptors() -> list[str]:
    """Of this process, but for that which lists them."""
    return [fd for fd in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{fd}").exists()]


def load_error(folder: Path, changes: ConfigDict | None = None) -> str:
    with pytest.raises(LoadFailed) as caught, loaded(folder, changes):
        pass
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_file(case: BackendCase, tmp_path: Path) -> None:
    folder = tmp_path / "network"
    case.write(folder)
    (folder / "1" / case.file).unlink()
    assert case.file in load_error(folder, {"backend": case.backend})


def test_damaged_file(case: BackendCase, tmp_path: Path) -> None:
    folder = tmp_path / "network"
    case.write(folder)
    (folder / "1" / case.file).write_bytes(case.damaged)
    assert case.file in load_error(folder)


def test_dims_that_the_model_has_not(case: BackendCase, tmp_path: Path) -> None:
    if not case.declares_dims:
        pytest.skip("the configuration alone says them")
    folder = tmp_path / "network"
    case.write(folder)
    wrong = {"name": "SUM", "data_type": "TYPE_FP32", "dims": [DIMS + 1]}
    text = load_error(folder, {"output": [wrong]})
    assert all(word in text for word in ("SUM", f"[{DIMS}]", f"[{DIMS + 1}]")), text


def test_an_answer_is_whole_or_one_a_request(network: LoadedModel) -> None:
    """Arrays have all rows of the batch; who answers one by one does so for each request."""
    batch = batch_of(inputs_of(1), inputs_of(1))
    answers = network.execute(batch)
    if isinstance(answers, Mapping):
        assert {len(array) for array in whole(answers).values()} == {2}
    else:
        assert len(each(answers)) == 2
