"""Decoupled models through both fronts: gRPC streams and events over HTTP, whole, slow, cancelled and cut off."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc

from grpc_calls import failure, infer_request
from raw_grpc import RawGrpc, prefixed
from served import FRONTS, Served
from served_models import XY, write_model
from streamers import MODEL_STREAM_INFER, BareStream, bare_stream, is_final, streamer
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("streaming")]

EMPTY_FINAL = {"triton_enable_empty_final_response": True}
EVENTS = "text/event-stream; charset=utf-8"
TELLER = """
    max_batch_size: 0
    model_transaction_policy { decoupled: true }
    input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [
      { name: "TOLD" data_type: TYPE_STRING dims: [ 1 ] },
      { name: "N" data_type: TYPE_INT32 dims: [ 1 ] }
    ]
"""
LARGE = 200_000
"""Bytes of a response of which a client's buffers hold only some."""
MANY = 400
"""Of them: more than all buffers on the way hold."""


@pytest.fixture(scope="module", params=FRONTS)
def telling(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of decoupled models, at whose end nothing may be left."""
    folder = tmp_path_factory.mktemp("telling")
    write_model(folder / "teller", "teller", TELLER)
    write_model(folder / "steady", "steady", f"max_batch_size: 8\ndynamic_batching {{ }}\n{XY}")
    served = Served(folder, request.param)
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture(scope="module")
def calls(telling: Served) -> Iterator[grpc.Channel]:
    """A bare channel."""
    with grpc.insecure_channel(telling.grpc) as channel:
        yield channel


def question(request_id: str, **parameters: Any) -> Any:
    """A request to the teller."""
    return infer_request(
        "teller",
        name="TEXT",
        datatype="BYTES",
        shape=[1],
        raw=[b"\2\0\0\0hi"],
        id=request_id,
        parameters=parameters,
    )


def ask(stream: BareStream, request_id: str, **parameters: Any) -> None:
    stream.send_bytes(question(request_id, **parameters).SerializeToString())


def step(response: Any) -> int:
    """Its number."""
    infer = response.infer_response
    names = [output.name for output in infer.outputs]
    return int(np.frombuffer(infer.raw_output_contents[names.index("N")], np.int32)[0])


def of(found: list[Any], request_id: str) -> list[Any]:
    return [each for each in found if each.infer_response.id == request_id]


def logged(path: Path) -> str:
    return path.read_text() if path.exists() else ""


# ── gRPC ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_responses_of_several_requests(calls: grpc.Channel) -> None:
    with bare_stream(calls) as stream:
        ask(stream, "none", count=0)
        ask(stream, "three", **EMPTY_FINAL)
        ask(stream, "flagged", count=2, flag_last=True, **EMPTY_FINAL)
        ask(stream, "silent", count=2)
        ask(stream, "empty", count=0, **EMPTY_FINAL)
        stream.send("other", "steady")
        stream.end()
        found = stream.rest()
        assert stream.call.code() is grpc.StatusCode.OK
    assert {each.error_message for each in found} == {""}
    finals = {
        name: [is_final(each.infer_response) for each in of(found, name)]
        for name in ("none", "three", "flagged", "silent", "empty", "other")
    }
    assert finals == {
        "none": [],
        "three": [False, False, False, True],
        "flagged": [False, True],
        "silent": [False, False],
        "empty": [True],
        "other": [True],
    }
    three = of(found, "three")
    assert [step(each) for each in three[:3]] == [0, 1, 2]
    assert [each.infer_response.parameters["step"].int64_param for each in three[:3]] == [0, 1, 2]
    assert not three[3].infer_response.outputs
    assert {(r.infer_response.model_name, r.infer_response.model_version) for r in three} == {
        ("teller", "1")
    }


def test_each_response_comes_when_it_is_made(calls: grpc.Channel, tmp_path: Path) -> None:
    with bare_stream(calls) as stream:
        ask(stream, "slow", wait_for=str(tmp_path / "go"))
        assert step(stream.next()) == 0
        # it holds nobody up
        ask(stream, "quick", count=1)
        assert stream.next().infer_response.id == "quick"
        stream.send("other", "steady")
        assert stream.next().infer_response.id == "other"
        (tmp_path / "go").touch()
        assert [step(stream.next()) for _ in range(2)] == [1, 2]


def test_nvidias_client(telling: Served) -> None:
    with streamer(telling.grpc) as stream:
        tensor = tritonclient.grpc.InferInput("TEXT", [1], "BYTES")
        tensor.set_data_from_numpy(np.array(["hello"], np.object_))
        stream.client.async_stream_infer(
            "teller", [tensor], request_id="a", enable_empty_final_response=True
        )
        heard = [stream.next() for _ in range(4)]
    assert [is_final(each) for each in heard] == [False, False, False, True]


def test_an_error_in_the_middle(calls: grpc.Channel) -> None:
    with bare_stream(calls) as stream:
        ask(stream, "a", fail_at=1, flag_last=True)
        ask_end = [stream.next() for _ in range(3)]
        assert [each.error_message for each in ask_end] == ["", "the teller stumbled", ""]
        assert [is_final(each.infer_response) for each in ask_end] == [False, False, True]
        assert ask_end[1].infer_response.id == "a"
    with bare_stream(calls, metadata=[("triton_grpc_error", "true")]) as stream:
        ask(stream, "a", fail_at=1)
        assert step(stream.next()) == 0
        assert stream.failure() == ("INTERNAL", "the teller stumbled")


def test_a_worker_that_dies_in_the_middle(telling: Served, calls: grpc.Channel) -> None:
    with bare_stream(calls) as stream:
        ask(stream, "a", die_at=1)
        assert step(stream.next()) == 0
        lost = stream.next()
        assert lost.infer_response.id == "a" and is_final(lost.infer_response)
        assert "ended amid this request's responses" in lost.error_message
        eventually(lambda: telling.get("/v2/models/teller/ready").status == 200, "not restarted")
        ask(stream, "b", count=1)
        assert stream.next().infer_response.id == "b"


@pytest.mark.parametrize("ending", ["cancel", "reset", "half-closed and reset", "deadline"])
def test_a_cancelled_stream_reaches_the_model(
    telling: Served, calls: grpc.Channel, tmp_path: Path, ending: str
) -> None:
    log = tmp_path / "log"
    told = {"log": str(log), "wait_for": str(tmp_path / "never")}
    if ending == "cancel":
        with bare_stream(calls) as stream:
            ask(stream, "a", **told)
            assert step(stream.next()) == 0
    else:
        headers = [("grpc-timeout", "1500m")] if ending == "deadline" else []
        with RawGrpc(telling.settings.grpc_port) as raw:
            call = raw.start(MODEL_STREAM_INFER, headers)
            body = prefixed(question("a", **told).SerializeToString())
            raw.send(call, body, end=ending.startswith("half"))
            eventually(lambda: logged(log) == "1", "it has not begun")
            if ending == "deadline":
                outcome = raw.outcome(call)
                assert outcome.reset or outcome.status == 4
            else:
                raw.reset(call)
                eventually(lambda: logged(log) == "cancelled", "the model is not told")
    eventually(lambda: logged(log) == "cancelled", "the model is not told")


def test_a_client_that_does_not_read_holds_the_model_up(
    telling: Served, calls: grpc.Channel, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with grpc.insecure_channel(telling.grpc) as own, bare_stream(own) as stream:
        ask(stream, "a", count=MANY, size=LARGE, log=str(log))
        assert step(stream.next()) == 0
        until_it_stands_still(telling, calls, log)
        assert int(logged(log)) < MANY
        assert [step(stream.next()) for _ in range(MANY - 1)] == list(range(1, MANY))
    eventually(lambda: logged(log) == str(MANY), "the model has not sent all")


def until_it_stands_still(telling: Served, calls: grpc.Channel, log: Path) -> None:
    """Until the model sends no more, while others' requests are answered."""
    seen, same = "", 0
    for _ in range(20_000):
        with bare_stream(calls) as other:
            ask(other, "quick", count=1)
            assert other.next().infer_response.id == "quick"
        now = logged(log)
        same = same + 1 if now == seen else 0
        seen = now
        if same == 60:
            return
    raise AssertionError("it goes on for ever")


def test_unary_calls_are_refused(telling: Served, calls: grpc.Channel) -> None:
    code, text = failure(calls, "ModelInfer", question("a"))
    assert (code, "decoupled transaction policy" in text) == ("UNIMPLEMENTED", True)


def test_a_server_that_stops_lets_a_model_go_on_and_ends_the_stream_then(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "models" / "teller", "teller", TELLER)
    server = serve(tmp_path / "models", front).wait_ready()
    with grpc.insecure_channel(server.grpc) as channel, bare_stream(channel) as stream:
        ask(stream, "a", wait_for=str(tmp_path / "go"))
        assert step(stream.next()) == 0
        server.process.terminate()
        eventually(lambda: "SIGTERM" in server.log, "it does not stop")
        (tmp_path / "go").touch()
        assert [step(stream.next()) for _ in range(2)] == [1, 2]
        text = "GRPC server is shutting down and has stopped accepting new requests."
        assert stream.failure() == ("UNAVAILABLE", text)
        assert server.process.wait(30) == 0, server.log


# ── events over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────


class EventReader:
    """A generate_stream request and its events."""

    def __init__(self, server: Served, text: str = "hi", **parameters: Any) -> None:
        port = server.settings.http_port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"TEXT": text, "parameters": parameters})
        self.connection.request("POST", "/v2/models/teller/generate_stream", body)

    def start(self) -> None:
        """Read the head."""
        self.response = self.connection.getresponse()
        assert self.response.headers["content-type"] == EVENTS
        self.status = self.response.status

    def next(self) -> dict[str, Any] | None:
        """The next event; None at the end."""
        line = self.response.readline()
        if not line:
            return None
        assert line.startswith(b"data: ") and self.response.readline() == b"\n"
        found: dict[str, Any] = json.loads(line[6:])
        return found

    def rest(self) -> list[dict[str, Any]]:
        return list(iter(self.next, None))


