"""ModelStreamInfer of models that answer once, over both fronts, with NVIDIA's clients and raw frames."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from grpc_calls import infer_request, pb
from puppets import Gate, failures, row
from raw_grpc import RawGrpc, prefixed
from served import Served, descriptors
from streamers import MODEL_STREAM_INFER, bare_stream, is_final, streamer
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("streaming")]

OK, INVALID, EXHAUSTED = 0, 3, 8
STATUS_CODES = {"triton_grpc_error": "true"}


@pytest.fixture
def raw(server: Served) -> Iterator[RawGrpc]:
    """A connection of our own."""
    with RawGrpc(server.settings.grpc_port) as connection:
        yield connection


def request(request_id: str, **changes: Any) -> bytes:
    return prefixed(infer_request(id=request_id, **changes).SerializeToString())


def responses(data: bytes) -> list[Any]:
    """The messages of a response's body."""
    found = []
    while data:
        end = 5 + int.from_bytes(data[1:5])
        found.append(pb.ModelStreamInferResponse.FromString(data[5:end]))
        data = data[end:]
    return found


def ids(found: list[Any]) -> list[str]:
    return [each.infer_response.id for each in found]


def test_hundreds_of_requests_to_several_models_are_answered_in_order(server: Served) -> None:
    models = ("puppet", "steady", "bare", "puppet_pair")
    with streamer(server.grpc) as stream:
        for number in range(400):
            array = np.array([[number, 1, 2]], np.float32)
            stream.send(str(number), models[number % 4], array)
        for number in range(400):
            response = stream.next()
            assert (response.id, response.model_name) == (str(number), models[number % 4])
            assert is_final(response)
            assert np.frombuffer(response.raw_output_contents[0], np.float32)[0] == number


def test_an_async_client(server: Served) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            tensor = tritonclient.grpc.InferInput("X", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.array([[number]], np.float32))
            yield {"model_name": "puppet", "inputs": [tensor], "request_id": str(number)}

    async def talk() -> list[float]:
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:
            heard = []
            answers: Any = client.stream_infer(requests())
            async for result, error in answers:
                assert error is None
                heard.append(float(result.as_numpy("Y")[0, 0]))
            return heard

    assert asyncio.run(talk()) == list(range(20))


def test_the_streams_headers_come_before_any_response(channel: grpc.Channel) -> None:
    with bare_stream(channel) as stream:
        assert stream.call.initial_metadata() is not None
        stream.send("a")
        assert stream.next().infer_response.id == "a"
        stream.end()
        assert stream.rest() == []
        assert stream.call.code() is grpc.StatusCode.OK


def test_a_stream_with_bad_requests_among_good_ones(server: Served) -> None:
    with streamer(server.grpc) as stream:
        stream.send("first")
        stream.send("unknown", "no_such_model")
        stream.send("shape", "bare")
        stream.send("fails", parameters={"error": "oh", "code": "INVALID_ARG"})
        stream.send("last")
        assert stream.next().id == "first"
        for text in ("unknown model: 'no_such_model'", "unexpected shape for input 'X'", "oh"):
            assert text in str(stream.next_error().message())
        assert stream.next().id == "last"


def test_an_error_says_whose_it_is(channel: grpc.Channel) -> None:
    with bare_stream(channel) as stream:
        stream.send("fails", parameters={"error": "oh"})
        stream.send("unknown", "no_such_model", model_version="7")
        stream.send_bytes(b"\xff\xff")
        stream.send("good")
        failed, unknown, malformed, good = (stream.next() for _ in range(4))
    assert failed.error_message == "oh"
    named = [
        (r.infer_response.model_name, r.infer_response.model_version) for r in (failed, unknown)
    ]
    assert named == [("puppet", "1"), ("no_such_model", "7")]
    assert ids([failed, unknown, malformed, good]) == ["fails", "unknown", "", "good"]
    assert "is not a ModelInferRequest" in malformed.error_message or malformed.error_message
    assert (good.error_message, is_final(good.infer_response)) == ("", True)


def test_a_client_that_wants_status_codes(server: Served) -> None:
    with streamer(server.grpc, headers=STATUS_CODES) as stream:
        stream.send("good")
        stream.send("fails", parameters={"error": "oh", "code": "ALREADY_EXISTS"})
        assert stream.next().id == "good"
        error = stream.next_error()
        assert (error.status(), error.message()) == ("StatusCode.ALREADY_EXISTS", "oh")
        # the client sees that its stream is over, and says so
        with pytest.raises(InferenceServerException, match="no longer in valid state"):
            stream.send("late")


# ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_messages_in_any_pieces(raw: RawGrpc) -> None:
    stream = raw.start(MODEL_STREAM_INFER)
    data = b"".join(request(each) for each in "abcd")
    for at in range(0, len(data), 61):
        raw.send(stream, data[at : at + 61], end=False)
    raw.send(stream, b"")
    outcome = raw.outcome(stream)
    assert (outcome.status, ids(responses(outcome.data))) == (OK, ["a", "b", "c", "d"])


