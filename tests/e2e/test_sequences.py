"""Stateful models over both protocols and both fronts, with NVIDIA's clients."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from served import FRONTS, Served
from stateful_models import write_stateful_models
from streamers import streamer
from supervised import eventually
from talkers import PROTOCOLS, Talker, bad_request, start_step, talker

pytestmark = [pytest.mark.e2e, pytest.mark.extension("sequence")]

START = "must specify the START flag on the first request of the sequence"
MODELS = ("tally_direct", "tally_oldest", "sums_direct", "sums_oldest", "sums_bare")


@pytest.fixture(scope="module", params=FRONTS)
def stateful(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of all stateful models, at whose end nothing may be left."""
    folder = tmp_path_factory.mktemp("stateful")
    write_stateful_models(folder)
    served = Served(folder, request.param)
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Of the client."""
    return str(request.param)


def test_the_extension_is_advertised(stateful: Served) -> None:
    assert "sequence" in stateful.get("/v2").json["extensions"]


@pytest.mark.parametrize("model", MODELS)
def test_interleaved_sequences_of_many_clients_keep_their_own_state(
    stateful: Served, protocol: str, model: str
) -> None:
    """There are more of them than slots."""

    def sums_of(number: int) -> list[float]:
        with talker(stateful, protocol, model) as client:
            flags = ["<", *("" for _ in range(8)), ">"]
            return [client.send(number, number, flag) for flag in flags]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(sums_of, range(1, 13)))
    assert found == [[number * count for count in range(1, 11)] for number in range(1, 13)]
    assert stateful.metric("penstock_sequences", model, state="active") == 0


@pytest.mark.parametrize("model", ["tally_oldest", "sums_direct"])
def test_an_id_may_be_a_text(stateful: Served, protocol: str, model: str) -> None:
    with talker(stateful, protocol, model) as client:
        assert client.send(1, "left-ü", "<") == 1
        assert client.send(10, "right", "<") == 10
        assert client.send(2, "left-ü", ">") == 3
        assert client.send(20, "right", ">") == 30


@pytest.mark.parametrize("model", ["tally_direct", "tally_oldest"])
def test_the_model_is_told_of_starts_ends_and_ids(
    stateful: Served, protocol: str, model: str
) -> None:
    with talker(stateful, protocol, model) as client:
        told = [client.told(1, "me", flags) for flags in ("<", "", ">", "<>")]
    assert [(line["START"], line["END"]) for line in told] == [
        (1, False),
        (0, False),
        (0, True),
        (1, True),
    ]
    assert [line["flags"] for line in told] == [1, 0, 2, 3]
    assert {(line["READY"], line["CORRID"], line["id"]) for line in told} == {(1.0, "me", "me")}


def test_numbers_reach_a_control_of_numbers_and_others_are_refused(
    stateful: Served, protocol: str
) -> None:
    with talker(stateful, protocol, "tally_number") as client:
        assert client.told(1, 2**31 - 1, "<>")["CORRID"] == 2**31 - 1
        status, text = client.refusal(1, 2**31, "<>")
        assert (status, "expected 2147483647 at most" in text) == (bad_request(protocol), True)
        assert "is the text 'seven'" in client.refusal(1, "seven", "<>")[1]


def test_clients_see_only_their_own_tensors(stateful: Served) -> None:
    for model in ("tally_direct", "sums_direct", "sums_bare"):
        metadata = stateful.get(f"/v2/models/{model}").json
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["X"]
        assert not {"SUM_AFTER"} & {tensor["name"] for tensor in metadata["outputs"]}
    with talker(stateful, "http", "tally_direct") as client:
        assert client.told(1, 1, "<>")["inputs"] == ["X"]


# ── slots and states ────────────────────────────────────────────────────────────────────────────────────────────────


def test_direct_a_sequence_keeps_its_row_and_rows_without_a_request_are_not_ready(
    stateful: Served, protocol: str
) -> None:
    with talker(stateful, protocol, "tally_direct") as client:
        assert [client.told(1, number, "<")["rows"] for number in (1, 2, 3)] == [1, 2, 3]
        assert client.told(1, 3)["rows"] == 3
        assert client.send(1, 3) == 3
        assert client.told(1, 1)["rows"] == 1
        for number in (1, 2, 3):
            client.send(1, number, ">")


def test_direct_waits_until_enough_slots_have_a_request(stateful: Served, protocol: str) -> None:
    with (
        talker(stateful, protocol, "tally_waits") as one,
        talker(stateful, protocol, "tally_waits") as two,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(one.told, 1, 1, "<>")
        pending = "nv_inference_pending_request_count"
        eventually(lambda: stateful.metric(pending, "tally_waits") == 1, "it does not wait")
        assert two.told(1, 2, "<>")["rows"] == 2
        assert first.result(30)["rows"] == 2


def test_a_model_without_batches_has_one_slot_an_instance(stateful: Served, protocol: str) -> None:
    with talker(stateful, protocol, "tally_one") as client:
        assert client.told(1, 1, "<", shape=[1])["CORRID"] == "1"
        assert client.send(4, 1, ">", shape=[1]) == 5


@pytest.mark.extension("streaming")
@pytest.mark.parametrize("model", ["tally_oldest", "sums_direct", "sums_bare"])
def test_sequences_over_one_stream(stateful: Served, model: str) -> None:
    """Their requests are sent without waiting for answers, which come in order."""
    flags = ["<", *("" for _ in range(8)), ">"]
    with streamer(stateful.grpc) as stream:
        for step, flag in enumerate(flags):
            for number in (1, 2, 3):
                options = {"sequence_start": flag == "<", "sequence_end": flag == ">"}
                array = np.full((1, 1), number, np.float32)
                stream.send(f"{number}-{step}", model, array, sequence_id=number, **options)
        for step in range(len(flags)):
            for number in (1, 2, 3):
                response = stream.next()
                assert response.id == f"{number}-{step}"
                names = [output.name for output in response.outputs]
                (total,) = np.frombuffer(
                    response.raw_output_contents[names.index("SUM")], np.float32
                )
                assert total == number * (step + 1)
        stream.send("late", model, np.ones((1, 1), np.float32), sequence_id=1)
        assert START in str(stream.next_error().message())


def test_an_implicit_state_begins_with_its_file_and_can_be_asked_for(
    stateful: Served, protocol: str
) -> None:
    with talker(stateful, protocol, "sums_from_ten") as client:
        assert client.send(1, 1, "<") == 11
        result = client.result(2, 1, outputs=["SUM_AFTER"])
        assert result.as_numpy("SUM_AFTER").tolist() == [[13]]
        assert result.as_numpy("SUM") is None
        assert client.send(1, 1, "<>") == 11


def test_a_start_of_an_active_sequence_begins_it_anew(stateful: Served, protocol: str) -> None:
    for model in ("tally_direct", "sums_oldest"):
        with talker(stateful, protocol, model) as client:
            assert client.send(5, 1, "<") == 5
            assert client.send(7, 1, "<") == 7
            assert client.send(1, 1, ">") == 8


def test_an_error_of_the_model_does_not_end_the_sequence(stateful: Served, protocol: str) -> None:
    with talker(stateful, protocol, "tally_oldest") as client:
        assert client.send(1, 1, "<") == 1
        assert client.refusal(1, 1, error="not today")[1] == "not today"
        assert "ValueError: boom" in client.refusal(1, 1, **{"raise": "boom"})[1]
        assert client.send(1, 1, ">") == 2


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["tally_direct", "sums_oldest"])
def test_what_belongs_to_no_sequence_is_refused_in_tritons_words(
    stateful: Served, protocol: str, model: str
) -> None:
    with talker(stateful, protocol, model) as client:
        for flags in ("", "<"):
            assert client.refusal(1, 0, flags) == (
                bad_request(protocol),
                f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID",
            )
        unknown = f"inference request for sequence 77 to model '{model}' {START}"
        for flags in ("", ">"):
            assert client.refusal(1, 77, flags) == (bad_request(protocol), unknown)
        client.send(1, 77, "<>")
        assert client.refusal(1, 77) == (bad_request(protocol), unknown)
        status, text = client.refusal(1, 77, "<", shape=[2, 1])
        assert status == bad_request(protocol)
        assert text == (
            f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
        )


def test_an_idle_sequence_ends_its_slot_is_free_and_its_client_is_told(
    stateful: Served, protocol: str
) -> None:
    model = "tally_idle"
    before = stateful.metric("penstock_ended_sequences_total", model, reason="idle")
    with talker(stateful, protocol, model) as client:
        for number in (1, 2):
            client.send(1, number, "<")
        # both slots are taken: this one waits until one of them is idle for too long
        assert client.send(1, 3, "<>") == 1
        status, text = client.refusal(1, 1)
    assert status == bad_request(protocol)
    assert text == (
        f"inference request for sequence 1 to model '{model}' {START}:"
        " the one before was idle for longer than 0.3 s and has ended"
    )
    eventually(
        lambda: (
            stateful.metric("penstock_ended_sequences_total", model, reason="idle") == before + 2
        ),
        "they have not ended",
    )
    assert "sequences were idle for longer than 0.3 s and have ended: " in stateful.log


# ── cancelled requests ──────────────────────────────────────────────────────────────────────────────────────────────


class Held:
    """Sequence 1 of a model runs a request, until `open`."""

    def __init__(self, server: Served, channel: grpc.Channel, folder: Path, model: str) -> None:
        self.server, self.channel, self.model = server, channel, model
        self._open = folder / "open"
        started = folder / "started"
        wait = {"started": str(started), "wait_for": str(self._open)}
        self.first = start_step(channel, model, 1, "<", **wait)
        eventually(started.exists, "the model got no request")

    def send(self, sequence_id: int, flags: str = "", **parameters: Any) -> Any:
        """One more, which waits."""
        waiting = self.waiting
        future = start_step(self.channel, self.model, sequence_id, flags, **parameters)
        eventually(lambda: self.waiting == waiting + 1, "it does not wait")
        return future

    @property
    def waiting(self) -> float:
        """How many requests wait."""
        return self.server.metric("nv_inference_pending_request_count", self.model)

    def open(self) -> None:
        """Let it go on."""
        self._open.touch()


@pytest.fixture
def held(stateful: Served, tmp_path: Path) -> Iterator[Held]:
    """The model has one slot."""
    with grpc.insecure_channel(stateful.grpc) as channel:
        one = Held(stateful, channel, tmp_path, "tally_oldest")
        yield one
        one.open()
        one.first.result(30)


def test_a_cancelled_request_leaves_and_its_sequence_goes_on(held: Held) -> None:
    second, third = held.send(1), held.send(1, ">")
    second.cancel()
    eventually(lambda: held.waiting == 1, "the cancelled one is left")
    held.open()
    assert sum_of(third.result(30)) == 2


def test_a_cancelled_end_ends_the_sequence_all_the_same(held: Held) -> None:
    end = held.send(1, ">")
    end.cancel()
    eventually(lambda: held.waiting == 0, "the cancelled one is left")
    held.open()
    held.first.result(30)
    eventually(
        lambda: held.server.metric("penstock_sequences", held.model, state="active") == 0,
        "its slot is taken",
    )
    with pytest.raises(grpc.RpcError, match=START):
        start_step(held.channel, held.model, 1).result(30)


def test_a_deadline_of_a_request_that_waits_does_not_end_its_sequence(held: Held) -> None:
    late = held.send(1, timeout=1_000_000)
    end = start_step(held.channel, held.model, 1, ">")
    with pytest.raises(grpc.RpcError, match="Request timeout expired") as caught:
        late.result(30)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    held.open()
    assert sum_of(end.result(30)) == 2


def sum_of(answer: Any) -> float:
    """SUM of a bare answer."""
    import numpy as np

    names = [output.name for output in answer.outputs]
    raw = answer.raw_output_contents[names.index("SUM")]
    return float(np.frombuffer(raw, np.float32)[0])


def test_two_clients_of_one_sequence_are_served_in_order_of_arrival(held: Held) -> None:
    others = [held.send(1) for _ in range(3)]
    held.open()
    assert [sum_of(other.result(30)) for other in others] == [2, 3, 4]
    start_step(held.channel, held.model, 1, ">").result(30)


def test_explain_tells_of_sequences(stateful: Served, protocol: str) -> None:
    with talker(stateful, protocol, "sums_direct") as client:
        client.send(1, "explained", "<")
        told = stateful.get("/v2/models/sums_direct/explain").json
        client.send(1, "explained", ">")
    assert told["sequences"]["strategy"] == "direct"
    assert told["sequences"]["active"] == 1
    assert told["instances"][0]["sequences"] == ["explained"]


def test_a_stateless_model_takes_no_notice_of_sequence_parameters(
    server: Served, protocol: str
) -> None:
    one = Talker(server, protocol, "puppet")
    try:
        assert one.result(1, 5).as_numpy("Y").tolist() == [[1]]
    finally:
        one.client.close()
