"""The system_shared_memory extension, as tritonclient uses it over both protocols."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from penstock.types import NUMPY_DTYPES
from puppets import Gate
from region_files import region_file
from served import FRONTS, Served, descriptors, region_key
from served_models import PUPPET, TRITON_TYPES, XY, write_model
from shared_regions import PROTOCOLS, Client, region
from streamers import is_final, streamer
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("system_shared_memory")]

CODES = {
    "StatusCode.INVALID_ARGUMENT": "400",
    "StatusCode.ALREADY_EXISTS": "400",
    "StatusCode.NOT_FOUND": "404",
    "StatusCode.UNIMPLEMENTED": "501",
}
WIDE = 4096
"""Floats of a tensor that is copied only when its batch is made."""


def write_models(folder: Path) -> None:
    """Identities of all types, of floats, and a puppet."""
    pairs = [(name, f"data_type: {t} dims: [ -1 ]") for name, t in TRITON_TYPES.items()]
    inputs = ", ".join(f'{{ name: "X_{name}" {rest} optional: true }}' for name, rest in pairs)
    outputs = ", ".join(f'{{ name: "Y_{name}" {rest} }}' for name, rest in pairs)
    batched = "max_batch_size: 8\ndynamic_batching { }"
    write_model(folder / "types", "mirror", f"{batched}\ninput [ {inputs} ]\noutput [ {outputs} ]")
    write_model(folder / "floats", "mirror", f"{batched}\n{XY}")
    write_model(folder / "puppet", "puppet", f"{batched}\n{PUPPET}")
    decoupled = "model_transaction_policy { decoupled: true }"
    write_model(folder / "floats_again", "echo", f"max_batch_size: 8\n{decoupled}\n{XY}")


@pytest.fixture(scope="module", params=FRONTS)
def sharing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server that lets clients share memory. At its end nothing may be left."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    served = Served(folder, request.param, "--allow-client-shm")
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture(params=PROTOCOLS)
def client(sharing: Served, request: pytest.FixtureRequest) -> Iterator[Client]:
    """tritonclient, over each protocol. What it has registered is forgotten at the end."""
    with Client(sharing, request.param) as client:
        yield client
        client.client.unregister_system_shared_memory()


def refused(client: Client, call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """HTTP's status for the error of the call, and its text."""
    with pytest.raises(InferenceServerException) as raised:
        call(*arguments, **named)
    code = str(raised.value.status())
    return f"{CODES.get(code, code)} {raised.value.message()}"


def row(*values: float) -> Any:
    return np.array([values], np.float32)


def wide(value: float = 1) -> Any:
    return np.full((1, WIDE), value, np.float32)


def send(client: Client, name: str, array: Any, offset: int = 0, *, size: int = 0) -> Any:
    """Have the model `floats` read the array from a region, and give it back in the response."""
    place = (name, size or array.nbytes, offset)
    inputs = [client.input("X", "FP32", array.shape, *place)]
    return client.infer("floats", inputs, [client.output("Y")]).as_numpy("Y")


def put_into(client: Client, name: str, array: Any, offset: int = 0, *, size: int = 0) -> Any:
    """Have the model `floats` give an array back into a region."""
    outputs = [client.output("Y", name, size or array.nbytes, offset)]
    return client.infer("floats", [client.sent("X", "FP32", array)], outputs)


@pytest.mark.extension("streaming")
@pytest.mark.parametrize("model", ["floats", "floats_again"])
def test_tensors_of_streams(sharing: Served, model: str) -> None:
    """Of a decoupled model each response goes into the region, over the one before it."""
    with Client(sharing, "grpc") as client, region(32) as made, streamer(sharing.grpc) as stream:
        made.register(client.client)
        made.put(row(1, 2))
        tensor = client.input("X", "FP32", (1, 2), made.name, 8, 0)
        for output, place in (("Y", (made.name, 8, 8)), ("Y", (made.name, 4, 8))):
            outputs = [client.output(output, *place)]
            stream.client.async_stream_infer(
                model, [tensor], request_id="a", outputs=outputs, enable_empty_final_response=True
            )
            if place[1] == 4:
                assert "should be at least 8 bytes" in str(stream.next_error().message())
            else:
                response = stream.next()
                assert response.raw_output_contents == [b""]
                assert made.get("FP32", (1, 2), 8).tolist() == [[1, 2]]
            if model == "floats_again":
                assert is_final(stream.next())
        client.client.unregister_system_shared_memory()


# ── what works ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_extension_is_advertised(sharing: Served, client: Client) -> None:
    metadata = client.client.get_server_metadata()
    extensions = metadata["extensions"] if isinstance(metadata, dict) else metadata.extensions
    assert "system_shared_memory" in extensions
    assert "cuda_shared_memory" not in extensions