def test_compressed_messages(raw: RawGrpc) -> None:
    plain = infer_request(id="z").SerializeToString()
    body = prefixed(gzip.compress(plain), flag=1) + request("p")
    outcome = raw.call(body, MODEL_STREAM_INFER, [("grpc-encoding", "gzip")])
    assert (outcome.status, ids(responses(outcome.data))) == (OK, ["z", "p"])


def test_no_request_at_all(raw: RawGrpc) -> None:
    assert raw.call(b"", MODEL_STREAM_INFER).status == OK


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (request("a")[:-1], INVALID),
        (b"\0\0", INVALID),
        (prefixed(b"", length=2**32 - 1), EXHAUSTED),
        (prefixed(b"x", flag=1), INVALID),
    ],
    ids=["cut off", "prefix cut off", "4 GiB", "compressed by nothing"],
)
def test_frames_that_end_the_stream(server: Served, raw: RawGrpc, body: bytes, status: int) -> None:
    outcome = raw.call(body, MODEL_STREAM_INFER)
    assert outcome.data == b""
    if server.front == "envoy":
        assert outcome.status == status
        assert outcome.message
    elif body[:5] != b"\0\0" and len(body) > 5 and not body.endswith(b"x"):
        # gRPC's own server takes what is cut off for the stream's end
        assert outcome.status == OK
    assert raw.call(request("a"), MODEL_STREAM_INFER).status == OK


# ── who leaves ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["cancel", "reset", "reset after the last request", "close"])
def test_a_client_that_leaves_cancels_all_its_requests(
    server: Served, channel: grpc.Channel, tmp_path: Path, ending: str
) -> None:
    before = failures(server, "puppet_alone", "CANCELED")

    def cancelled() -> bool:
        return failures(server, "puppet_alone", "CANCELED") == before + 3

    with Gate(tmp_path, server, channel, "puppet_alone") as gate:
        if ending == "cancel":
            with streamer(server.grpc) as stream:
                for number in range(3):
                    stream.send(str(number), "puppet_alone")
                gate.wait_arrived(4)
        else:
            with RawGrpc(server.settings.grpc_port) as raw:
                call = raw.start(MODEL_STREAM_INFER)
                body = b"".join(request(str(n), model="puppet_alone") for n in range(3))
                raw.send(call, body, end="last" in ending)
                gate.wait_arrived(4)
                if ending != "close":
                    raw.reset(call)
                    eventually(cancelled, "they are not cancelled")
        eventually(cancelled, "they are not cancelled")


def test_a_deadline_is_the_streams_and_each_of_its_requests(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet_alone") as gate:
        with RawGrpc(server.settings.grpc_port) as raw:
            call = raw.start(MODEL_STREAM_INFER, [("grpc-timeout", "300m")])
            raw.send(call, request("a", model="puppet_alone"), end=False)
            outcome = raw.outcome(call)
        assert outcome.reset or outcome.status == 4
        gate.wait_queued(0)


def test_a_requests_own_timeout_is_its_own(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet_alone") as gate, bare_stream(channel) as stream:
        stream.send("late", "puppet_alone", parameters={"timeout": 50_000})
        stream.send("patient", "puppet_alone")
        late = stream.next()
        assert late.infer_response.id == "late"
        assert "Request timeout expired" in late.error_message
        gate.open()
        assert stream.next().infer_response.id == "patient"


def test_many_streams_leave_nothing_open(server: Served) -> None:
    before = descriptors(server.gateway)
    with RawGrpc(server.settings.grpc_port) as raw:
        for number in range(200):
            call = raw.start(MODEL_STREAM_INFER)
            raw.send(call, request(str(number)), end=False)
            raw.reset(call)
        assert raw.call(request("a"), MODEL_STREAM_INFER).status == OK
    eventually(lambda: descriptors(server.gateway) <= before + 1, "descriptors are left")


def test_a_slow_reader_gets_all_in_the_end_and_holds_nobody_else_up(
    server: Served, channel: grpc.Channel
) -> None:
    many = 160
    wide = np.zeros((8, 1 << 15), np.float32)
    message = infer_request("puppet", wide, outputs=["Y"]).SerializeToString()
    sent = 0

    def requests() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(many):
            sent += 1
            yield message

    with grpc.insecure_channel(
        server.grpc, options=[("grpc.max_receive_message_length", -1)]
    ) as own:
        stream = own.stream_stream(MODEL_STREAM_INFER, None, pb.ModelStreamInferResponse.FromString)
        call = stream(requests(), timeout=60)
        first = next(call)
        assert first.error_message == ""
        with streamer(server.grpc) as other:
            other.send("quick", array=row(1))
            assert other.next().id == "quick"
        assert sum(1 for _ in call) == many - 1
    assert sent == many
