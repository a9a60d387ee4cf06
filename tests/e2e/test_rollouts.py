"""Roll-outs on a running server, on both fronts: bad versions are taken back, and no client has seen them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc

from ensemble_configs import ensemble, pbtxt, step, tensor
from penstock.audit.lines import Record
from penstock.audit.reading import Filter, records
from penstock.cli import main
from rollout_models import (
    QUICK_GUARDS,
    asking,
    failures,
    plan,
    versions,
    write_version,
    write_versions,
)
from served import FRONTS, Served, json_request
from supervised import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.extension("rollouts")]

GOOD, ERRORS, NAN, SLOW, BROKEN, OFF = range(2, 8)
FAULTS: Final = {
    1: {},
    GOOD: {},
    ERRORS: {"errors": 0.4},
    NAN: {"nan": 0.4},
    SLOW: {"slower": 1.3},
    BROKEN: {"errors": 1.0},
    OFF: {"off": 1.0},
}
"""Versions of the model `m`."""
GUARDS: Final = {ERRORS: ("errors", "failing"), NAN: ("non_finite",), SLOW: ("latency",)}
"""What takes them back."""
LONG: Final[dict[str, Any]] = {"steps": [100], "step_s": 3600}
DECOUPLED: Final = "model_transaction_policy { decoupled: true }"


@pytest.fixture(scope="module", params=FRONTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of versions that are as `FAULTS` says. At its end nothing may be left."""
    folder = tmp_path_factory.mktemp("rollouts")
    models = folder / "models"
    write_versions(models / "m", FAULTS)
    write_versions(models / "cached", {1: {}, 2: {"off": 1}}, "response_cache { enable: true }")
    write_versions(models / "torrent", {1: {}, 2: {"errors": 1}}, DECOUPLED, "torrent")
    (models / "whole" / "1").mkdir(parents=True)
    whole = ensemble(
        step("m", "X=IN", "Y=OUT"),
        name="whole",
        input=[tensor("IN", dims=[2])],
        output=[tensor("OUT", dims=[2])],
    )
    (models / "whole" / "config.pbtxt").write_text(pbtxt(whole))
    served = Served(
        models,
        request.param,
        "--model-control-mode=explicit",
        f"--rollouts-folder={folder / 'rollouts'}",
        f"--audit-folder={folder / 'audit'}",
        "--audit-inferences=true",
        "--cache-config=local,size=1048576",
    )
    try:
        served.wait_ready()
        # one after the other: eleven workers at once are many for a machine that does other things too
        for model in ("cached", "torrent", "m", "whole"):
            answer = served.request("POST", f"/v2/repository/models/{model}/load")
            assert answer.status == 200, answer.body
        yield served
        assert served.stop() == 0, served.log
    finally:
        served.close()


def begin(server: Served, to: int, model: str = "m", **changes: Any) -> dict[str, Any]:
    """Try a version, from version 1."""
    guards = {**QUICK_GUARDS, **changes.pop("guards", {})}
    asked = plan(to, **{"from": 1}, **changes, guards=guards)
    answer = server.request("POST", f"/v2/models/{model}/rollout", asked)
    assert answer.status == 200, answer.body
    view = answer.json
    assert isinstance(view, dict)
    return view


def view_of(server: Served, model: str = "m") -> dict[str, Any]:
    """As it is now."""
    view = server.get(f"/v2/models/{model}/rollout").json
    assert isinstance(view, dict)
    return view


def ended(server: Served) -> dict[str, Any]:
    """As it is when it is over."""
    eventually(lambda: bool(view_of(server)["ended_at"]), "it does not end", 60)
    return view_of(server)


def abort(server: Served, model: str = "m") -> None:
    """Go back to version 1."""
    assert server.request("POST", f"/v2/models/{model}/rollout/abort").status == 200


def recorded(server: Served, action: str) -> list[Record]:
    """What the audit log has."""
    folder = server.settings.audit.folder
    assert folder is not None
    return records(folder, Filter(action=action, limit=10**6))


def answered_by(server: Served) -> Counter[str]:
    """How often each version of `m` has answered, by the audit log."""
    events = [event for event in recorded(server, "infer") if event.model == "m"]
    return Counter(event.details["version"] for event in events if event.outcome == "done")