def test_regions_are_registered_shown_and_unregistered(client: Client) -> None:
    with region(4096) as one, region(64) as other:
        one.register(client.client)
        other.register(client.client, 32, offset=16)
        lines = [
            {"name": one.name, "key": one.key, "offset": 0, "byte_size": 4096},
            {"name": other.name, "key": other.key, "offset": 16, "byte_size": 32},
        ]
        assert client.status() == {line["name"]: line for line in lines}
        assert client.status(other.name) == {other.name: lines[1]}
        client.client.unregister_system_shared_memory(one.name)
        # as in Triton, a name that is not known is no error here
        client.client.unregister_system_shared_memory(one.name)
        assert list(client.status()) == [other.name]
        one.register(client.client)
        client.client.unregister_system_shared_memory()
        assert client.status() == {}


@pytest.mark.parametrize("datatype", TRITON_TYPES)
def test_tensors_of_all_types_come_from_and_go_to_regions(client: Client, datatype: str) -> None:
    with region(1 << 18) as shared:
        shared.register(client.client)
        for count in (3, 3000):
            if datatype == "BYTES":
                array = np.array([[b"word %d" % i * (i % 3) for i in range(count)]], object)
            else:
                numbers = np.arange(count).reshape(1, count) % 100
                array = numbers.astype(NUMPY_DTYPES[datatype])
            nbytes = shared.put(array, 128)
            asked = client.input(f"X_{datatype}", datatype, array.shape, shared.name, nbytes, 128)
            wanted = client.output(f"Y_{datatype}", shared.name, nbytes + 7, 100001)
            result = client.infer("types", [asked], [wanted])
            assert client.place(result, f"Y_{datatype}") == (shared.name, 100001, nbytes)
            assert np.array_equal(shared.get(datatype, array.shape, 100001), array)


def test_some_tensors_of_a_request_may_lie_in_regions_and_others_not(client: Client) -> None:
    words, numbers = np.array([[b"a", b""]], object), np.array([[1, 2, 3]], np.int16)
    with region(64) as shared:
        shared.register(client.client)
        nbytes = shared.put(words, 20)
        result = client.infer(
            "types",
            [
                client.sent("X_FP32", "FP32", row(5)),
                client.input("X_BYTES", "BYTES", (1, 2), shared.name, nbytes, 20),
                client.sent("X_INT16", "INT16", numbers),
            ],
            [
                client.output("Y_BYTES"),
                client.output("Y_INT16", shared.name, 6),
                client.output("Y_FP32"),
            ],
            request_id="mixed",
        )
        assert np.array_equal(result.as_numpy("Y_BYTES"), words)
        assert np.array_equal(result.as_numpy("Y_FP32"), row(5))
        assert client.place(result, "Y_INT16") == (shared.name, 0, 6)
        assert np.array_equal(shared.get("INT16", (1, 3)), numbers)


def test_requests_from_regions_share_batches_with_others(
    sharing: Served, client: Client, tmp_path: Path
) -> None:
    with region(WIDE * 4) as shared, grpc.insecure_channel(sharing.grpc) as channel:
        shared.register(client.client)
        shared.put(wide(7))
        with Gate(tmp_path, sharing, channel, "puppet") as gate:
            plain = gate.send(wide(3))
            gate.wait_arrived(2)
            asked = client.input("X", "FP32", (1, WIDE), shared.name, WIDE * 4)
            future = client.later("puppet", [asked], [client.output("Y"), client.output("TOLD")])
            gate.wait_arrived(3)
            gate.open()
            result = future.result()
        assert np.array_equal(result.as_numpy("Y"), wide(7))
        assert b'"requests": 2' in result.as_numpy("TOLD")[0, 0]
        assert plain.result().raw_output_contents[0] == wide(3).tobytes()


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_flag_clients_are_told_so(serve: Any, front: str, tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "floats", "mirror", f"max_batch_size: 8\n{XY}")
    server = serve(tmp_path / "models", front).wait_ready()
    says = "501 Client shared memory is disabled. Start the server with '--allow-client-shm=true'"
    assert "system_shared_memory" not in server.get("/v2").json["extensions"]
    for protocol in PROTOCOLS:
        with Client(server, protocol) as client, region(64) as shared:
            for call in (
                lambda: shared.register(client.client),
                client.client.get_system_shared_memory_status,
                client.client.unregister_system_shared_memory,
                lambda: send(client, shared.name, row(1)),
                lambda: put_into(client, shared.name, row(1)),
            ):
                assert refused(client, call).startswith(says)


