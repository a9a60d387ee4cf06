"""Ensembles over both protocols and both fronts, with NVIDIA's clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from ensemble_configs import ensemble, step
from ensemble_models import MODEL_REPO, write_ensemble, write_ensembles
from grpc_calls import failure, infer, infer_request
from penstock.types import Array
from puppets import failures, row, told
from served import FRONTS, Served, json_request, json_tensor
from shared_regions import PROTOCOLS, Client, region
from supervised import eventually
from talkers import talker

pytestmark = [pytest.mark.e2e, pytest.mark.extension("ensemble")]

RELOADS = 2


@pytest.fixture(scope="module", params=FRONTS)
def ensembles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of all ensembles, whose models can be loaded anew. At its end nothing may be left."""
    folder = tmp_path_factory.mktemp("models")
    write_ensembles(folder)
    flags = "--model-control-mode=explicit", "--load-model=*", "--allow-client-shm"
    served = Served(folder, request.param, *flags)
    try:
        yield served.wait_ready()
        assert served.stop() == 0, served.log
    finally:
        served.close()


@pytest.fixture
def channel(ensembles: Served) -> Iterator[grpc.Channel]:
    """A bare gRPC channel."""
    with grpc.insecure_channel(ensembles.grpc) as channel:
        yield channel


@pytest.fixture(params=PROTOCOLS)
def client(ensembles: Served, request: pytest.FixtureRequest) -> Iterator[Client]:
    """NVIDIA's, over each protocol."""
    with Client(ensembles, request.param) as client:
        yield client


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    """Shades, and what they show."""
    samples = np.load(MODEL_REPO / "digits" / "samples" / "held_out.npz")
    return samples["IMAGE"][:, 0], samples["label"]


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pipeline_reads_digits(client: Client, digits: tuple[Array, Array]) -> None:
    shades, labels = digits
    right = 0
    for start in range(0, 64, 8):
        sent = client.sent("SHADES", "UINT8", shades[start : start + 8])
        outputs = [client.output("DIGIT"), client.output("SCORES")]
        result = client.infer("reader", [sent], outputs)
        names = [int(name) for name in result.as_numpy("DIGIT").ravel()]
        assert names == result.as_numpy("SCORES").argmax(1).tolist()
        right += int(np.sum(names == labels[start : start + 8]))
    assert right > 60


def test_classes_have_the_labels_of_the_model_that_gives_them(
    ensembles: Served, digits: tuple[Array, Array]
) -> None:
    wanted = [{"name": "SCORES", "parameters": {"classification": 1}}]
    sent = json_tensor("SHADES", digits[0][:1], "UINT8")
    answer = ensembles.infer("reader", {"inputs": [sent], "outputs": wanted})
    (output,) = answer.json["outputs"]
    score, number, label = output["data"][0].split(":")
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert words[int(number)] == label
    assert 0 < float(score) <= 1


def test_an_ensemble_of_an_ensemble(client: Client) -> None:
    sent = client.sent("X", "FP32", row(1, 2, 3))
    result = client.infer("outer", [sent], [client.output("Y")])
    assert result.as_numpy("Y").tolist() == [[4, 8, 12]]


def test_tensors_in_shared_memory(client: Client) -> None:
    x = np.arange(40_000, dtype=np.float32).reshape(1, -1)
    with region(2 * x.nbytes) as shared:
        shared.put(x)
        shared.register(client.client)
        sent = client.input("X", "FP32", x.shape, shared.name, x.nbytes, 0)
        wanted = client.output("Y", shared.name, x.nbytes, x.nbytes)
        result = client.infer("chain", [sent], [wanted])
        assert client.place(result, "Y") == (shared.name, x.nbytes, x.nbytes)
        assert np.array_equal(shared.get("FP32", x.shape, x.nbytes), 2 * x)
        client.client.unregister_system_shared_memory()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sequences_go_through(ensembles: Served, protocol: str) -> None:
    with talker(ensembles, protocol, "sums") as one, talker(ensembles, protocol, "sums") as other:
        assert one.send(1, 7, "<") == 1
        assert other.send(10, "seven", "<") == 10
        assert one.send(2, 7) == 3
        assert other.send(20, "seven", ">") == 30
        assert one.send(3, 7, ">") == 6
        status, text = one.refusal(1, 7)
        assert "in ensemble 'sums', step 0 ('tally'): " in text
        assert status in ("400", "StatusCode.INVALID_ARGUMENT")


def test_what_comes_with_a_request_reaches_its_steps(channel: grpc.Channel) -> None:
    request = infer_request("chain", row(1), id="mine", parameters={"speed": "high"})
    line = told(infer(channel, request))
    assert (line["id"], line["parameters"]) == ("mine", {"speed": "high"})


# ── steps at the same time ──────────────────────────────────────────────────────────────────────────────────────────


