"""`penstock infer` against a small server that speaks the protocol, and its parts alone."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from PIL import Image
from typer.testing import CliRunner, Result

from penstock.commands.image_values import image_array
from penstock.commands.infer import infer
from penstock.commands.input_values import fit, read_values
from penstock.commands.v2_client import TensorMetadata
from penstock.errors import InvalidRequest, NotFound, PenstockError, Unavailable
from penstock.tensors import as_array, serialize_bytes
from penstock.types import Array

DIGIT_SCORES = np.array([[0.01, 0.02, 0.9, 0.07]], np.float32)

MODELS: Mapping[str, Mapping[str, Any]] = {
    "digits": {
        "inputs": [{"name": "IMAGE", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "SCORES", "datatype": "FP32", "shape": [-1, 4]}],
        "labels": ["zero", "one", "two", "three"],
    },
    "echo": {
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}],
    },
    "add_sub": {
        "inputs": [
            {"name": "INPUT0", "datatype": "FP32", "shape": [4]},
            {"name": "INPUT1", "datatype": "FP32", "shape": [4]},
        ],
        "outputs": [
            {"name": "OUTPUT0", "datatype": "FP32", "shape": [4]},
            {"name": "OUTPUT1", "datatype": "FP32", "shape": [4]},
        ],
    },
}

INDEX = [
    *({"name": name, "version": "1", "state": "READY", "reason": ""} for name in MODELS),
    {"name": "embedder", "version": "1", "state": "UNAVAILABLE", "reason": "run: make it"},
]


@dataclass
class Fake:
    """A server of MODELS. Keeps the inputs of the last inference."""

    url: str
    inputs: dict[str, Array] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)


def answer_to(fake: Fake, inputs: Mapping[str, Array], model: str) -> dict[str, Array]:
    """What the models compute."""
    if model == "digits":
        return {"SCORES": np.repeat(DIGIT_SCORES, len(inputs["IMAGE"]), axis=0)}
    if model == "add_sub":
        a, b = inputs["INPUT0"], inputs["INPUT1"]
        return {"OUTPUT0": a + b, "OUTPUT1": a - b}
    return dict(inputs)


def classes(scores: Array, labels: list[str], top: int) -> Array:
    """The classification extension."""
    order = np.argsort(-scores, axis=1)[:, :top]
    rows = [
        [f"{row[i]:f}:{i}:{labels[i]}".encode() for i in best]
        for row, best in zip(scores, order, strict=True)
    ]
    return np.array(rows, np.object_)


def make_handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    """The routes of the protocol that `penstock infer` uses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, _, rest = self.path.removeprefix("/v2/models/").partition("/")
            if name not in MODELS:
                self._json({"error": f"Request for unknown model: '{name}' is not found"}, 404)
            elif rest == "config":
                self._json(self._config(name))
            else:
                self._json({"name": name, "versions": ["1"], "platform": "x", **MODELS[name]})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v2/repository/index":
                self._json(INDEX)
            else:
                self._infer(self.path.split("/")[3], body)

        def _config(self, name: str) -> dict[str, Any]:
            outputs = [
                {
                    "name": tensor["name"],
                    "data_type": f"TYPE_{tensor['datatype']}",
                    "dims": tensor["shape"][1:],
                    "label_filename": "labels.txt" if "labels" in MODELS[name] else "",
                }
                for tensor in MODELS[name]["outputs"]
            ]
            return {"name": name, "max_batch_size": 8, "output": outputs}

        def _infer(self, name: str, body: bytes) -> None:
            json_bytes = int(self.headers["Inference-Header-Content-Length"])
            header, rest = json.loads(body[:json_bytes]), body[json_bytes:]
            inputs = {}
            for tensor in header["inputs"]:
                nbytes = tensor["parameters"]["binary_data_size"]
                inputs[tensor["name"]] = as_array(
                    tensor["datatype"], tensor["shape"], rest[:nbytes]
                )
                rest = rest[nbytes:]
            if rest:
                self._json({"error": f"{len(rest)} bytes too many"}, 400)
                return
            fake.inputs, fake.header = inputs, header
            if name == "add_sub" and inputs["INPUT0"][0] < 0:
                self._json({"error": "the model raised ValueError: negative"}, 500)
                return
            self._outputs(name, answer_to(fake, inputs, name))

        def _outputs(self, name: str, arrays: Mapping[str, Array]) -> None:
            described, blobs = [], []
            for asked in fake.header["outputs"]:
                array = arrays[asked["name"]]
                if top := asked["parameters"].get("classification", 0):
                    array = classes(array, MODELS[name]["labels"], top)
                is_text = array.dtype == np.object_
                blobs.append(serialize_bytes(array) if is_text else array.tobytes())
                described.append(
                    {
                        "name": asked["name"],
                        "datatype": "BYTES" if is_text else "FP32",
                        "shape": array.shape,
                        "parameters": {"binary_data_size": len(blobs[-1])},
                    }
                )
            header = json.dumps({"model_name": name, "model_version": "1", "outputs": described})
            self._send(200, header.encode() + b"".join(blobs), len(header))

        def _json(self, value: Any, status: int = 200) -> None:
            self._send(status, json.dumps(value).encode())

        def _send(self, status: int, body: bytes, json_bytes: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if json_bytes is not None:
                self.send_header("Inference-Header-Content-Length", str(json_bytes))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def server() -> Iterator[Fake]:
    """A running server."""
    fake = Fake("")
    with ThreadingHTTPServer(("127.0.0.1", 0), make_handler(fake)) as http:
        fake.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        http.shutdown()
        thread.join()


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """`penstock infer` with these arguments."""
    app = typer.Typer()
    app.command()(infer)
    return CliRunner().invoke(app, arguments, input=stdin)


def run_json(*arguments: str, stdin: bytes = b"") -> Any:
    """The same with `-o json`."""
    result = run(*arguments, "-o", "json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def png(size: tuple[int, int], value: int, mode: str = "L") -> bytes:
    """A picture of one colour."""
    content = BytesIO()
    Image.new(mode, size, value).save(content, "png")
    return content.getvalue()


class TestAgainstAServer:
    def test_a_picture_gets_classes(self, server: Fake, tmp_path: Path) -> None:
        pixels = np.zeros((8, 8), np.uint8)
        pixels[2, 5] = 255
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "a.png")
        answer = run_json("digits", "--input", str(tmp_path / "a.png"), "--url", server.url)
        best = answer["outputs"][0]["classes"][0]
        assert [(item["label"], item["index"]) for item in best] == [
            ("two", 2),
            ("three", 3),
            ("one", 1),
        ]
        assert best[0]["score"] == pytest.approx(0.9)
        np.testing.assert_array_equal(server.inputs["IMAGE"], pixels[None, None] / np.float32(255))

    def test_the_table_shows_label_and_score(self, server: Fake) -> None:
        result = run("digits", "--input", "-", "--url", server.url, stdin=png((8, 8), 0))
        assert result.exit_code == 0
        assert "digits 1" in result.stdout
        first = next(line for line in result.stdout.splitlines() if "two" in line)
        assert "0.9000" in first

    def test_top_0_gives_the_numbers(self, server: Fake) -> None:
        url = ["--url", server.url, "--top", "0"]
        answer = run_json("digits", "--input", "-", *url, stdin=png((8, 8), 0))
        assert answer["outputs"][0]["shape"] == [1, 4]
        np.testing.assert_allclose(answer["outputs"][0]["data"], DIGIT_SCORES)
        assert "classification" not in server.header["outputs"][0]["parameters"]

    def test_several_pictures_make_a_batch(self, server: Fake, tmp_path: Path) -> None:
        paths = [tmp_path / "black.png", tmp_path / "white.jpg"]
        for path, value in zip(paths, (0, 255), strict=True):
            Image.new("L", (20, 20), value).save(path)
        arguments = [word for path in paths for word in ("--input", str(path))]
        result = run("digits", *arguments, "--url", server.url)
        assert result.exit_code == 0
        assert server.inputs["IMAGE"].mean(axis=(1, 2, 3)).tolist() == [0, 1]
        assert result.stdout.count("two") == 2

    def test_named_inputs_and_json(self, server: Fake) -> None:
        arguments = ["--input", "INPUT0=[1,2,3,4]", "--input", "INPUT1=[4,3,2,1]"]
        answer = run_json("add_sub", *arguments, "--url", server.url)
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        assert outputs == {"OUTPUT0": [5, 5, 5, 5], "OUTPUT1": [-3, -1, 1, 3]}

    def test_the_table_shows_values(self, server: Fake) -> None:
        arguments = ["--input", "INPUT0=[1,2,3,4]", "--input", "INPUT1=[4,3,2,1]"]
        result = run("add_sub", *arguments, "--url", server.url)
        line = next(line for line in result.stdout.splitlines() if "OUTPUT1" in line)
        assert "[-3. -1.  1.  3.]" in line
        assert "[4]" in line

    @pytest.mark.parametrize(
        ("value", "stdin", "sent"),
        [
            ("water under pressure", b"", [["water under pressure"]]),
            ("a=b", b"", [["a=b"]]),
            ("Grüße", b"", [["Grüße"]]),
            ('["a", "b"]', b"", [["a"], ["b"]]),
            ("[1, 2]", b"", [["[1, 2]"]]),
            ("[unclosed", b"", [["[unclosed"]]),
            ("see notes.txt", b"", [["see notes.txt"]]),
            ("-", b"from a pipe\n", [["from a pipe"]]),
            ("", b"", [[""]]),
        ],
    )
    def test_texts(self, server: Fake, value: str, stdin: bytes, sent: list[list[str]]) -> None:
        answer = run_json("echo", "--input", value, "--url", server.url, stdin=stdin)
        assert answer["outputs"][0]["data"] == sent

    def test_brackets_in_a_text_are_no_markup(self, server: Fake) -> None:
        assert "[bold]" in run("echo", "--input", "[bold]", "--url", server.url).stdout


class TestErrors:
    def test_no_server(self) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
            url = f"http://127.0.0.1:{http.server_address[1]}"
        error = error_of("digits", "--input", "1", "--url", url)
        assert isinstance(error, Unavailable)
        assert str(error).startswith(f"no server answers at {url}: start one with `penstock serve")

    def test_unknown_model_lists_what_is_ready(self, server: Fake) -> None:
        error = error_of("digit", "--input", "1", "--url", server.url)
        assert isinstance(error, NotFound)
        assert str(error) == "unknown model 'digit'; ready are: add_sub, digits, echo"

    def test_a_model_that_failed_to_load_says_why(self, server: Fake) -> None:
        error = error_of("embedder", "--input", "1", "--url", server.url)
        assert str(error) == "model 'embedder' is not ready: run: make it"

    def test_the_servers_own_words(self, server: Fake) -> None:
        arguments = ["--input", "INPUT0=[-1,2,3,4]", "--input", "INPUT1=[4,3,2,1]"]
        error = error_of("add_sub", *arguments, "--url", server.url)
        assert "answered 500: the model raised ValueError: negative" in str(error)

    def test_wrong_shape(self, server: Fake) -> None:
        error = error_of("digits", "--input", "[[1,2],[3,4]]", "--url", server.url)
        assert str(error) == "input 'IMAGE': shape [2, 2] does not fit [-1, 1, 8, 8]"

    def test_another_kind_of_server(self) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
            thread = threading.Thread(target=http.serve_forever, args=(0.01,))
            thread.start()
            url = f"http://127.0.0.1:{http.server_address[1]}"
            try:
                error = error_of("digits", "--input", "1", "--url", url)
            finally:
                http.shutdown()
                thread.join()
        assert str(error) == f"{url} answered 501: it does not seem to speak the inference protocol"

    def test_a_server_that_is_silent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            error = error_of("digits", "--input", "1", "--url", url, "--timeout", "0.05")
        assert str(error) == f"{url} gave no answer within 0.05 s"

    def test_a_server_that_speaks_something_else(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=greet_and_close, args=(listener,))
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            error = error_of("digits", "--input", "1", "--url", url)
            thread.join()
        assert str(error).startswith(f"{url} does not speak HTTP: BadStatusLine")

    def test_not_a_url(self, server: Fake) -> None:
        error = error_of("digits", "--input", "1", "--url", "ftp://there")
        assert "'ftp://there' is not a URL" in str(error)

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--input", "[1,2,3,4]"], "say which input"),
            (["--input", "INPUT0=[1,2,3,4]"], "needs --input INPUT1=VALUE too"),
            (["--input", "INPUT7=[1,2,3,4]"], "say which input"),
            ([], "Missing option"),
        ],
    )
    def test_wrong_usage_exits_with_2(self, server: Fake, arguments: list[str], told: str) -> None:
        result = run("add_sub", *arguments, "--url", server.url)
        assert result.exit_code == 2
        assert told in " ".join(result.output.replace("│", " ").split())


