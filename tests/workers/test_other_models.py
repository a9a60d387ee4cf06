"""What a worker's model asks of others: over a real channel, from the main thread, other threads, and event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest
from ml_dtypes import bfloat16

from penstock.backends.base import ModelAnswer, ModelRequest
from penstock.errors import InvalidRequest, ModelFailed, Unavailable
from penstock.tensors import serialize_bytes
from penstock.types import Array
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.inbox import Inbox
from penstock.workers.message_parts import RequestError, ResponseTensor
from penstock.workers.other_models import GONE, OtherModels
from penstock.workers.worker_commands import CallAnswered, Execute, Reset
from penstock.workers.worker_events import (
    CallModel,
    CallTaken,
    CancelCall,
    ControlModel,
    decode_worker_event,
)

ONES = np.ones((2, 3), np.float32)
EXECUTE = Execute(7, 0, (), (), 0)


class Gateway:
    """The other end, which the test plays."""

    def __init__(self) -> None:
        self.worker_end, self.channel = Channel.pair()
        self.inbox = Inbox(self.worker_end)
        self.others = OtherModels(self.inbox)

    def asked(self) -> Any:
        """The worker's next message."""
        return decode_worker_event(self.channel.receive()[0])

    def answer(
        self,
        asked: CallModel,
        *tensors: ResponseTensor,
        error: RequestError | None = None,
        final: bool = True,
    ) -> None:
        """By default with the inputs."""
        self.channel.send(CallAnswered(asked.call, tensors or asked.inputs, {"p": 1}, error, final))


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.inbox.close()
    made.worker_end.close()
    made.channel.close()


def request(decoupled: bool = False, **inputs: Array) -> ModelRequest:
    return ModelRequest("m", "", inputs or {"X": ONES}, decoupled=decoupled)


@pytest.mark.parametrize(
    "array",
    [
        ONES,
        np.ones((0, 3), np.int64),
        np.array(5, np.uint8),
        np.ones((4, 4), np.float16)[::2, 1:],
        np.array([1.5], bfloat16),
        np.array([[b"a", "ü"], [b"", "longer"]], object),
        np.array(["x", "yz"]),
        np.arange(100_000, dtype=np.float64),
    ],
)
def test_arrays_there_and_back(gateway: Gateway, array: Array) -> None:
    call = gateway.others.ask(request(X=array))
    gateway.answer(gateway.asked())
    answer = call.next()
    got = answer.outputs["X"]
    assert answer.final and answer.error is None and answer.parameters == {"p": 1}
    assert got.shape == array.shape and got.flags.writeable
    if array.dtype.kind in "OSU":
        assert serialize_bytes(got) == serialize_bytes(array)
    else:
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_what_is_asked_says_all(gateway: Gateway) -> None:
    asked = ModelRequest("m", "3", {}, ("A",), "id", {"k": "v"}, True, 5, (0, 2))
    gateway.others.ask(asked)
    told = gateway.asked()
    assert msgspec.structs.replace(told, call=0) == CallModel(
        0, 5, (0, 2), "m", "3", "id", (), ("A",), {"k": "v"}, True
    )


def test_an_array_that_no_datatype_stands_for(gateway: Gateway) -> None:
    with pytest.raises(InvalidRequest, match="input 'X' has dtype complex128"):
        gateway.others.ask(request(X=np.ones(1, complex)))


@pytest.mark.parametrize(
    "wrong",
    [{"model": None}, {"version": 1}, {"outputs": (5,)}, {"parameters": {"p": [1]}}, {"id": b"x"}],
)
def test_what_no_message_can_hold_is_refused_at_once(
    gateway: Gateway, wrong: dict[str, Any]
) -> None:
    """The gateway could not read it: the model would wait for ever."""
    asked = ModelRequest(**{"model": "m", "version": "", "inputs": {"X": ONES}} | wrong)
    with pytest.raises(InvalidRequest, match="other models can't be asked this: Expected"):
        gateway.others.ask(asked)
    text: Any = None
    with pytest.raises(InvalidRequest, match="other models can't be asked this: Expected"):
        gateway.others.load("m", text, {})
    good = ModelRequest("m", "", {}, ("Y",), "i", {"a": 1, "b": True, "c": 0.5, "d": "e"})
    gateway.others.ask(good)
    assert gateway.asked().parameters == good.parameters


