"""Messages and descriptors over a real socket pair."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from descriptors import none_left
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.message import MESSAGE_LIMIT_BYTES, encode
from penstock.workers.supervisor_messages import GatewayFailed, decode_gateway_message
from penstock.workers.worker_commands import AttachSlab


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = Channel.pair()
    yield left, right
    left.close()
    right.close()


def memfd(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.pwrite(descriptor, content, 0)
    return descriptor


# the limit falls within the second and third: tag, length and text are one datagram together
@pytest.mark.parametrize("size", [0, MESSAGE_LIMIT_BYTES - 30, MESSAGE_LIMIT_BYTES, 1 << 20])
def test_a_message_of_any_size_comes_whole(ends: tuple[Channel, Channel], size: int) -> None:
    message = GatewayFailed("x" * size)
    with none_left():
        ends[0].send(message)
        data, descriptors = ends[1].receive()
    assert decode_gateway_message(data) == message
    assert descriptors == []


def test_the_limit_is_of_the_encoded_message(ends: tuple[Channel, Channel]) -> None:
    text = "x" * (MESSAGE_LIMIT_BYTES - len(encode(GatewayFailed("x" * 1000))) + 1000)
    for message in (GatewayFailed(text), GatewayFailed(text + "x")):
        ends[0].send(message)
        assert decode_gateway_message(ends[1].receive()[0]) == message


def test_messages_come_one_by_one_and_in_order(ends: tuple[Channel, Channel]) -> None:
    sent = [GatewayFailed("a" * size) for size in (1, MESSAGE_LIMIT_BYTES * 2, 3)]
    for message in sent:
        ends[0].send(message)
    assert [decode_gateway_message(ends[1].receive()[0]) for _ in sent] == sent


@pytest.mark.parametrize("size", [1, MESSAGE_LIMIT_BYTES * 2])
def test_a_descriptor_rides_along(ends: tuple[Channel, Channel], size: int) -> None:
    with none_left():
        ours = memfd(b"tensor")
        ends[0].send(GatewayFailed("x" * size), (ours,))
        os.close(ours)
        data, (theirs,) = ends[1].receive()
        assert decode_gateway_message(data) == GatewayFailed("x" * size)
        assert os.pread(theirs, 10, 0) == b"tensor"
        assert not os.get_inheritable(theirs)
        os.close(theirs)


def test_the_senders_descriptor_stays_its_own(ends: tuple[Channel, Channel]) -> None:
    ours = memfd(b"slab")
    ends[0].send(AttachSlab(0), (ours,))
    os.close(ends[1].receive()[1][0])
    assert os.pread(ours, 10, 0) == b"slab"
    os.close(ours)


def test_the_end_is_seen_after_what_was_sent_before_it(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(GatewayFailed("last words"))
    ends[0].close()
    assert decode_gateway_message(ends[1].receive()[0]) == GatewayFailed("last words")
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            ends[1].receive()


@pytest.mark.parametrize("size", [1, MESSAGE_LIMIT_BYTES * 2])
def test_sending_to_a_closed_end(ends: tuple[Channel, Channel], size: int) -> None:
    ends[1].close()
    with none_left(), pytest.raises(ChannelClosed):
        ends[0].send(GatewayFailed("x" * size))


def test_an_end_that_closes_with_unread_messages(ends: tuple[Channel, Channel]) -> None:
    ends[0].send(GatewayFailed("nobody reads this"))
    ends[1].close()
    with pytest.raises(ChannelClosed):
        ends[0].receive()


def test_a_non_blocking_end_with_nothing_to_read(ends: tuple[Channel, Channel]) -> None:
    ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[0].receive()


def test_an_inherited_descriptor_is_inherited_no_further() -> None:
    left, right = Channel.pair()
    inherited = os.dup(right.fileno())
    os.set_inheritable(inherited, True)
    with closing(left), closing(right), closing(Channel.from_fd(inherited)) as adopted:
        assert not os.get_inheritable(adopted.fileno())
        left.send(GatewayFailed("x"))
        assert decode_gateway_message(adopted.receive()[0]) == GatewayFailed("x")