def greet_and_close(listener: socket.socket) -> None:
    """Answer one connection as a mail server would."""
    connection = listener.accept()[0]
    with connection:
        connection.recv(65536)
        connection.sendall(b"220 mail ready\r\n")


def error_of(*arguments: str) -> BaseException:
    """What the command raised."""
    result = run(*arguments)
    assert isinstance(result.exception, PenstockError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def read(value: str, datatype: str, shape: tuple[int, ...], stdin: bytes = b"") -> Array:
    """One value for an input of that kind."""
    return read_values([value], TensorMetadata("X", datatype, shape), BytesIO(stdin))


class TestValues:
    @pytest.mark.parametrize(
        ("value", "datatype", "shape", "expected"),
        [
            ("5", "INT64", (-1, 1), [[5]]),
            ("5", "INT64", (), 5),
            ("[1, 2]", "FP32", (2,), [1, 2]),
            ("[1, 2]", "FP32", (-1, 2), [[1, 2]]),
            ("[1, 2]", "FP32", (-1, 1), [[1], [2]]),
            ("[1, 2]", "FP32", (-1, -1), [[1, 2]]),
            ("[1, 2]", "UINT8", (-1,), [1, 2]),
            ("[[1, 2], [3, 4]]", "FP32", (-1, 2), [[1, 2], [3, 4]]),
            ("[[1, 2]]", "FP32", (-1, 2), [[1, 2]]),
            ("true", "BOOL", (1,), [True]),
        ],
    )
    def test_json(self, value: str, datatype: str, shape: tuple[int, ...], expected: Any) -> None:
        array = read(value, datatype, shape)
        assert array.tolist() == expected
        assert array.shape == np.shape(expected)

    @pytest.mark.parametrize(
        ("value", "datatype", "told"),
        [
            ("seven", "FP32", "'seven' is neither JSON nor a file"),
            ("[1.5, 2]", "INT32", "float64 values for INT32"),
            ("[300, 2]", "UINT8", "out of the range of UINT8"),
            ("[1, 2]", "BOOL", "int64 values for BOOL"),
            ("[[1], [2, 3]]", "FP32", "differ in length"),
            ('{"a": 1}', "FP32", "is not a number"),
            ("[" * 100_000, "FP32", "neither JSON"),
            ("there/is/none.npy", "FP32", "can't read there/is/none.npy: No such file"),
            ("none.png", "BYTES", "can't read none.png: No such file"),
        ],
    )
    def test_bad_values(self, value: str, datatype: str, told: str) -> None:
        with pytest.raises(InvalidRequest, match=r"^input 'X': ") as caught:
            read(value, datatype, (2,))
        assert told in str(caught.value)

    def test_no_batch_no_second_value(self) -> None:
        with pytest.raises(InvalidRequest, match="given 2 times"):
            read_values(["[1]", "[2]"], TensorMetadata("X", "FP32", (1,)), BytesIO())

    def test_npy(self, tmp_path: Path) -> None:
        array = np.arange(6, dtype=np.float64).reshape(2, 3)
        np.save(tmp_path / "a.npy", array)
        read_back = read(str(tmp_path / "a.npy"), "FP32", (-1, 3))
        assert read_back.dtype == np.float32
        np.testing.assert_array_equal(read_back, array)

    def test_a_pickle_in_an_npy_is_not_run(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{}], np.object_), allow_pickle=True)
        with pytest.raises(InvalidRequest, match="allow_pickle"):
            read(str(tmp_path / "a.npy"), "FP32", (1,))

    def test_json_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('["x", "y"]\n')
        assert read(str(tmp_path / "a.json"), "BYTES", (-1, 1)).tolist() == [[b"x"], [b"y"]]

    def test_a_picture_as_bytes_is_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png((3, 3), 7))
        sent = read(str(tmp_path / "a.png"), "BYTES", (-1, 1))
        assert sent.tolist() == [[png((3, 3), 7)]]

    @given(
        array=hypothesis_numpy.arrays(
            np.int64, hypothesis_numpy.array_shapes(min_dims=0, max_dims=4, max_side=4)
        ),
        batched=st.booleans(),
    )
    def test_an_array_fits_its_own_shape(self, array: Array, batched: bool) -> None:
        shape = (-1, *array.shape) if batched else array.shape
        fitted = fit(array, shape)
        expected = array[None] if batched else array
        np.testing.assert_array_equal(fitted, expected)
        assert fitted.shape == expected.shape


