"""Models that MLflow has saved, served on both fronts, asked by NVIDIA's clients, against the models themselves."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import mlflow_models as saved
from mlflow_models import X
from penstock.types import Array
from served import FRONTS, Served

pytestmark = [pytest.mark.e2e, pytest.mark.extension("mlflow")]

Ask = Callable[..., dict[str, Array]]
KINDS = {"f": "FP32", "d": "FP64", "i": "INT32", "l": "INT64", "?": "BOOL", "O": "BYTES"}
SERVED = ("shop", "script", "table", "boosted", "onnx")


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The models themselves, by name, and the folder that they are saved in."""
    folder = tmp_path_factory.mktemp("mlflow")
    network = saved.network()
    saved.write_pytorch(folder / "script", saved.traced(network), "pickle")
    saved.write_onnx_network(folder / "onnx")
    saved.write_shop(folder / "shop")
    saved.write_sklearn(folder / "pickled", serialization_format="pickle")
    saved.write_sklearn(folder / "unmet", pip_requirements=["no-such-package==1.0"])
    return {
        "folder": folder,
        "script": network,
        "table": saved.write_table(folder / "table"),
        "boosted": saved.write_xgboost(folder / "boosted"),
    }


@pytest.fixture(scope="module", params=FRONTS)
def flavours(request: pytest.FixtureRequest, natives: dict[str, Any]) -> Iterator[Served]:
    """A server of all of them."""
    explicit = "--model-control-mode=explicit"
    served = Served(natives["folder"], request.param, explicit).wait_ready()

    def load(name: str) -> bool:
        return served.request("POST", f"/v2/repository/models/{name}/load").status == 200

    try:
        # each worker imports large libraries
        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(load, SERVED)), served.log
        yield served
    finally:
        served.close()


@contextlib.contextmanager
def client(protocol: str, served: Served) -> Iterator[Ask]:
    """`ask(model, inputs, **parameters)` → all outputs."""
    library: Any = getattr(tritonclient, protocol)
    with library.InferenceServerClient(getattr(served, protocol)) as connection:

        def ask(model: str, inputs: dict[str, Array], **parameters: Any) -> dict[str, Array]:
            tensors = []
            for name, array in inputs.items():
                tensor = library.InferInput(name, array.shape, KINDS[array.dtype.char])
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            answer = connection.infer(model, tensors, parameters=parameters or None)
            outputs = served.get(f"/v2/models/{model}").json["outputs"]
            return {each["name"]: answer.as_numpy(each["name"]) for each in outputs}

        yield ask


@pytest.fixture(params=["http", "grpc"])
def ask(request: pytest.FixtureRequest, flavours: Served) -> Iterator[Ask]:
    """Of either client."""
    with client(request.param, flavours) as ask:
        yield ask


def orders(*items: str) -> dict[str, Array]:
    rows = len(items)
    return {
        "item": np.array([[item.encode()] for item in items], np.object_),
        "price": np.full((rows, 1), 10.0),
        "ordered": np.array([[b"2026-01-05"]] * rows, np.object_),
    }


def test_onnx_and_pytorch(ask: Ask, natives: dict[str, Any]) -> None:
    expected = saved.outputs_of(natives["script"], X[:5])
    np.testing.assert_allclose(ask("script", {"input-0": X[:5]})["output-0"], expected, rtol=1e-5)
    np.testing.assert_allclose(ask("onnx", {"x": X[:5]})["y"], -X[:5])


def test_xgboost(ask: Ask, natives: dict[str, Any]) -> None:
    native, found = natives["boosted"], ask("boosted", {"input-0": X[:7]})
    np.testing.assert_array_equal(found["output-0"], native.predict(X[:7]))
    np.testing.assert_allclose(found["probabilities"], native.predict_proba(X[:7]), rtol=1e-6)


def people(rows: int) -> dict[str, Array]:
    table = saved.people()[:rows]
    inputs = {name: table[name].to_numpy()[:, None] for name in table.columns}
    return {
        **inputs,
        "city": np.array([[city.encode()] for city in table["city"]], np.object_),
    }


def test_sklearn_on_a_table(ask: Ask, natives: dict[str, Any]) -> None:
    native, table, found = natives["table"], saved.people()[:9], ask("table", people(9))
    assert [c.decode() for c in found["class"].ravel()] == native.predict(table).tolist()
    np.testing.assert_allclose(found["probabilities"], native.predict_proba(table))


def test_a_python_function(ask: Ask) -> None:
    found = ask("shop", orders("pen", "tëa"), factor=2.5, currency="CHF")
    assert found["label"].ravel().tolist() == [b"pen CHF Monday", "tëa CHF Monday".encode()]
    assert found["total"].tolist() == [[25.0], [25.0]]
    assert ask("shop", {**orders("x"), "discount": np.array([[4.0]])})["total"].tolist() == [[6.0]]


def test_errors(ask: Ask) -> None:
    """The model's are told as they are, and what is wrong with a request is the client's."""
    with pytest.raises(InferenceServerException, match="ValueError: a broken item can't be priced"):
        ask("shop", orders("broken"))
    with pytest.raises(InferenceServerException, match="'factor' is 'two', expected a double") as e:
        ask("shop", orders("pen"), factor="two")
    assert e.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException, match="expected a time as ISO 8601"):
        ask("shop", {**orders("pen"), "ordered": np.array([[b"soon"]], np.object_)})
    with pytest.raises(InferenceServerException, match="Input X contains NaN"):
        ask("table", {**people(1), "income": np.array([[np.nan]])})
    with pytest.raises(InferenceServerException, match="batch-size must be <= 64"):
        ask("script", {"input-0": np.zeros((0, 3), np.float32)})


def test_requests_at_once(flavours: Served) -> None:
    """Each gets its own answer, whoever it shares a batch with, and whoever fails in it."""

    def one(ask: Ask, index: int) -> Any:
        item = "broken" if index % 8 == 3 else f"item{index}"
        try:
            found = ask("shop", orders(item), factor=float(index % 3))
        except InferenceServerException as error:
            return error.message()
        return found["label"][0, 0].decode(), float(found["total"][0, 0])

    with client("grpc", flavours) as ask, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(functools.partial(one, ask), range(24)))
    for index, answer in enumerate(answers):
        if index % 8 == 3:
            assert "a broken item" in answer
        else:
            assert answer == (f"item{index} EUR Monday", 10.0 * (index % 3))


def test_what_is_not_served(flavours: Served) -> None:
    def refused(name: str) -> str:
        return flavours.request("POST", f"/v2/repository/models/{name}/load").error

    assert "PickleRefused: '1/model.pkl' is or holds a pickle" in refused("pickled")
    assert "the model's name in artifacts.allow_pickle" in refused("pickled")
    assert "needs no-such-package==1.0: not installed here" in refused("unmet")
    assert flavours.index()["unmet", "1"]["state"] == "UNAVAILABLE"
    assert flavours.get("/v2/models/onnx/config").json["backend"] == "onnxruntime"
    assert flavours.get("/v2/models/table/config").json["backend"] == "mlflow"
