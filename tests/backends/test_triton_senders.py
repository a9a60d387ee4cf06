"""Response senders of Triton models: of decoupled ones, and of those that have one response for each request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from live_batches import Gateway, instance_of
from model_files import batch_of, each
from penstock.backends.base import LoadedModel, line_of
from penstock.backends.device_lost import DeviceLost
from penstock.errors import InvalidRequest, ModelFailed
from triton_models import XY, executing, loaded, row

DECOUPLED = XY | {"model_transaction_policy": {"decoupled": True}}

REPEAT = """
for request in requests:
    sender = request.get_response_sender()
    x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
    for value in x[0]:
        tensor = pb_utils.Tensor("Y", np.array([[value]], np.float32))
        sender.send(pb_utils.InferenceResponse([tensor]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

THREADS = """
import threading

def answer(sender, x):
    for value in x[0]:
        tensor = pb_utils.Tensor("Y", np.array([[value * value]], np.float32))
        sender.send(pb_utils.InferenceResponse([tensor]))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

for request in requests:
    x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
    threading.Thread(target=answer, args=(request.get_response_sender(), x)).start()
"""

Y1 = "pb_utils.InferenceResponse([pb_utils.Tensor('Y', np.array([[1.0]], np.float32))])"
FINAL = "pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL"


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def decoupled(model_dir: Path, body: str, **config: Any) -> LoadedModel:
    return loaded(model_dir, executing(body), DECOUPLED | config)


# ── decoupled ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_repeat(model_dir: Path, gateway: Gateway) -> None:
    model = decoupled(model_dir, REPEAT)
    gateway.run(model, row(1, 2, 3), row(4, 5, 6))
    told = [(0, 1), (0, 2), (0, 3), (0, "final"), (1, 4), (1, 5), (1, 6), (1, "final")]
    assert gateway.told(2) == told


def test_threads_that_go_on(model_dir: Path, gateway: Gateway) -> None:
    model = decoupled(model_dir, THREADS)
    gateway.run(model, row(1, 2), row(3, 4))
    told = gateway.told(2)
    assert [event for event in told if event[0] == 0] == [(0, 1), (0, 4), (0, "final")]
    assert [event for event in told if event[0] == 1] == [(1, 9), (1, 16), (1, "final")]


@pytest.mark.parametrize("stays", [True, False])
def test_a_coroutine(model_dir: Path, gateway: Gateway, stays: bool) -> None:
    """Several run beside each other; one that fails ends its own requests."""
    source = f"""
import asyncio
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.second = None

    async def execute(self, requests):
        if self.second is None:
            self.second = asyncio.Event()
            await self.second.wait()
        else:
            self.second.set()
        if not {stays}:
            raise ValueError("no\\nluck")
        for request in requests:
            request.get_response_sender().send({Y1}, {FINAL})
"""
    model = loaded(model_dir, source, DECOUPLED)
    gateway.run(model, row(1))
    assert gateway.responses == []
    gateway.run(model, row(2))
    what: Any = 1
    if not stays:
        what = (
            "Failed to process the request(s) for model instance 'tiny_0_0', message:"
            " ValueError: no luck"
        )
    assert gateway.told(2) == [(0, what, "final")] * 2
    model.close()


def test_a_coroutine_that_still_runs_when_the_model_goes(model_dir: Path, gateway: Gateway) -> None:
    source = """
import asyncio

class TritonPythonModel:
    async def execute(self, requests):
        await asyncio.Event().wait()
"""
    model = loaded(model_dir, source, DECOUPLED)
    gateway.run(model, row(1))
    model.close()
    (event,) = gateway.told()
    assert event[-1] == "final"


def test_a_coroutine_that_lost_the_gpu_ends_the_process_with_the_next_batch(
    model_dir: Path, gateway: Gateway
) -> None:
    """It runs in another thread, which can't."""
    source = """
class TritonPythonModel:
    async def execute(self, requests):
        import torch
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
"""
    model = loaded(model_dir, source, DECOUPLED)
    gateway.run(model, row(1))
    ((_, what, final),) = gateway.told()
    assert (str(what).rpartition(": ")[2], final) == ("device-side assert triggered", "final")
    with pytest.raises(DeviceLost, match="device-side assert"):
        gateway.run(model, row(1))
    model.close()


def test_what_was_asked_for_and_parameters(model_dir: Path, gateway: Gateway) -> None:
    outputs = [*XY["output"], {"name": "Z", "data_type": "TYPE_FP32", "dims": [-1]}]
    body = f"""
for request in requests:
    tensors = [pb_utils.Tensor(n, np.array([[1.0]], np.float32)) for n in request.requested_output_names()]
    tensors.append(pb_utils.Tensor("Y", np.array([[5.0]], np.float32)))
    response = pb_utils.InferenceResponse(tensors, parameters={{"a": 1, "b": "x"}})
    assert response.parameters() == '{{"a": 1, "b": "x"}}'
    request.get_response_sender().send(response, {FINAL})
"""
    gateway.run(decoupled(model_dir, body, output=outputs), row(1), outputs=[["Z"]])
    (response,) = gateway.responses
    assert [output.name for output in response.outputs or ()] == ["Z"]
    assert response.parameters == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ("[1]", "the response's parameters are a list, expected a dict"),
        ("{'a': None}", "the response's parameter 'a' is a NoneType, expected names that are str"),
        ("{1: 1}", "the response's parameter 1 is a int, expected names that are str"),
        ("{'a': 2**64}", "the response's parameter 'a' is 18446744073709551616, which has over 64"),
        ("{'a': '\\ud800'}", "the response's parameter 'a' is no Unicode text"),
    ],
)
def test_parameters_that_no_protocol_can_carry(
    model_dir: Path, gateway: Gateway, parameters: str, text: str
) -> None:
    body = f"""
for request in requests:
    request.get_response_sender().send(pb_utils.InferenceResponse([], parameters={parameters}), {FINAL})
"""
    gateway.run(decoupled(model_dir, body), row(1))
    ((_, told, final),) = gateway.told()
    assert told.startswith(text) and final == "final"
    (answer,) = each(
        loaded(
            model_dir,
            executing(f"return [pb_utils.InferenceResponse([], parameters={parameters})]"),
        ).execute(gateway.plain(row(1)))
    )
    assert isinstance(answer, ModelFailed) and str(answer).startswith(text)


