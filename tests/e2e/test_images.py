"""Images of any size, sent as bytes over both protocols: the model gets what they are made to by hand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from image_models import RECIPES, write_image_models
from image_reference import reference
from penstock.types import Array
from served import FRONTS, Served
from served_models import write_config

pytestmark = [pytest.mark.e2e, pytest.mark.extension("images")]

DIGIT = Path(__file__).parents[2] / "model_repo" / "digits" / "samples" / "seven.png"
TWO_AT_ONCE = """
dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 60000000 }
"""


ENSEMBLE = """
platform: "ensemble"
input { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1, 1 ] }
output { name: "PLANES" data_type: TYPE_FP16 dims: [ 1, 9, 7 ] }
ensemble_scheduling { step {
  model_name: "image_python"
  input_map { key: "IMAGE" value: "IMAGE" }
  output_map { key: "PLANES" value: "PLANES" }
} }
"""


@pytest.fixture(scope="module", params=FRONTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("images")
    write_image_models(folder, TWO_AT_ONCE)
    (folder / "image_ensemble" / "1").mkdir(parents=True)
    write_config(folder / "image_ensemble", ENSEMBLE)
    served = Served(folder, request.param)
    try:
        yield served.wait_ready()
    finally:
        served.close()


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: Served) -> Iterator[Any]:
    if request.param == "http":
        with tritonclient.http.InferenceServerClient(server.http, concurrency=2) as http:
            yield http
    else:
        with tritonclient.grpc.InferenceServerClient(server.grpc) as rpc:
            yield rpc


def inputs(client: Any, image: Array, datatype: str = "UINT8") -> list[Any]:
    module: Any = tritonclient.http
    if isinstance(client, tritonclient.grpc.InferenceServerClient):
        module = tritonclient.grpc
    tensor = module.InferInput("IMAGE", image.shape, datatype)
    tensor.set_data_from_numpy(image)
    return [tensor]


def photo(*shape: int) -> Array:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["image_python", "image_ensemble"])
def test_a_grey_image_of_a_model_without_batches(client: Any, name: str) -> None:
    image = np.asarray(Image.open(DIGIT).convert("L"))[..., np.newaxis]
    found = client.infer(name, inputs(client, image)).as_numpy("PLANES")
    assert found.dtype == np.float16
    expected = reference(image, RECIPES["image_python"])
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=1e-3)


def test_two_sizes_run_in_one_batch(client: Any, server: Served) -> None:
    before = server.statistics("image_onnx")
    given = [photo(1, 33, 47, 3), photo(1, 240, 11, 3)]
    answers: list[Any]
    # http's handles wait by get_result, those of gRPC call back
    if isinstance(client, tritonclient.http.InferenceServerClient):
        handles = [client.async_infer("image_onnx", inputs(client, image)) for image in given]
        answers = [handle.get_result(timeout=30) for handle in handles]
    else:
        contexts = [Answer() for _ in given]
        for image, context in zip(given, contexts, strict=True):
            client.async_infer("image_onnx", inputs(client, image), context.told)
        answers = [context.future.result(30) for context in contexts]
    for image, answer in zip(given, answers, strict=True):
        expected = reference(image[0], RECIPES["image_onnx"])
        np.testing.assert_allclose(answer.as_numpy("PLANES"), expected[np.newaxis], atol=1e-5)
    after = server.statistics("image_onnx")
    assert after["execution_count"] == before["execution_count"] + 1
    assert after["inference_count"] == before["inference_count"] + 2


class Answer:
    """Of gRPC's client."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def told(self, result: Any, error: Exception | None) -> None:
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def test_metadata_asks_for_bytes_of_any_size(client: Any, server: Served) -> None:
    found = client.get_model_metadata("image_onnx")
    tensor = found["inputs"][0] if isinstance(found, dict) else found.inputs[0]
    fields = (
        tensor if isinstance(tensor, dict) else {"datatype": tensor.datatype, "shape": tensor.shape}
    )
    assert fields["datatype"] == "UINT8"
    assert list(map(int, fields["shape"])) == [-1, -1, -1, 3]
    (own,) = server.get("/v2/models/image_onnx/config").json["input"]
    assert (own["data_type"], own["dims"]) == ("TYPE_FP32", [3, 12, 10])


@pytest.mark.parametrize(
    ("image", "datatype", "expected"),
    [
        (
            np.zeros((1, 3, 12, 10), np.float32),
            "FP32",
            "inference input 'IMAGE' data-type is 'FP32', but model 'image_onnx' expects 'UINT8'",
        ),
        (
            np.zeros((1, 8, 8, 4), np.uint8),
            "UINT8",
            "unexpected shape for input 'IMAGE' for model 'image_onnx'. Expected [-1,-1,-1,3], got"
            " [1,8,8,4]",
        ),
        (
            np.zeros((1, 0, 8, 3), np.uint8),
            "UINT8",
            "input 'IMAGE' has shape [1,0,8,3]; expected images of at least one pixel",
        ),
        (
            # a line takes far more memory than its bytes
            np.zeros((1, 1, 65537, 3), np.uint8),
            "UINT8",
            "input 'IMAGE' has shape [1,1,65537,3]; expected images of at most 65536 pixels a side",
        ),
    ],
)
def test_what_is_no_image_is_refused(
    client: Any, image: Array, datatype: str, expected: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("image_onnx", inputs(client, image, datatype))
    assert expected in str(caught.value)