def running(server: Served, model: str) -> int:
    """Requests that the model's workers have."""
    instances = server.get(f"/v2/models/{model}/explain").json["instances"]
    return sum(sum(instance["running_rows"]) for instance in instances)


def wait_running(server: Served, model: str) -> None:
    """Until a worker of the model has a request."""
    eventually(lambda: running(server, model) == 1, f"{model} does not run")


def test_branches_run_at_the_same_time(
    ensembles: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    with ThreadPoolExecutor(1) as pool:
        request = infer_request("branches", row(1), parameters={"wait_for": str(gate)})
        answer = pool.submit(infer, channel, request)
        wait_running(ensembles, "left")
        wait_running(ensembles, "right")
        explained = ensembles.get("/v2/models/branches/explain").json
        assert explained["under_way"]["requests"] == 1
        gate.touch()
        assert len(answer.result().outputs) == 2


def test_requests_are_batched_by_the_steps(
    ensembles: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    """While one holds the puppet up, others of ensembles, and its own ones, gather before it."""
    gate = tmp_path / "open"
    before = ensembles.statistics("puppet")["execution_count"]
    with ThreadPoolExecutor(8) as pool:
        held = infer_request("puppet", row(0), parameters={"wait_for": str(gate)})
        answers = [pool.submit(infer, channel, held)]
        wait_running(ensembles, "puppet")
        answers += [pool.submit(infer, channel, infer_request("chain", row(n))) for n in (1, 2, 3)]
        answers.append(pool.submit(infer, channel, infer_request("puppet", row(4))))

        def all_here() -> bool:
            waiting = ensembles.get("/v2/models/puppet/explain").json["queue"]["requests"]
            return bool(waiting + running(ensembles, "puppet") == 5)

        eventually(all_here, "they have not come")
        gate.touch()
        first = [np.frombuffer(a.result().raw_output_contents[0], np.float32) for a in answers]
    assert [value.tolist() for value in first] == [[0], [2], [4], [6], [4]]
    assert ensembles.statistics("puppet")["execution_count"] - before <= 3


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_names_ensemble_and_step(ensembles: Served, channel: grpc.Channel) -> None:
    parameters = {"error": "no such user", "code": "NOT_FOUND"}
    text = "in ensemble 'chain', step 1 ('puppet'): no such user"
    request = infer_request("chain", row(1), parameters=parameters)
    assert failure(channel, "ModelInfer", request) == ("NOT_FOUND", text)
    answer = ensembles.infer("chain", json_request(1.0, parameters=parameters))
    assert (answer.status, answer.error) == (404, text)
    outer = ensembles.infer("outer", json_request(1.0, parameters=parameters))
    assert outer.error == f"in ensemble 'outer', step 0 ('chain'): {text}"


def test_a_bad_request_is_the_ensembles_own_matter(ensembles: Served) -> None:
    answer = ensembles.infer("reader", json_request(1.0))
    assert answer.status == 400
    assert answer.error == ("unexpected inference input 'X' for model 'reader', expected SHADES")


def test_a_deadline_holds_in_every_step(ensembles: Served, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    body = json_request(1.0, parameters={"wait_for": str(gate)})
    answer = ensembles.infer("chain", body, x_request_timeout_ms="200")
    gate.touch()
    assert answer.status == 504
    assert answer.error.startswith(
        "in ensemble 'chain', step 1 ('puppet'): Request timeout expired for model 'puppet'"
    )


def test_who_goes_away_takes_the_steps_along(
    ensembles: Served, channel: grpc.Channel, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    before = [failures(ensembles, name, "CANCELED") for name in ("left", "right", "branches")]
    request = infer_request("branches", row(1), parameters={"wait_for": str(gate)})
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
        request.SerializeToString(), timeout=60
    )
    wait_running(ensembles, "left")
    call.cancel()

    def cancelled() -> bool:
        now = [failures(ensembles, name, "CANCELED") for name in ("left", "right", "branches")]
        return now == [count + 1 for count in before]

    eventually(cancelled, "the steps go on")
    gate.touch()
    under_way = ensembles.get("/v2/models/branches/explain").json["under_way"]
    assert (under_way["requests"], under_way["bytes"]) == (0, 0)


# ── what is told of them ────────────────────────────────────────────────────────────────────────────────────────────


def test_metadata_and_configuration(client: Client) -> None:
    as_json = {"as_json": True} if client.protocol == "grpc" else {}
    metadata = client.client.get_model_metadata("reader", **as_json)
    assert metadata["platform"] == "ensemble"
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["SCORES", "DIGIT"]
    config = client.client.get_model_config("reader", **as_json)
    config = config.get("config", config)
    steps = config["ensemble_scheduling"]["step"]
    assert [each["model_name"] for each in steps] == ["pixels", "digits", "winner"]
    assert steps[1]["input_map"] == {"IMAGE": "image"}
    assert client.client.is_model_ready("reader")


def test_statistics_count_requests_and_each_step(ensembles: Served, channel: grpc.Channel) -> None:
    names = ("chain", "doubled", "puppet")
    before = {name: ensembles.statistics(name)["inference_count"] for name in names}
    infer(channel, infer_request("chain", np.ones((3, 2), np.float32)))
    after = {name: ensembles.statistics(name)["inference_count"] for name in names}
    assert {name: after[name] - before[name] for name in names} == dict.fromkeys(names, 3)
    stats = ensembles.statistics("chain")["inference_stats"]
    assert stats["compute_infer"]["ns"] > 0
    assert ensembles.metric("nv_inference_count", "chain") == after["chain"]


def test_index_and_banner(ensembles: Served) -> None:
    line = ensembles.index()["lost", ""]
    assert line["state"] == "UNAVAILABLE"
    assert line["reason"].startswith("ensemble 'lost' depends on 'absent' which has no loaded")
    assert ensembles.index()["outer", "1"]["state"] == "READY"
    (shown,) = [text for text in ensembles.banner.splitlines() if text.split()[:1] == ["reader"]]
    assert shown.split() == ["reader", "1", "READY", "ensemble", "0"]


# ── models that change ──────────────────────────────────────────────────────────────────────────────────────────────


def test_models_are_loaded_anew_under_load(ensembles: Served) -> None:
    ended = threading.Event()
    answers, errors = [0, 0], []

    def ask(number: int) -> None:
        with grpc.insecure_channel(ensembles.grpc) as channel:
            while not ended.is_set():
                try:
                    answer = infer(channel, infer_request("outer", row(number)))
                    value = np.frombuffer(answer.raw_output_contents[0], np.float32).tolist()
                    assert value == [4 * number]
                    answers[number] += 1
                except Exception as error:  # noqa: BLE001 - any is a failure, and is shown
                    errors.append(repr(error))

    with (
        ThreadPoolExecutor(2) as pool,
        tritonclient.http.InferenceServerClient(ensembles.http) as admin,
    ):
        asking = [pool.submit(ask, number) for number in range(2)]
        try:
            for _ in range(RELOADS):
                for name in ("doubled", "puppet", "chain"):
                    admin.load_model(name)
            seen = list(answers)
            eventually(
                lambda: bool(errors) or all(a > s for a, s in zip(answers, seen, strict=True)),
                "no answers",
            )
        finally:
            ended.set()
        for each in asking:
            each.result()
    assert errors == []


def test_an_unloaded_model_takes_its_ensembles_along(ensembles: Served) -> None:
    with tritonclient.grpc.InferenceServerClient(ensembles.grpc) as admin:
        admin.unload_model("winner")
        assert not admin.is_model_ready("reader")
        reason = ensembles.index()["reader", "1"]["reason"]
        assert reason.startswith("step 2 ('winner'): ")
        answer = ensembles.infer("reader", json_request(1.0))
        assert (answer.status, reason in answer.error) == (503, True)
        admin.load_model("winner")
        assert admin.is_model_ready("reader")


def test_a_load_tells_what_does_not_fit(ensembles: Served) -> None:
    folder = Path(ensembles.settings.model_repository[0])
    write_ensemble(folder, ensemble(step("digits", "IMAGE=IN", "SCORES=OUT"), name="unfit"))
    with (
        tritonclient.grpc.InferenceServerClient(ensembles.grpc) as admin,
        pytest.raises(InferenceServerException) as raised,
    ):
        admin.load_model("unfit")
    assert (
        "tensor 'IN' has the shape [-1, 1] as input 'IN' of the ensemble, but input 'IMAGE' of"
        " step 0 ('digits') expects [-1, 1, 8, 8]"
    ) in str(raised.value)


@pytest.mark.extension("model_repository(unload_dependents)")
def test_what_an_ensemble_needs_comes_and_goes_with_it(ensembles: Served, client: Client) -> None:
    """Loaded for it, its steps are unloaded with it; what others need stays."""
    assert "model_repository(unload_dependents)" in ensembles.get("/v2").json["extensions"]
    names = ("branches", "left", "right")

    def ready() -> list[str]:
        index = ensembles.index()
        return [name for name in names if index[name, "1"]["state"] == "READY"]

    for name in names:
        client.client.unload_model(name)
    eventually(lambda: ready() == [], "they are not unloaded")
    client.client.load_model("branches")
    assert ready() == ["branches", "left", "right"]
    client.client.unload_model("branches")
    eventually(lambda: ready() == ["left", "right"], "the steps stay")
    client.client.load_model("branches")
    client.client.unload_model("branches", unload_dependents=True)
    eventually(lambda: ready() == [], "the steps are not unloaded")
    client.client.load_model("branches")
    assert ready() == ["branches", "left", "right"]
