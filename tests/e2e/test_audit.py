"""The audit log of a running server, on both fronts: who was refused, what was done, and what was inferred."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from penstock.audit.lines import Record
from penstock.audit.reading import Filter, records
from penstock.audit.signing import Signer
from penstock.audit.verify import verify
from penstock.cli import main
from served import FRONTS, Served, json_tensor
from served_models import write_add_sub
from supervised import eventually
from tenant_commands import new_key

pytestmark = pytest.mark.e2e

CONFIG = """
model_control_mode = "explicit"
load_model = ["add_sub"]
[access]
mode = "required"
tenants_file = "tenants.db"
[audit]
folder = "audit"
inferences = true
sign_key = "file:{folder}/audit.key"
"""
INPUTS = {name: np.arange(4, dtype=np.float32) + n for n, name in enumerate(("INPUT0", "INPUT1"))}


class Audited(NamedTuple):
    """A server that records everything, and its keys."""

    served: Served
    folder: Path
    admin: str
    user: str
    auditor: str

    def records(self, **wanted: Any) -> list[Record]:
        """What is in the log."""
        return records(self.folder / "audit", Filter(limit=10_000, **wanted))

    def last(self, count: int, **wanted: Any) -> list[Record]:
        """The last records of that kind."""
        return self.records(**wanted)[-count:]

    def named(self, request_id: str) -> list[Record]:
        """The records of a request, once there is one."""

        def found() -> list[Record]:
            return [record for record in self.records() if record.request_id == request_id]

        eventually(lambda: bool(found()), f"no record of {request_id}")
        return found()

    def refused(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Record]:
        """The status of a request, and its record."""
        name = uuid.uuid4().hex
        answer = self.served.request(method, path, None, {**headers, "x-request-id": name})
        # Envoy gives requests its own, and tells their clients
        (record,) = self.named(answer.headers.get("x-request-id", name))
        return answer.status, record


def by(key: str) -> dict[str, str]:
    """Headers of who has that key."""
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module", params=FRONTS)
def audited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Audited]:
    """A server that records everything."""
    folder = tmp_path_factory.mktemp("audited")
    write_add_sub(folder / "models" / "add_sub")
    assert main(["audit", "keygen", str(folder / "audit.key")]) == 0
    (folder / "audit").mkdir()
    (folder / "penstock.toml").write_text(CONFIG.format(folder=folder))
    where = f"--config={folder / 'penstock.toml'}"
    admin = new_key(where, "ops", "--role", "admin")
    user = new_key(where, "team", "--role", "user")
    auditor = new_key(where, "watch", "--role", "auditor")
    served = Served(folder / "models", request.param, where)
    try:
        yield Audited(served.wait_ready(), folder, admin, user, auditor)
        assert served.stop() == 0, served.log
        signer = Signer.from_pem((folder / "audit.key").read_bytes(), "key")
        verdict = verify(folder / "audit", [signer.verifier])
        assert verdict.is_whole, verdict.problems
        assert verdict.signed_up_to == verdict.records > 10
    finally:
        served.close()


def test_the_command_line_records_what_it_does(audited: Audited) -> None:
    made = audited.records(action="tenants.create", tenant="team")
    assert [record.outcome for record in made] == ["allowed", "done"]
    assert made[0].principal.startswith("cli:")


def test_every_refusal_is_recorded_with_its_client(audited: Audited) -> None:
    model = "/v2/models/add_sub"
    status, none = audited.refused("POST", f"{model}/infer", {})
    assert (status, none.action, none.outcome) == (401, "authenticate", "refused")
    assert none.principal == "" and "no credential" in none.reason
    status, bad = audited.refused("GET", model, {"x-api-key": "psk_abcdefghij_wrong"})
    assert (status, bad.action, bad.model) == (401, "authenticate", "add_sub")
    assert bad.details == {
        "verb": "read_metadata",
        "protocol": "HTTP",
        "method": "GET",
        "path": "/v2/models/add_sub",
    }
    # a credential that somebody puts there by mistake is not recorded
    _, queried = audited.refused("GET", f"{model}?api_key=planted", {})
    assert queried.details == bad.details
    status, denied = audited.refused("POST", "/v2/repository/index", by(audited.auditor))
    assert (status, denied.action, denied.tenant) == (403, "authorize", "watch")
    assert denied.principal.startswith("key:psk_")
    assert all(record.client.startswith("127.0.0.1:") for record in (none, bad, denied))


def test_refusals_over_grpc_too(audited: Audited) -> None:
    with tritonclient.grpc.InferenceServerClient(audited.served.grpc) as client:
        calls: list[Callable[[dict[str, str]], object]] = [
            lambda headers: client.load_model("add_sub", headers=headers),
            lambda headers: client.infer("add_sub", _grpc_inputs(), headers=headers),
        ]
        before = len(audited.records(outcome="refused"))
        for call in calls:
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                call({})
            with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
                call(by(audited.auditor))
    eventually(lambda: len(audited.records(outcome="refused")) == before + 4, "not all are there")
    found = audited.last(4, outcome="refused")
    assert [record.action for record in found] == ["authenticate", "authorize"] * 2
    assert [record.model for record in found[1::2]] == ["add_sub"] * 2
    asked = [(record.details["protocol"], record.details["method"]) for record in found]
    assert asked == [("GRPC", "RepositoryModelLoad")] * 2 + [("GRPC", "ModelInfer")] * 2
    assert all("127.0.0.1:" in record.client for record in found)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_done_is_recorded_before_and_after(audited: Audited, protocol: str) -> None:
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    url = getattr(audited.served, protocol)
    with module.InferenceServerClient(url) as client:
        before = len(audited.records(action="model"))
        client.load_model("add_sub", headers=by(audited.admin))
        client.update_log_settings({"log_verbose_level": 1}, headers=by(audited.admin))
        client.get_log_settings(headers=by(audited.admin))
        client.update_trace_settings("add_sub", {"trace_rate": "7"}, headers=by(audited.admin))
        with pytest.raises(InferenceServerException):
            client.load_model("no_such", headers=by(audited.admin))
    # they were answered, so they are on the disk
    load, loaded, wrong, failed = audited.records(action="model")[before:]
    assert (load.action, load.outcome, loaded.outcome) == ("model.load", "allowed", "done")
    assert (load.model, load.tenant, load.details["protocol"]) == (
        "add_sub",
        "ops",
        protocol.upper(),
    )
    assert load.request_id == loaded.request_id
    assert (wrong.model, wrong.outcome) == ("no_such", "allowed")
    assert failed.outcome == "failed" and failed.reason
    for action, setting in (("log.change", "log_verbose_level"), ("trace.change", "trace_rate")):
        begun, done = audited.records(action=action)[-2:]
        assert (begun.outcome, done.outcome) == ("allowed", "done")
        assert begun.details["settings"] == setting
    # who only asks changes nothing
    assert len([r for r in audited.records(action="log.change") if r.outcome == "done"]) in (1, 2)


def test_tenants_changes_over_http(audited: Audited) -> None:
    changed = audited.served.request("POST", "/v2/tenants/team", {"weight": 2}, by(audited.admin))
    assert changed.status == 200, changed.body
    begun, done = [r for r in audited.records(tenant="team") if r.action.startswith("tenants.")][
        -2:
    ]
    assert (begun.outcome, done.outcome) == ("allowed", "done")
    assert begun.principal.startswith("key:psk_")


def _grpc_inputs() -> list[Any]:
    inputs = []
    for name, array in INPUTS.items():
        tensor = tritonclient.grpc.InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def _digest(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """As docs/audit.md says."""
    digest = hashlib.sha256()
    for name, array in tensors.items():
        data = array.tobytes()
        digest.update(f"{name} FP32 4 {len(data)}\n".encode() + data)
    return digest.hexdigest()


def test_inferences_are_recorded_by_their_digests(audited: Audited) -> None:
    body = {"id": "one", "inputs": [json_tensor(name, array) for name, array in INPUTS.items()]}
    answer = audited.served.request("POST", "/v2/models/add_sub/infer", body, by(audited.user))
    assert answer.status == 200, answer.body
    with tritonclient.grpc.InferenceServerClient(audited.served.grpc) as client:
        client.infer("add_sub", _grpc_inputs(), request_id="two", headers=by(audited.user))
    total = INPUTS["INPUT0"] + INPUTS["INPUT1"], INPUTS["INPUT0"] - INPUTS["INPUT1"]
    outputs: dict[str, Any] = dict(zip(("OUTPUT0", "OUTPUT1"), total, strict=True))
    for name in ("one", "two"):
        (record,) = audited.named(name)
        assert (record.action, record.outcome, record.model) == ("infer", "done", "add_sub")
        assert (record.tenant, record.details["version"]) == ("team", "1")
        assert record.details["inputs_sha256"] == _digest(INPUTS)
        assert record.details["outputs_sha256"] == _digest(outputs)
        assert int(record.details["duration_us"]) > 0


def test_the_log_is_read_by_those_who_may(audited: Audited) -> None:
    served = audited.served
    assert served.request("GET", "/v2/audit").status == 401
    assert served.request("GET", "/v2/audit", None, by(audited.user)).status == 403
    answer = served.request("GET", "/v2/audit?limit=2", None, by(audited.auditor))
    assert answer.status == 200, answer.body
    first, second = answer.json["records"]
    assert second["seq"] == first["seq"] + 1 == answer.json["last"]
    after = served.request(
        "GET", f"/v2/audit?since={first['seq']}&limit=1", None, by(audited.auditor)
    )
    assert after.json["records"] == [second]
    of_team = served.request("GET", "/v2/audit?tenant=team", None, by(audited.auditor)).json
    assert {record["tenant"] for record in of_team["records"]} == {"team"}
    for query in ("limit=0", "limit=x", "since=noon", "what=1"):
        wrong = served.request("GET", f"/v2/audit?{query}", None, by(audited.auditor))
        assert wrong.status == 400, query


def test_metrics_tell_of_it(audited: Audited) -> None:
    audited.refused("GET", "/v2", {})
    page = audited.served.request(
        "GET", "/metrics", None, by(audited.admin), audited.served.settings.metrics_port
    )
    lines = dict(
        line.rsplit(" ", 1) for line in page.body.decode().splitlines() if "_audit_" in line
    )
    assert float(lines["penstock_audit_records_total"]) > 0
    assert float(lines["penstock_audit_groups_total"]) > 0
    assert float(lines["penstock_audit_lost_total"]) == 0
    assert float(lines["penstock_audit_failing"]) == 0


def test_what_cant_be_recorded_isnt_done(audited: Audited) -> None:
    """Last: it takes the folder away, and gives it back."""
    served, folder = audited.served, audited.folder / "audit"
    away = folder.with_name("away")
    os.rename(folder, away)
    folder.write_text("something else")
    try:
        refused = served.request(
            "POST", "/v2/repository/models/add_sub/unload", {}, by(audited.admin)
        )
        assert refused.status == 503
        assert refused.error == "the audit log can't be written"
        body = {"inputs": [json_tensor(name, array) for name, array in INPUTS.items()]}
        answer = served.request("POST", "/v2/models/add_sub/infer", body, by(audited.user))
        assert answer.status == 503
        # nor is anybody told that he is refused, for want of a record of it
        assert served.request("GET", "/v2/models/add_sub").status == 503
        ready = "/v2/models/add_sub/ready"
        assert served.request("GET", ready, None, by(audited.user)).status == 200
        assert "audit records can't be written" in served.log
        assert (
            main(["tenants", "disable", "team", f"--config={audited.folder / 'penstock.toml'}"])
            == 1
        )
    finally:
        folder.unlink()
        os.rename(away, folder)

    def works() -> bool:
        body = {"inputs": [json_tensor(name, array) for name, array in INPUTS.items()]}
        answer = served.request("POST", "/v2/models/add_sub/infer", body, by(audited.user))
        return answer.status == 200

    eventually(works, "it is not written again")


@pytest.mark.parametrize("policy", ["refuse", "go_on"])
def test_a_start_without_a_log_that_can_be_written(
    serve: Callable[..., Served], tmp_path: Path, policy: str
) -> None:
    """With the policy `refuse` there is none; `go_on` means this, too."""
    write_add_sub(tmp_path / "models" / "add_sub")
    (tmp_path / "audit").write_text("no folder")
    flags = (f"--audit-folder={tmp_path / 'audit'}", f"--audit-when-it-cant-be-written={policy}")
    served = serve(tmp_path / "models", "grpcio", *flags)
    if policy == "go_on":
        assert served.wait_ready().get("/v2/health/ready").status == 200
    else:
        assert served.process.wait(60) == 1
    assert f"the audit log can't be written: {tmp_path / 'audit'}: " in served.log