def test_an_error_is_an_answer(gateway: Gateway) -> None:
    call = gateway.others.ask(request())
    gateway.answer(gateway.asked(), error=RequestError(0, "no", "Unavailable"))
    answer = call.next()
    assert isinstance(answer.error, Unavailable) and str(answer.error) == "no"
    call = gateway.others.ask(request())
    gateway.answer(gateway.asked(), error=RequestError(0, "no", "Unheard"))
    assert isinstance(call.next().error, ModelFailed)


def test_commands_that_come_meanwhile_wait_for_the_main_loop(gateway: Gateway) -> None:
    call = gateway.others.ask(request())
    gateway.channel.send(EXECUTE)
    gateway.answer(gateway.asked())
    assert call.next().final
    assert gateway.inbox.take()[0] == EXECUTE


def test_threads_get_their_own_answers_while_the_main_loop_reads(gateway: Gateway) -> None:
    def ask(number: int) -> float:
        answer = gateway.others.ask(request(X=np.array([number], np.float64))).next()
        return float(answer.outputs["X"][0])

    main = Thread(target=gateway.inbox.take)
    main.start()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(40)]
        asked = [gateway.asked() for _ in range(8)]
        for _ in range(32):
            gateway.answer(asked.pop())
            asked.append(gateway.asked())
        while asked:
            gateway.answer(asked.pop())
        assert [answer.result() for answer in answers] == list(range(40))
    gateway.channel.send(EXECUTE)
    main.join()


async def test_tasks_get_their_own_answers(gateway: Gateway) -> None:
    calls = [gateway.others.ask(request(X=np.array([n], np.float64))) for n in range(20)]
    waiting = [asyncio.ensure_future(call.next_async()) for call in calls]
    await asyncio.sleep(0)
    for asked in reversed([gateway.asked() for _ in calls]):
        gateway.answer(asked)
    answers = await asyncio.gather(*waiting)
    assert [float(answer.outputs["X"][0]) for answer in answers] == list(range(20))
    # one that comes when the reader may be about to end
    for _ in range(50):
        call = gateway.others.ask(request())
        gateway.answer(gateway.asked())
        assert (await call.next_async()).final


async def test_a_task_that_is_cancelled_leaves_its_answer_alone(gateway: Gateway) -> None:
    call = gateway.others.ask(request())
    waiting = asyncio.ensure_future(call.next_async())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gateway.answer(gateway.asked())
    other = gateway.others.ask(request())
    gateway.answer(gateway.asked())
    assert (await other.next_async()).final
    assert call.next().final


def test_many_responses_are_taken_one_by_one(gateway: Gateway) -> None:
    call = gateway.others.ask(request(decoupled=True))
    asked = gateway.asked()
    gateway.answer(asked, final=False)
    gateway.answer(asked)
    assert not call.next().final
    assert gateway.asked() == CallTaken(asked.call)
    assert call.next().final
    call.cancel()
    gateway.others.ask(request())
    assert isinstance(gateway.asked(), CallModel), "what is over is not cancelled"


def test_cancelling_is_told(gateway: Gateway) -> None:
    call = gateway.others.ask(request())
    asked = gateway.asked()
    call.cancel()
    assert gateway.asked() == CancelCall(asked.call)


def test_models_are_loaded_and_unloaded(gateway: Gateway) -> None:
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(gateway.others.load, "m", "{}", {"file:1/model.py": b"x"})
        asked = gateway.asked()
        expected = ControlModel(asked.call, "load", "m", "", "{}", {"file:1/model.py": b"x"}, False)
        assert asked == expected
        gateway.channel.send(CallAnswered(asked.call, (), {}, None, True))
        done.result()
        done = pool.submit(gateway.others.unload, "m", unload_dependents=True)
        asked = gateway.asked()
        assert (asked.action, asked.unload_dependents) == ("unload", True)
        refusal = RequestError(0, "not allowed", "Unavailable")
        gateway.channel.send(CallAnswered(asked.call, (), {}, refusal, True))
        with pytest.raises(Unavailable, match="not allowed"):
            done.result()