@pytest.fixture
def events(telling: Served) -> Iterator[Callable[..., EventReader]]:
    """`events(text, **parameters)` starts to read them."""
    readers: list[EventReader] = []

    def start(*arguments: Any, **named: Any) -> EventReader:
        readers.append(EventReader(telling, *arguments, **named))
        readers[-1].start()
        return readers[-1]

    yield start
    for reader in readers:
        reader.connection.close()


@pytest.mark.extension("generate")
def test_events(events: Callable[..., EventReader]) -> None:
    reader = events("héllo")
    assert reader.status == 200
    head = {"model_name": "teller", "model_version": "1"}
    told = [{**head, "TOLD": "héllo", "N": n, "step": n} for n in range(3)]
    assert reader.rest() == told
    assert events(count=0).rest() == []
    found = events(count=1, **EMPTY_FINAL).rest()
    assert [each["triton_final_response"] for each in found] == [False, True]
    found = events(count=2, flag_last=True, **EMPTY_FINAL).rest()
    assert [each["triton_final_response"] for each in found] == [False, True]


@pytest.mark.extension("generate")
def test_each_event_comes_when_it_is_made(
    events: Callable[..., EventReader], tmp_path: Path
) -> None:
    reader = events(wait_for=str(tmp_path / "go"))
    first = reader.next()
    assert first is not None and first["N"] == 0
    (tmp_path / "go").touch()
    assert [each["N"] for each in reader.rest()] == [1, 2]


