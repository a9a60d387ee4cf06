"""Python models that ask other models, as Triton's business logic scripting does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from grpc_calls import MODEL_INFER, infer_request, pb
from puppets import Gate, queued, row, told
from served import FRONTS, Served
from served_models import PUPPET, own, write_model
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("bls")]

BATCHES = "max_batch_size: 8\ndynamic_batching { }\n"
ALONE = "max_batch_size: 1\n"
LEVELS = "max_batch_size: 1\ndynamic_batching { priority_levels: 2 default_priority_level: 2 }\n"
REPEAT = """
    model_transaction_policy { decoupled: true }
    input [
      { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
      { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] }
    ]
    output [
      { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
      { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
    ]
"""
PAIR = "instance_group [ { count: 2 kind: KIND_CPU } ]\n"


@pytest.fixture(scope="module", params=FRONTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Models that ask, and a puppet to be asked. Tenants are named by a header."""
    folder = tmp_path_factory.mktemp("callers")
    write_model(folder / "puppet", "puppet", BATCHES + PUPPET)
    write_model(folder / "puppet_levels", "puppet", LEVELS + PUPPET)
    write_model(folder / "caller", "caller", BATCHES + PUPPET)
    write_model(folder / "caller_alone", "caller", ALONE + PUPPET)
    write_model(folder / "caller_pair", "caller", ALONE + PAIR + PUPPET)
    write_model(folder / "repeat", "repeat", REPEAT)
    for name, asked in (("one_more", "puppet"), ("none_more", "nobody")):
        ask = own(ask=asked)
        write_model(folder / name, "caller_decorated", f"max_batch_size: 8\n{ask}")
    flags = ("--tenant-header=x-tenant", "--model-control-mode=explicit", "--load-model=*")
    served = Served(folder, request.param, *flags)
    try:
        yield served.wait_ready()
    finally:
        served.close()


@pytest.fixture(scope="module")
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def send(channel: grpc.Channel, model: str, parameters: dict[str, Any], **options: Any) -> Any:
    """A request under way."""
    call = channel.unary_unary(
        MODEL_INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    options = {"timeout": 30, **options}
    return call.future(infer_request(model, row(1, 2), parameters=parameters, id="q"), **options)


def line_of(response: Any) -> Any:
    """What the model told of its nested requests."""
    return told(response)


def y_of(response: Any) -> list[float]:
    names = [output.name for output in response.outputs]
    values: list[float] = np.frombuffer(
        response.raw_output_contents[names.index("Y")], np.float32
    ).tolist()
    return values


def asking(model: str, _with: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"ask": model, "with": json.dumps(_with or {}), **more}


def error_of(call: Any) -> tuple[str, str]:
    """A failed call's code and text."""
    error = call.exception()
    assert isinstance(error, grpc.RpcError), error
    return error.code().name, error.details() or ""


def cancelled(server: Served) -> float:
    """How many requests of the model `caller` were."""
    return server.metric("nv_inference_request_failure", "caller", reason="CANCELED")


def wait_for_queue(server: Served, model: str, requests: int) -> None:
    """Until so many wait there."""
    eventually(lambda: queued(server, model) == requests, f"not {requests} wait for {model}")


# ── what is asked, and answered ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("more", [{}, {"version": 1}, {"thread": True}, {"times": 1}])
def test_a_models_request_is_answered(channel: grpc.Channel, more: dict[str, Any]) -> None:
    response = send(channel, "caller", asking("puppet", {"color": "red"}, **more)).result()
    (said,) = line_of(response)
    assert y_of(response) == [1, 2]
    assert said["id"] == "for q"
    assert said["parameters"] == {"color": "red"}


def test_over_http_and_grpc_with_nvidias_clients(server: Served) -> None:
    for module, address in ((tritonclient.http, server.http), (tritonclient.grpc, server.grpc)):
        client: Any = module.InferenceServerClient(address)
        x = module.InferInput("X", [1, 2], "FP32").set_data_from_numpy(row(3, 4))
        with client:
            result = client.infer("caller", [x], parameters=asking("puppet"))
        assert result.as_numpy("Y").tolist() == [[3, 4]]


def test_large_tensors(server: Served) -> None:
    large = np.random.default_rng(1).random((8, 200_000), np.float32)
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    x = tritonclient.grpc.InferInput("X", list(large.shape), "FP32").set_data_from_numpy(large)
    with client:
        result: Any = client.infer("caller", [x], parameters=asking("puppet"))
    np.testing.assert_array_equal(result.as_numpy("Y"), large)


def test_requests_that_are_sent_together_run_together(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet") as held:
        asked = send(channel, "caller", asking("puppet", times=5))
        held.wait_queued(5)
        held.open()
        response = asked.result()
    assert y_of(response) == [5, 10]
    assert [said["requests"] for said in line_of(response)] == [5] * 5


@pytest.mark.parametrize("times", [{}, {"times": 3}])
def test_the_error_of_the_other_model_is_told(channel: grpc.Channel, times: dict[str, int]) -> None:
    failing = asking("puppet", {"error": "out of paint", "code": "UNAVAILABLE"}, **times)
    assert error_of(send(channel, "caller", failing)) == ("UNAVAILABLE", "out of paint")
    assert y_of(send(channel, "caller", asking("puppet")).result()) == [1, 2]


def test_models_that_are_not_there(channel: grpc.Channel) -> None:
    code, text = error_of(send(channel, "caller", asking("nobody")))
    assert code == "NOT_FOUND"
    assert text == "Request for unknown model: 'nobody' is not found"
    _, text = error_of(send(channel, "caller", asking("puppet", version=7)))
    assert "'puppet' version 7 is not found" in text


def test_a_decorated_model_asks_too(channel: grpc.Channel) -> None:
    assert y_of(send(channel, "one_more", {}).result()) == [2, 3]
    code, text = error_of(send(channel, "none_more", {}))
    assert (code, text) == ("NOT_FOUND", "Request for unknown model: 'nobody' is not found")


def test_the_responses_of_a_decoupled_model_come_one_by_one(channel: grpc.Channel) -> None:
    response = send(channel, "caller", {"stream": "repeat"}).result()
    assert line_of(response) == [1, 2]
    assert y_of(response) == [3]
    many = row(*range(500))
    call = channel.unary_unary(
        MODEL_INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    response = call(infer_request("caller", many, parameters={"stream": "repeat"}), timeout=30)
    assert line_of(response) == list(range(500))
    # who stops listening holds nobody up
    response = call(
        infer_request("caller", many, parameters={"stream": "repeat", "until": 3}), timeout=30
    )
    assert line_of(response) == [0, 1, 2]
    assert y_of(send(channel, "caller", {"stream": "repeat"}).result()) == [3]


def test_a_decoupled_model_is_asked_again_before_all_its_responses_are_taken(
    channel: grpc.Channel,
) -> None:
    """Its only instance waits for the caller to take more, and the caller for its next answer."""
    many = row(*range(500))
    call = channel.unary_unary(
        MODEL_INFER, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    parameters: dict[str, Any] = {"stream": "repeat", "between": True}
    response = call(infer_request("caller", many, parameters=parameters), timeout=30)
    assert line_of(response) == list(range(500))


def test_a_decoupled_model_that_is_asked_for_one_response(channel: grpc.Channel) -> None:
    code, text = error_of(send(channel, "caller", {"stream": "repeat", "once": True}))
    assert code == "UNIMPLEMENTED"
    assert text == "model 'repeat' is decoupled, and was asked for exactly one response"


# ── whose terms hold ────────────────────────────────────────────────────────────────────────────────────────────────


def test_tenant_and_priority_are_their_requests_own(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet_levels") as held:
        # the worker gets one more than it runs
        held.send()
        for tenant, level in (("blue", 1), ("green", 2)):
            sent = send(
                channel,
                "caller_pair",
                {**asking("puppet_levels"), "priority": level},
                metadata=(("x-tenant", tenant),),
            )
            held._sent.append(sent)
        held.wait_queued(2)
        levels = server.get("/v2/models/puppet_levels/explain").json["queue"]["levels"]
        waiting = {
            (level["level"], lane["tenant"])
            for level in levels
            for lane in level["tenants"]
            if lane["requests"]
        }
        assert waiting == {(1, "blue"), (2, "green")}


@pytest.mark.parametrize("first", [False, True])
def test_a_batch_of_several_tenants(
    server: Served, channel: grpc.Channel, tmp_path: Path, first: bool
) -> None:
    """Whose request it is, is told by what was read before: of all of them, the first one's tenant counts."""
    (tmp_path / "caller").mkdir()
    with Gate(tmp_path, server, channel, "puppet_levels") as held:
        held.send()
        with Gate(tmp_path / "caller", server, channel, "puppet") as caller_held:
            stuck = send(channel, "caller", asking("puppet"), metadata=(("x-tenant", "other"),))
            held._sent.append(stuck)
            eventually(lambda: queued(server, "puppet") == 1, "it does not wait")
            parameters = asking("puppet_levels") | ({"first": True} if first else {})
            for waiting, tenant in enumerate(("blue", "green"), start=1):
                held._sent.append(
                    send(channel, "caller", parameters, metadata=(("x-tenant", tenant),))
                )
                wait_for_queue(server, "caller", waiting)
            caller_held.open()
        held.wait_queued(1)
        levels = server.get("/v2/models/puppet_levels/explain").json["queue"]["levels"]
        assert [
            lane["tenant"] for each in levels for lane in each["tenants"] if lane["requests"]
        ] == ["blue"]


def test_the_deadline_is_the_callers(server: Served, channel: grpc.Channel, tmp_path: Path) -> None:
    with Gate(tmp_path, server, channel, "puppet") as held:
        late = send(channel, "caller", asking("puppet"), timeout=0.5)
        held.wait_queued(1)
        assert error_of(late)[0] == "DEADLINE_EXCEEDED"
        held.wait_queued(0)


def test_nobody_asks_for_a_client_that_is_gone(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet") as held:
        gone = send(channel, "caller", asking("puppet"))
        held.wait_queued(1)
        gone.cancel()
        held.wait_queued(0)
    assert y_of(send(channel, "caller", asking("puppet")).result()) == [1, 2]


def test_what_is_asked_for_a_client_that_is_gone_already_is_not_run(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    ran, left = server.statistics("repeat")["execution_count"], cancelled(server)
    gone = send(channel, "caller", {"stream": "repeat", "late": str(tmp_path / "go")})
    eventually((tmp_path / "go.waits").exists, "it does not run")
    gone.cancel()
    eventually(lambda: cancelled(server) > left, "it is not noticed")
    (tmp_path / "go").touch()
    assert y_of(send(channel, "caller", {}).result()) == [1, 2]
    assert server.statistics("repeat")["execution_count"] == ran


# ── circles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_asks_itself(channel: grpc.Channel) -> None:
    code, text = error_of(send(channel, "caller_alone", asking("caller_alone")))
    assert code == "UNAVAILABLE"
    assert "'caller_alone' has no idle instance" in text and "deadlock" in text
    assert y_of(send(channel, "caller_pair", asking("caller_pair")).result()) == [1, 2]


def test_models_that_ask_each_other_all_end(channel: grpc.Channel) -> None:
    """Each holds its only instance while it waits for the other one's."""
    there = asking("caller_alone", asking("caller"))
    back = asking("caller", asking("caller_alone"))
    calls = [
        send(channel, *pair)
        for _ in range(20)
        for pair in (("caller", there), ("caller_alone", back))
    ]
    for call in calls:
        error = call.exception()
        assert error is None or error.code().name == "UNAVAILABLE", error
    assert y_of(send(channel, "caller", asking("caller_alone")).result()) == [1, 2]


@pytest.mark.parametrize("do", ["unload", "load"])
def test_a_model_that_is_asked_can_not_end_the_one_that_asks(
    channel: grpc.Channel, do: str
) -> None:
    """It would wait until that has its answer, which is its own."""
    asked = asking("caller", {"do": do, "model": "caller_alone"})
    _, text = error_of(send(channel, "caller_alone", asked))
    assert "'caller_alone' can't be loaded or unloaded now: it waits for the model" in text
    assert y_of(send(channel, "caller_alone", asking("caller")).result()) == [1, 2]


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_dies_under_a_nested_request(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    nested = {"wait_for": str(tmp_path / "open"), "started": str(tmp_path / "started")}
    call = send(channel, "caller", asking("puppet", nested))
    eventually((tmp_path / "started").exists, "it does not run")
    (pid,) = server.workers("puppet")
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "open").touch()
    assert y_of(call.result()) == [1, 2]


def test_a_caller_that_dies_leaves_nothing_waiting(
    server: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    with Gate(tmp_path, server, channel, "puppet") as held:
        call = send(channel, "caller", asking("puppet"))
        held.wait_queued(1)
        (pid,) = server.workers("caller")
        os.kill(pid, signal.SIGKILL)
        # it runs again on the next worker, and asks again
        eventually(lambda: server.workers("caller") not in ([], [pid]), "no new worker")
        held.wait_queued(1)
        held.open()
        assert y_of(call.result()) == [1, 2]


# ── whether others are there ────────────────────────────────────────────────────────────────────────────────────────


def test_models_load_and_unload_others(server: Served, channel: grpc.Channel) -> None:
    def do(what: str, model: str) -> Any:
        return line_of(send(channel, "caller", {"do": what, "model": model}).result())

    assert do("ready", "puppet_levels") is True
    assert do("unload", "puppet_levels") == "done"
    assert do("ready", "puppet_levels") is False
    assert do("load", "puppet_levels") == "done"
    assert do("ready", "puppet_levels") is True
    _, text = error_of(send(channel, "caller", {"do": "load", "model": "nobody"}))
    assert "failed to load 'nobody'" in text
    _, text = error_of(send(channel, "caller", {"do": "unload", "model": "caller"}))
    assert "can't unload itself" in text


def test_a_model_that_asks_while_it_is_loaded(
    front: str, serve: Callable[..., Served], tmp_path: Path
) -> None:
    write_model(tmp_path / "puppet", "puppet", BATCHES + PUPPET)
    write_model(tmp_path / "hasty", "puppet", BATCHES + PUPPET)
    source = tmp_path / "hasty" / "1" / "model.py"
    asks = "pb_utils.InferenceRequest(model_name='puppet', requested_output_names=['Y']).exec()"
    begin = "self.instance = args"
    source.write_text(
        source.read_text().replace(
            begin, f"raise RuntimeError({asks}.error().message())\n        {begin}"
        )
    )
    server = serve(tmp_path, front).wait_ready()
    hasty = server.index()["hasty", "1"]
    assert "can't ask others for anything before it is loaded" in hasty["reason"]
    with pytest.raises(InferenceServerException):
        tritonclient.http.InferenceServerClient(server.http).infer("hasty", [])