def test_errors_as_responses(model_dir: Path, gateway: Gateway) -> None:
    body = f"""
sender = requests[0].get_response_sender()
error = pb_utils.TritonError("hm", pb_utils.TritonError.INVALID_ARG)
sender.send(pb_utils.InferenceResponse(error=error))
sender.send({Y1}, {FINAL})
"""
    gateway.run(decoupled(model_dir, body), row(1))
    error = gateway.responses[0].error
    assert error is not None and (error.reason, error.kind) == ("hm", InvalidRequest.__name__)
    assert gateway.told() == [(0, "hm"), (0, 1, "final")]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("sender.send()", "Inference Response object must be provided when the response flags is"),
        (f"sender.send({Y1}, 2)", "Unable to send response. Unsupported flag provided."),
        ("sender.send('text')", "send needs an InferenceResponse, got str"),
        (
            f"sender.send(flags={FINAL}); sender.send({Y1})",
            "Unable to send response. Response sender has been closed.",
        ),
        (
            f"sender.send({Y1}, {FINAL}); sender.send(flags={FINAL})",
            "Unable to send response. Response sender has been closed.",
        ),
    ],
)
def test_wrong_calls_raise_and_the_request_still_ends(
    model_dir: Path, gateway: Gateway, call: str, text: str
) -> None:
    body = f"""
sender = requests[0].get_response_sender()
try:
    {call}
except Exception as error:
    self.caught = str(error)
"""
    model = decoupled(model_dir, body)
    gateway.run(model, row(1))
    assert instance_of(model).caught.startswith(text)
    assert gateway.told()[-1][-1] == "final"


def test_execute_of_a_decoupled_model_returns_none(model_dir: Path, gateway: Gateway) -> None:
    gateway.run(decoupled(model_dir, f"return [{Y1}]"), row(1), row(2))
    text = (
        "Failed to process the request(s) for model instance 'tiny_0_0', message: Python model"
        " 'tiny_0_0' is using the decoupled mode and the execute function must return None."
    )
    assert gateway.told(2) == [(0, text, "final"), (1, text, "final")]


def test_cancellations_are_seen_by_requests_and_senders(model_dir: Path, gateway: Gateway) -> None:
    body = """
self.senders = [request.get_response_sender() for request in requests]
self.requests = requests
"""
    model = decoupled(model_dir, body)
    gateway.run(model, row(1), row(2))
    instance = instance_of(model)
    gateway.cancel(1)
    for both in (instance.senders, instance.requests):
        assert [each.is_cancelled() for each in both] == [False, True]