@pytest.mark.parametrize("to", GUARDS)
def test_a_bad_version_is_taken_back_and_no_client_has_seen_it(server: Served, to: int) -> None:
    before = answered_by(server)
    begin(server, to, steps=[50, 100], step_s=3600)
    with asking(server, "m") as clients:
        view = ended(server)
        answered = versions(clients)["1"]
        eventually(lambda: versions(clients)["1"] > answered + 20, "no answers")
    assert failures(clients) == []
    assert (view["status"], view["decision"]["guard"] in GUARDS[to]) == ("rolled_back", True), view
    # with what was under way when it ended
    counts = view_of(server)["counts"]
    failed = counts["candidate"]["errors"] + counts["candidate"]["non_finite"]
    assert counts["seen_failures"] == 0
    assert counts["fallbacks"] == failed
    assert bool(failed) == (to != SLOW)
    # each answer is of the version that it names, and so does the audit log have it
    seen = versions(clients)
    assert seen[str(to)] == counts["candidate"]["requests"] - failed
    eventually(lambda: answered_by(server) - before == seen, "the audit log has it otherwise")
    told = recorded(server, "rollout.rollback")[-1]
    assert (told.details["stable"], told.details["candidate"]) == ("1", str(to))
    assert told.details["guard"] == view["decision"]["guard"]
    metrics = server.metrics()
    assert metrics[f'penstock_rollout_share{{model="m",version="{to}"}}'] == 0
    assert metrics['penstock_rollout_state{model="m",state="rolled_back"}'] == 1
    name = f'penstock_rollout_requests_total{{model="m",role="candidate",version="{to}"}}'
    assert metrics[name] == counts["candidate"]["requests"]
    assert metrics['penstock_rollout_seen_failures_total{model="m"}'] == 0


def test_without_fallback_clients_see_what_is_counted(server: Served) -> None:
    begin(server, BROKEN, fallback=False, steps=[50, 100], step_s=3600)
    with asking(server, "m") as clients:
        view = ended(server)
    assert view["status"] == "rolled_back"
    counts = view_of(server)["counts"]
    assert len(failures(clients)) == counts["seen_failures"] == counts["candidate"]["requests"] > 0
    assert counts["fallbacks"] == 0


def test_in_shadow_mode_no_client_gets_the_other_versions_answer(server: Served) -> None:
    begin(server, OFF, mode="shadow", steps=[100], step_s=3600)
    with asking(server, "m") as clients:
        view = ended(server)
    assert failures(clients) == []
    assert set(versions(clients)) == {"1"}
    assert (view["status"], view["decision"]["guard"]) == ("rolled_back", "mismatches"), view
    counts = view_of(server)["counts"]
    assert counts["mismatches"] == counts["candidate"]["requests"] > 0


def test_a_step_of_an_ensemble_is_rolled_out_too(server: Served) -> None:
    request = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}

    def asked() -> list[float]:
        data = server.infer("whole", request).json["outputs"][0]["data"]
        assert isinstance(data, list)
        return data

    begin(server, OFF, **LONG)
    assert asked() == [4, 6]
    assert view_of(server)["counts"]["candidate"]["requests"] == 1
    abort(server)
    assert asked() == [3, 5]


def test_every_wire_names_the_version_that_has_answered(server: Served) -> None:
    begin(server, BROKEN, **LONG)
    begin(server, 2, "torrent", **LONG)
    request = json_request(1, 2)
    answer = server.infer("m", request).json
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("1", [3, 5])
    answer = server.request("POST", "/v2/models/m/generate", {"X": [1, 2]}).json
    assert (answer["model_version"], answer["Y"]) == ("1", [3, 5])
    answer = server.request("POST", "/v1/models/m:predict", '{"instances": [[1, 2]]}').json
    assert answer == {"predictions": [[3, 5]]}
    sent = tritonclient.grpc.InferInput("X", [1, 2], "FP32")
    sent.set_data_from_numpy(np.array([[1, 2]], np.float32))
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        result: Any = client.infer("m", [sent], request_id="a")
        assert (result.get_response().model_version, result.get_response().id) == ("1", "a")
        assert _streamed(client, "m", sent) == ["1"]
        assert _streamed(client, "torrent", sent) == ["1", "1"]
    # who names the bad version gets what that says
    assert server.request("POST", f"/v2/models/m/versions/{BROKEN}/infer", request).status == 500
    for model in ("m", "torrent"):
        counts = view_of(server, model)["counts"]
        assert (counts["seen_failures"], counts["fallbacks"]) == (0, 5 if model == "m" else 1)
        abort(server, model)


def _streamed(client: Any, model: str, sent: Any) -> list[str]:
    """The versions that a stream's responses name."""
    answers: list[Any] = []
    client.start_stream(lambda result, error: answers.append((result, error)))
    client.async_stream_infer(model, [sent], request_id="s", enable_empty_final_response=True)

    def is_over() -> bool:
        return any(error is not None or _is_last(result) for result, error in list(answers))

    eventually(is_over, "no last response")
    client.stop_stream()
    assert [error for _, error in answers if error is not None] == []
    responses = [result.get_response() for result, _ in answers]
    return [response.model_version for response in responses if response.outputs]