def gone(answer: ModelAnswer) -> bool:
    return str(answer.error) == GONE and answer.final


def test_nobody_waits_for_a_gateway_that_is_gone(gateway: Gateway) -> None:
    calls = [gateway.others.ask(request()) for _ in range(3)]
    gateway.channel.close()
    assert all(gone(call.next()) for call in calls)
    assert gone(gateway.others.ask(request()).next())
    with pytest.raises(ChannelClosed):
        gateway.inbox.take()


async def test_no_task_waits_for_a_gateway_that_is_gone(gateway: Gateway) -> None:
    waiting = [asyncio.ensure_future(gateway.others.ask(request()).next_async()) for _ in range(3)]
    await asyncio.sleep(0)
    gateway.channel.close()
    assert all(gone(answer) for answer in await asyncio.gather(*waiting))


def test_the_next_gateway_does_not_answer_what_the_last_one_was_asked(gateway: Gateway) -> None:
    call = gateway.others.ask(request())
    gateway.channel.send(Reset(5))
    assert gone(call.next())
    assert gateway.inbox.take()[0] == Reset(5)


# ── who waits for something else ────────────────────────────────────────────────────────────────────────────────────


def test_who_waits_for_another_answer_holds_nobody_up(gateway: Gateway) -> None:
    """The model that sends the responses may be the one that is to answer."""
    stream = gateway.others.ask(request(decoupled=True))
    sent = gateway.asked()
    gateway.answer(sent, final=False)
    assert not stream.next().final
    assert gateway.asked() == CallTaken(sent.call)
    other = gateway.others.ask(request())
    asked = gateway.asked()
    gateway.answer(sent, final=False)
    gateway.answer(sent, final=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.next)
        assert [gateway.asked() for _ in range(2)] == [CallTaken(sent.call)] * 2
        gateway.answer(asked)
        assert waiting.result().final
    assert not stream.next().final
    assert not stream.next().final
    gateway.answer(sent, final=False)
    assert not stream.next().final
    assert gateway.asked() == CallTaken(sent.call), "what was told is not told again"


async def test_a_task_that_waits_for_another_answer_holds_nobody_up(gateway: Gateway) -> None:
    stream = gateway.others.ask(request(decoupled=True))
    sent = gateway.asked()
    other = gateway.others.ask(request())
    asked = gateway.asked()
    gateway.answer(sent, final=False)
    waiting = asyncio.ensure_future(other.next_async())
    assert await asyncio.to_thread(gateway.asked) == CallTaken(sent.call)
    gateway.answer(asked)
    assert (await waiting).final
    gateway.answer(sent)
    assert not (await stream.next_async()).final
    assert (await stream.next_async()).final


def test_who_is_slow_is_waited_for_though_others_wait(gateway: Gateway) -> None:
    """They are at work for other requests."""
    slow = gateway.others.ask(ModelRequest("m", "", {"X": ONES}, decoupled=True, batch=1))
    sent = gateway.asked()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(gateway.others.ask, ModelRequest("m", "", {"X": ONES}, batch=2))
        asked = gateway.asked()
        waiting = pool.submit(other.result().next)
        gateway.answer(sent, final=False)
        gateway.answer(asked)
        assert waiting.result().final
    gateway.others.ask(request())
    assert isinstance(gateway.asked(), CallModel), "nothing was taken"
    assert not slow.next().final
    assert gateway.asked() == CallTaken(sent.call)


def test_a_call_may_be_cancelled_by_a_finalizer_in_the_middle_of_a_send(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = gateway.others.ask(request(decoupled=True))
    number = gateway.asked().call
    send = Channel.send

    def send_and_collect(channel: Channel, *message: Any) -> None:
        monkeypatch.undo()
        call.cancel()
        send(channel, *message)

    monkeypatch.setattr(Channel, "send", send_and_collect)
    asking = Thread(target=gateway.others.ask, args=(request(),), daemon=True)
    asking.start()
    assert isinstance(gateway.asked(), CallModel)
    assert gateway.asked() == CancelCall(number)
    asking.join()