class TestPictures:
    RED = png((4, 2), 0x0000FF, "RGB")

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((-1, 3, 2, 4), (3, 2, 4)),
            ((-1, 2, 4, 3), (2, 4, 3)),
            ((3, 2, 4), (3, 2, 4)),
            ((1, 3, 5, 6), (3, 5, 6)),
            ((-1, 3, -1, -1), (3, 2, 4)),
            ((-1, -1, 3), (2, 4, 3)),
            ((-1, 1, 8, 8), (1, 8, 8)),
            ((-1, 28, 28), (28, 28)),
            ((28, 28), (28, 28)),
        ],
    )
    def test_layouts(self, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        assert image_array(self.RED, "FP32", shape).shape == expected

    def test_channels(self) -> None:
        first = image_array(self.RED, "FP32", (-1, 3, 2, 4))
        last = image_array(self.RED, "UINT8", (-1, 2, 4, 3))
        assert first[:, 0, 0].tolist() == [1, 0, 0]
        assert last[0, 0].tolist() == [255, 0, 0]
        assert last.dtype == np.uint8

    @pytest.mark.parametrize(
        ("content", "datatype", "shape", "told"),
        [
            (RED, "INT64", (-1, 3, 2, 4), "does not fit into INT64"),
            (RED, "FP32", (-1, 16), r"does not fit into FP32 \[-1, 16\]"),
            (RED[:40], "FP32", (-1, 3, 2, 4), "can't be read"),
        ],
    )
    def test_refused(
        self, content: bytes, datatype: str, shape: tuple[int, ...], told: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=told):
            image_array(content, datatype, shape)