def test_registrations_that_can_not_be(client: Client, tmp_path: Path) -> None:
    register = client.client.register_system_shared_memory
    with region(4096) as shared, region_file(b"") as (link, path):
        path.unlink()
        path.symlink_to(tmp_path / "secret")
        (tmp_path / "secret").write_bytes(bytes(64))
        never = region_key("never")
        for name, key, byte_size, says in (
            (
                "r",
                shared.key,
                4097,
                "400 failed to register shared memory region 'r': invalid args",
            ),
            ("r", shared.key, 0, "400 failed to register shared memory region 'r': invalid args"),
            ("r", never, 64, f"404 Unable to open shared memory region: '{never}'"),
            ("r", "/../../etc/passwd", 64, "400 Unable to open shared memory region"),
            ("r", "/proc/self/fd/0", 64, "400 Unable to open shared memory region"),
            ("r", link, 64, "400 Unable to open shared memory region"),
            ("r", "/triton_python_backend_shm_region_1", 64, "400 cannot register shared memory"),
        ):
            assert refused(client, register, name, key, byte_size).startswith(says)
        beyond = refused(client, register, "r", shared.key, 4000, offset=100)
        assert beyond.startswith("400 failed to register shared memory region 'r': invalid args")
        assert client.status() == {}
        shared.register(client.client)
        again = refused(client, shared.register, client.client)
        assert again == f"400 shared memory region '{shared.name}' already in manager"
        lost = refused(client, client.status, "nobody")
        assert lost == "404 Unable to find system shared memory region: 'nobody'"


def test_requests_that_name_what_is_not_there(client: Client) -> None:
    with region(4096) as shared:
        shared.register(client.client)
        name = shared.name
        shared.put(row(1))
        for side in (send, put_into):
            lost = refused(client, side, client, "nobody", row(1))
            assert lost == "404 Unable to find shared memory region: 'nobody'"
            outside = refused(client, side, client, name, row(1), 4096)
            assert outside == f"400 Invalid offset for shared memory region: '{name}'"
            over = refused(client, side, client, name, row(1), 4093)
            assert over == f"400 Invalid offset + byte size for shared memory region: '{name}'"
            negative = refused(client, side, client, name, row(1), -4)
            assert negative.startswith("400 'shared_memory_offset' parameter for tensor '")
        for size in (3, 5):
            mismatch = refused(client, send, client, name, row(1), size=size)
            assert mismatch == (
                "400 input byte size mismatch for input 'X' for model 'floats'."
                f" Expected 4, got {size}"
            )
        assert send(client, name, row(1)) == 1


def test_an_output_that_does_not_fit_fails_alone(
    sharing: Served, client: Client, tmp_path: Path
) -> None:
    with region(4096) as shared, grpc.insecure_channel(sharing.grpc) as channel:
        shared.register(client.client)
        with Gate(tmp_path, sharing, channel, "puppet") as gate:
            tight = client.later(
                "puppet",
                [client.sent("X", "FP32", row(1, 2))],
                [client.output("Y", shared.name, 7)],
            )
            gate.wait_arrived(2)
            plain = gate.send(row(3, 4))
            gate.wait_arrived(3)
            gate.open()
            assert refused(client, tight.result) == (
                "400 shared memory size specified with the request for output 'Y' (7 bytes)"
                " should be at least 8 bytes to hold the results"
            )
            assert plain.result().raw_output_contents[0] == row(3, 4).tobytes()


def test_strings_that_are_none_are_refused(client: Client) -> None:
    with region(64) as shared:
        shared.register(client.client)
        shared.put(np.full((4,), 255, np.uint8))
        asked = client.input("X_BYTES", "BYTES", (1, 1), shared.name, 8)
        says = refused(client, client.infer, "types", [asked], [])
        assert says.startswith("400 incomplete string data for inference input 'X_BYTES'")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "failed to parse the request JSON buffer"),
        ("[1]", "shared memory register request"),
        ("{}", "Shared memory register request has no 'key' field"),
        ('{"key": "/x"}', "Shared memory register request has no 'byte_size' field"),
        ('{"key": 3, "byte_size": 1}', "shared memory register request"),
        ('{"key": "/x", "byte_size": "1"}', "shared memory register request"),
        ('{"key": "/x", "byte_size": 1, "offset": 0.5}', "shared memory register request"),
    ],
)
def test_registrations_over_http_that_make_no_sense(sharing: Served, body: str, says: str) -> None:
    answer = sharing.request("POST", "/v2/systemsharedmemory/region/r/register", body)
    assert answer.status == 400
    assert answer.error.startswith(says)