def _is_last(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


def test_the_candidate_does_not_answer_from_the_stable_versions_cache(server: Served) -> None:
    def asked() -> tuple[str, list[float]]:
        answer = server.infer("cached", json_request(1, 2)).json
        return answer["model_version"], answer["outputs"][0]["data"]

    begin(server, 2, "cached", **LONG)
    abort(server, "cached")
    assert [asked() for _ in range(2)] == [("1", [3, 5])] * 2
    begin(server, 2, "cached", **LONG)
    assert [asked() for _ in range(2)] == [("2", [4, 6])] * 2
    abort(server, "cached")
    assert asked() == ("1", [3, 5])
    hits = [_cache_hits(server, number) for number in (1, 2)]
    assert hits == [2, 1]


def _cache_hits(server: Served, number: int) -> int:
    (row,) = server.get(f"/v2/models/cached/versions/{number}/stats").json["model_stats"]
    return int(row["inference_stats"]["cache_hit"]["count"])


def test_it_goes_on_when_the_gateway_is_killed(server: Served) -> None:
    before = begin(server, GOOD, steps=[40, 100], step_s=3600)
    os.kill(server.gateway, signal.SIGKILL)
    eventually(lambda: _share(server) == 4000, "it does not go on")
    view = view_of(server)
    assert (view["status"], view["started_at"]) == ("running", before["started_at"])
    assert [event["what"] for event in view["events"]] == ["started", "restored"]
    with asking(server, "m") as clients:
        eventually(lambda: {"1", str(GOOD)} <= set(versions(clients)), "one does not answer")
    assert failures(clients) == []
    answer = server.request("POST", "/v2/models/m/rollout", {"to": NAN})
    assert (answer.status, answer.error) == (
        409,
        f"the roll-out of model 'm' from version 1 to {GOOD} is running: it has to end first",
    )
    abort(server)


def _share(server: Served) -> int | None:
    """The candidate's, of a server that answers requests."""
    try:
        answer = server.get("/v2/models/m/rollout")
        ready = server.get("/v2/models/m/ready").status == 200
    except OSError:
        return None
    return answer.json["share"] if answer.status == 200 and ready else None


def test_a_good_version_is_promoted_from_the_command_line_and_no_request_fails(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = main(["rollout", *words, f"--url=http://{server.http}"])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    how = ("--from=1", "--steps=20%,100%", "--step-seconds=0.2", "--min-requests=10")
    code, told = run("start", "m", f"--to={GOOD}", *how, "--guard=p99_ratio=off")
    assert code == 0
    assert f"m 1 → {GOOD}" in told and "running" in told
    code, told = run("start", "m", f"--to={NAN}")
    assert (code, "has to end first" in told) == (1, True)
    paused = f"m 1 → {GOOD}: paused, 20 %, 0 requests, 0 errors, 0 fallbacks\n"
    assert run("pause", "m") == (0, paused)
    assert "paused" in run("list")[1]
    assert run("resume", "m")[0] == 0
    with asking(server, "m") as clients:
        code, told = run("status", "m", "--watch")
        answered = versions(clients)[str(GOOD)]
        eventually(lambda: versions(clients)[str(GOOD)] > answered + 20, "no answers")
    assert (code, failures(clients)) == (0, [])
    assert "promoted" in told.splitlines()[-1]
    view = view_of(server)
    assert (view["status"], view["share"]) == ("promoted", 10_000)
    assert server.infer("m", json_request(1, 2)).json["model_version"] == str(GOOD)
    assert view["model"] in [each["model"] for each in server.get("/v2/rollouts").json["rollouts"]]
    assert run("status", "nobody") == (
        1,
        f"penstock: http://{server.http} answered 404: there is no roll-out of model 'nobody'\n",
    )


def test_a_version_that_comes_to_a_held_model_waits_for_its_roll_out(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    # whatever the front is, and no front at all in tests/gateway
    front = "grpcio"
    models = tmp_path / "models"
    write_versions(models / "m", {1: {}})
    flags = ("--model-control-mode=poll", "--repository-poll-secs=0.1", "--rollouts-hold=m")
    folder = f"--rollouts-folder={tmp_path / 'rollouts'}"
    server = serve(models, front, *flags, folder).wait_ready()

    def version_that_answers() -> str:
        return str(server.infer("m", json_request(1, 2)).json["model_version"])

    assert version_that_answers() == "1"
    write_version(models / "m", 2, {})
    eventually(lambda: server.index().get(("m", "2"), {}).get("state") == "READY", "not loaded")
    assert version_that_answers() == "1"
    begin(server, 2, steps=[100], step_s=3600)
    assert version_that_answers() == "2"
    abort(server)
    assert server.stop() == 0
    server = serve(models, front, *flags, folder).wait_ready()
    assert version_that_answers() == "1"
    assert view_of(server)["status"] == "aborted"