def test_outputs_are_reshaped_as_configured(model_dir: Path, gateway: Gateway) -> None:
    output = {"name": "Y", "data_type": "TYPE_FP32", "dims": [2, 2], "reshape": {"shape": [4]}}
    body = f"""
for request in requests:
    sender = request.get_response_sender()
    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.ones((1, 4), np.float32))]))
    sender.send({Y1})
    sender.send(flags={FINAL})
"""
    gateway.run(decoupled(model_dir, body, output=[output]), row(1))
    first, second, _ = gateway.responses
    assert [output.shape for output in first.outputs or ()] == [(1, 2, 2)]
    assert second.error is not None and "can't be reshaped" in second.error.reason


# ── one response each ───────────────────────────────────────────────────────────────────────────────────────────────


def only(model_dir: Path, gateway: Gateway, body: str, requests: int = 1) -> list[Any]:
    """The answers of a model that is not decoupled: values, or errors' texts."""
    model = loaded(model_dir, executing(body))
    answers = each(model.execute(gateway.plain(*[row(n) for n in range(requests)])))
    return [str(a) if isinstance(a, Exception) else a["Y"].tolist() for a in answers]


def test_the_one_response_may_be_sent(model_dir: Path, gateway: Gateway) -> None:
    body = f"requests[0].get_response_sender().send({Y1}, {FINAL})"
    assert only(model_dir, gateway, body) == [[[1]]]
    assert only(model_dir, gateway, f"{body}\nreturn [None, {Y1}]", 2) == [[[1]], [[1]]]


def test_it_may_be_sent_by_a_thread_that_execute_does_not_wait_for(
    model_dir: Path, gateway: Gateway
) -> None:
    body = f"""
import threading
def answer(sender):
    sender.send({Y1})
    sender.send(flags={FINAL})
for request in requests:
    threading.Timer(0.05, answer, (request.get_response_sender(),)).start()
"""
    assert only(model_dir, gateway, body, 3) == [[[1]]] * 3


def test_a_coroutine_may_return_it(model_dir: Path, gateway: Gateway) -> None:
    source = executing(f"return [{Y1}]").replace("def execute", "async def execute")
    model = loaded(model_dir, source)
    (answer,) = each(model.execute(gateway.plain(row(1))))
    assert answer["Y"].tolist() == [[1]]
    model.close()


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        (
            f"send({Y1}); send({Y1})",
            "Unable to send response. Non-decoupled model cannot send more",
        ),
        (f"send(flags={FINAL})", "Unable to send response. Non-decoupled model cannot send compl"),
        (f"send({Y1}, {FINAL}); send(flags={FINAL})", "Unable to send response. Response sender h"),
    ],
)
def test_wrong_calls_raise(model_dir: Path, gateway: Gateway, calls: str, text: str) -> None:
    body = f"send = requests[0].get_response_sender().send\n{calls}"
    with pytest.raises(ModelFailed) as caught:
        only(model_dir, gateway, body)
    assert text in str(caught.value)


def test_no_response_or_two_of_them(model_dir: Path, gateway: Gateway) -> None:
    body = f"""
first, second, third = [request.get_response_sender() for request in requests]
assert requests[0].get_response_sender() is first
first.send({Y1})
return [{Y1}, None, {Y1}]
"""
    assert only(model_dir, gateway, body, 3) == [
        "Unable to send response. Non-decoupled model cannot send more than one response.",
        "the model returned None for this request, no InferenceResponse",
        [[1]],
    ]


def test_parameters_and_cancellations(model_dir: Path, gateway: Gateway) -> None:
    body = """
responses = []
for request in requests:
    told = {"cancelled": request.is_cancelled()}
    assert request.get_response_sender().is_cancelled() == told["cancelled"]
    responses.append(pb_utils.InferenceResponse([], parameters=told))
return responses
"""
    batch = gateway.plain(row(1), row(2))
    gateway.cancel(1)
    each(loaded(model_dir, executing(body)).execute(batch))
    lines = [line_of(request) for request in batch.requests]
    assert [dict(line.parameters) for line in lines if line is not None] == [
        {"cancelled": False},
        {"cancelled": True},
    ]


def test_without_a_server_around(model_dir: Path) -> None:
    model = loaded(model_dir, executing(f"requests[0].get_response_sender().send({Y1}, {FINAL})"))
    (answer,) = each(model.execute(batch_of(row(1))))
    assert answer["Y"].tolist() == [[1]]
    body = "pb_utils.InferenceRequest(model_name='other').get_response_sender()"
    with pytest.raises(ModelFailed, match="only requests that execute was given have a response"):
        loaded(model_dir, executing(body)).execute(batch_of(row(1)))