def test_routes_are_tritons(sharing: Served) -> None:
    base = "/v2/systemsharedmemory"
    for method, path, status in (
        ("GET", f"{base}/status", 200),
        ("POST", f"{base}/status", 405),
        ("GET", f"{base}/region/r/register", 405),
        ("POST", f"{base}/register", 400),
        ("POST", f"{base}/unregister", 200),
        ("GET", base, 404),
        ("GET", f"{base}/region/r", 404),
        ("GET", f"{base}/region//status", 404),
    ):
        assert sharing.request(method, path).status == status, path


# ── regions that vanish while they are in use ───────────────────────────────────────────────────────────────────────


def test_a_region_without_a_name_goes_on_working(client: Client) -> None:
    with region(WIDE * 4) as shared:
        shared.register(client.client)
        shared.put(wide(2))
        shared.path.unlink()
        assert np.array_equal(send(client, shared.name, wide(2)), wide(2))
        put_into(client, shared.name, row(3), 8)
        assert shared.get("FP32", (1,), 8) == 3


def test_a_region_that_shrinks_harms_only_those_who_use_it(
    sharing: Served, client: Client, tmp_path: Path
) -> None:
    """Some requests use it when it is small already, and some have been queued before."""
    gateway = sharing.gateway
    with region(WIDE * 8) as shared, grpc.insecure_channel(sharing.grpc) as channel:
        shared.register(client.client)
        with Gate(tmp_path, sharing, channel, "puppet") as gate:
            reading = client.later(
                "puppet",
                [client.input("X", "FP32", (1, WIDE), shared.name, WIDE * 4)],
                [client.output("Y")],
            )
            gate.wait_arrived(2)
            writing = client.later(
                "puppet",
                [client.sent("X", "FP32", wide(5))],
                [client.output("Y", shared.name, WIDE * 4, WIDE * 4)],
            )
            plain = gate.send(wide(3))
            gate.wait_arrived(4)
            os.truncate(shared.path, 100)
            gate.open()
            says = f"400 shared memory region '{shared.name}' has been made smaller"
            assert refused(client, reading.result).startswith(says)
            assert refused(client, writing.result).startswith(says)
            assert plain.result().raw_output_contents[0] == wide(3).tobytes()
        for side in (send, put_into):
            assert refused(client, side, client, shared.name, wide()).startswith(says)
        assert shared.path.stat().st_size == 100
        # what is left of it can be used, and when it has grown again all can
        assert send(client, shared.name, row(0)) == 0
        os.truncate(shared.path, WIDE * 8)
        put_into(client, shared.name, wide(6))
        assert np.array_equal(send(client, shared.name, wide()), wide(6))
    assert sharing.gateway == gateway


def test_requests_that_wait_outlive_their_registration(
    sharing: Served, client: Client, tmp_path: Path
) -> None:
    assert client.status() == {}
    files = descriptors(sharing.gateway)
    with region(WIDE * 8) as shared, grpc.insecure_channel(sharing.grpc) as channel:
        shared.register(client.client)
        shared.put(wide(4))
        with Gate(tmp_path, sharing, channel, "puppet") as gate:
            waiting = client.later(
                "puppet",
                [client.input("X", "FP32", (1, WIDE), shared.name, WIDE * 4)],
                [client.output("Y", shared.name, WIDE * 4, WIDE * 4)],
            )
            gate.wait_arrived(2)
            client.client.unregister_system_shared_memory(shared.name)
            lost = refused(client, send, client, shared.name, row(1))
            assert lost == f"404 Unable to find shared memory region: '{shared.name}'"
            gate.open()
            waiting.result()
        assert np.array_equal(shared.get("FP32", (1, WIDE), WIDE * 4), wide(4))
    eventually(lambda: descriptors(sharing.gateway) <= files, "descriptors are left")


def test_a_worker_that_is_killed_costs_no_request(
    sharing: Served, client: Client, tmp_path: Path
) -> None:
    """Its request runs again, on what the region has then."""
    opened, started = tmp_path / "open", tmp_path / "started"
    with region(WIDE * 8) as shared:
        shared.register(client.client)
        shared.put(wide(8))
        waiting = client.later(
            "puppet",
            [client.input("X", "FP32", (1, WIDE), shared.name, WIDE * 4)],
            [client.output("Y", shared.name, WIDE * 4, WIDE * 4)],
            parameters={"wait_for": str(opened), "started": str(started)},
        )
        eventually(started.exists, "the model got no request")
        (worker,) = sharing.workers("puppet")
        opened.touch()
        os.kill(worker, signal.SIGKILL)
        waiting.result()
        assert np.array_equal(shared.get("FP32", (1, WIDE), WIDE * 4), wide(8))