@pytest.mark.extension("generate")
def test_errors_among_events(events: Callable[..., EventReader]) -> None:
    reader = events(fail_at=1)
    assert reader.status == 200
    assert [each.get("error") for each in reader.rest()] == [None, "the teller stumbled", None]
    reader = events(fail_at=0, count=1)
    assert (reader.status, reader.rest()) == (500, [{"error": "the teller stumbled"}])


@pytest.mark.extension("generate")
@pytest.mark.parametrize(
    ("parameters", "status"), [({"count": 1}, 200), ({"count": 0}, 500), ({"count": 2}, 500)]
)
def test_generate_needs_one_response(
    telling: Served, parameters: dict[str, Any], status: int
) -> None:
    body = {"TEXT": "hi", "parameters": parameters}
    answer = telling.request("POST", "/v2/models/teller/generate", body)
    assert answer.status == status
    if status == 200:
        assert answer.json["TOLD"] == "hi"
    else:
        assert answer.error.startswith("generate expects model to produce exactly 1 response")
    assert telling.request("POST", "/v2/models/teller/infer", body).status in (400, 501)


@pytest.mark.extension("generate")
def test_a_listener_that_leaves_is_told_to_the_model(
    events: Callable[..., EventReader], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    reader = events(log=str(log), wait_for=str(tmp_path / "never"))
    assert reader.next() is not None
    reader.connection.close()
    reader.response.close()
    eventually(lambda: logged(log) == "cancelled", "the model is not told")


@pytest.mark.extension("generate")
def test_a_listener_that_does_not_read_holds_the_model_up(
    telling: Served,
    calls: grpc.Channel,
    events: Callable[..., EventReader],
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    reader = events(log=str(log), count=MANY, size=LARGE)
    until_it_stands_still(telling, calls, log)
    assert int(logged(log)) < MANY
    assert [each["N"] for each in reader.rest()] == list(range(MANY))
