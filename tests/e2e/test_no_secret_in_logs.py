"""Secrets are planted wherever a client or an admin can put them; no log, no file, and no process list has them."""

from __future__ import annotations

import contextlib
import io
import json
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from penstock.audit.signing import Signer
from penstock.cli import main
from served import FRONTS, Served
from served_models import PUPPET, write_model
from supervised import eventually
from tenant_commands import new_key

pytestmark = pytest.mark.e2e

PLANTED: Final = {
    "an API key that is none": "psk_0123456789_PLANTEDkeyPLANTEDkeyPLANTEDkeyPLANTEDkeyPLANTEDke",
    "half a key": "psk_PLANTEDhalfPLANTEDhalfPLANTEDhalf",
    "a JWT": "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJQTEFOVEVEand0In0.UExBTlRFRGp3dA",
    "a password": "PLANTEDpassword",
    "a Vault token": "hvs.PLANTEDvaultPLANTEDvault",
    "a key-encryption key": "PLANTEDkek" + "0" * 54,
    "a payload": "PLANTEDpayload",
    "a file of a model": "PLANTEDfile",
}
MARKS: Final = (
    "PLANTEDkey",
    "PLANTEDhalf",
    "UExBTlRFRGp3dA",
    "PLANTEDpassword",
    "PLANTEDvault",
    "PLANTEDkek",
    "PLANTEDpayload",
    "PLANTEDfile",
)
"""What is looked for: a part of each, so that a text which was cut off is found too."""

CONFIG: Final = """
model_control_mode = "explicit"
load_model = ["*"]
access_log = true
log_verbose = 2
trace_config = ["triton,file={folder}/trace.json", "level=TIMESTAMPS", "rate=1"]
[access]
mode = "required"
tenants_file = "tenants.db"
[secrets]
vault_address = "http://127.0.0.1:1"
vault_token = "env:PLANTED_VAULT"
[audit]
folder = "audit"
inferences = true
sign_key = "env:PLANTED_SIGN_KEY"
"""
MIRROR: Final = """
    max_batch_size: 4
    input [ { name: "X_BYTES" data_type: TYPE_STRING dims: [ -1 ] } ]
    output [ { name: "Y_BYTES" data_type: TYPE_STRING dims: [ -1 ] } ]
"""


class Planted:
    """A server, and all that was planted in it."""

    def __init__(self, folder: Path, front: str) -> None:
        self.folder = folder
        write_model(folder / "models" / "mirror", "mirror", MIRROR)
        write_model(folder / "models" / "puppet", "puppet", f"max_batch_size: 8\n{PUPPET}")
        (folder / "penstock.toml").write_text(CONFIG.format(folder=folder))
        (folder / "audit").mkdir()
        sign_key = Signer.generate().private_pem().decode()
        self.pem = sign_key.splitlines()[1]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PLANTED_SIGN_KEY", sign_key)
            self.key = new_key(f"--config={folder / 'penstock.toml'}", "team", "--role", "admin")
        self.served = Served(
            folder / "models",
            front,
            f"--config={folder / 'penstock.toml'}",
            environment={
                "PLANTED_VAULT": PLANTED["a Vault token"],
                "PLANTED_SIGN_KEY": sign_key,
                "PLANTED_KEK": PLANTED["a key-encryption key"],
            },
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """All of which nothing may be found."""
        return (*MARKS, self.pem, self.key[15:], b64encode(b"PLANTEDfile").decode()[:12])

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """One request by the admin, unless the headers say who."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not {"authorization", "x-api-key"} & named.keys():
            named["authorization"] = f"Bearer {self.key}"
        answer = self.served.request(method, path, body, named)
        return answer.status, answer.body


@pytest.fixture(scope="module", params=FRONTS)
def planted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Planted]:
    """A server that logs as much as it can."""
    made = Planted(tmp_path_factory.mktemp("planted"), request.param)
    try:
        made.served.wait_ready()
        yield made
    finally:
        made.served.close()


def test_no_secret_is_found_anywhere(planted: Planted) -> None:
    _bad_credentials(planted)
    _payloads(planted)
    _settings(planted)
    _models(planted)
    _tenants(planted)
    _over_grpc(planted)
    _crash(planted)
    served = planted.served
    # they were seen: what is looked through has something about each of them
    eventually(lambda: "infer" in _audit(planted) and "authenticate" in _audit(planted), "no audit")
    processes = b" ".join(_commands(served))
    status, audit = planted.ask("GET", "/v2/audit?limit=1000")
    assert status == 200
    headers = {"authorization": f"Bearer {planted.key}"}
    metrics = served.request("GET", "/metrics", None, headers, served.settings.metrics_port)
    run_dir = _files(served.run_dir)
    assert any(name.endswith("settings.json") for name in run_dir)
    assert served.stop() == 0
    found = {
        "the process list": processes,
        "/v2/audit": audit,
        "/metrics": metrics.body,
        **run_dir,
        **_files(served.folder),
        **_files(planted.folder, without="tenants.db"),
    }
    names = " ".join(found)
    for name in ("stdout", "stderr", "trace.json", "audit-000001.jsonl", "settings.json"):
        assert name in names
    if served.front == "envoy":
        assert b'"path":"/v2/models/mirror/infer"' in found[str(served.folder / "stdout")]
    for where, content in found.items():
        for secret in planted.secrets:
            assert secret.encode() not in content, f"{secret} in {where}"


def _bad_credentials(planted: Planted) -> None:
    for name in ("an API key that is none", "half a key", "a JWT", "a password"):
        secret = PLANTED[name]
        for headers in (
            {"authorization": f"Bearer {secret}"},
            {"authorization": f"Basic {secret}"},
            {"authorization": secret},
            {"x_api_key": secret},
            {"x_api_key": secret, "authorization": f"Bearer {planted.key}"},
        ):
            for path in ("/v2/models/mirror/infer", "/v2/repository/index", "/v2/none"):
                assert planted.ask("POST", path, {}, **headers)[0] == 401
        status, _ = planted.ask("GET", f"/v2/models/mirror?access_token={secret}&key={secret}")
        assert status == 200
        planted.ask("POST", f"/v2/models/mirror/infer?token={secret}", {})
        planted.ask("GET", f"/v2/audit?since={secret}")
        planted.ask("GET", f"/v2/audit?{secret}=1")
        planted.ask("GET", "/v2", None, cookie=secret, x_vault_token=secret, traceparent=secret)
        planted.ask("GET", "/v2", None, x_forwarded_client_cert=f'Subject="CN={secret}"')


def _payloads(planted: Planted) -> None:
    payload = PLANTED["a payload"]
    tensor = {"name": "X_BYTES", "datatype": "BYTES", "shape": [1, 1], "data": [payload]}
    path = "/v2/models/mirror/infer"
    assert planted.ask("POST", path, {"inputs": [tensor]})[0] == 200
    wrong: list[Any] = [
        {"inputs": [{**tensor, "datatype": "FP32"}]},
        {"inputs": [{**tensor, "shape": [9, 9]}]},
        {"inputs": [{**tensor, "data": {"a": payload}}]},
        {"inputs": [{**tensor, "data": [[payload], 3]}]},
        {"inputs": payload},
        {"inputs": [tensor], "outputs": [{"name": "Z", "parameters": {"a": payload}}]},
        f'{{"inputs": [{payload}',
        payload.encode() * 100,
        b"\xff" + payload.encode(),
    ]
    for body in wrong:
        assert planted.ask("POST", path, body)[0] in (400, 404), body
    binary = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 5}}]}).encode()
    length = {"inference_header_content_length": str(len(binary))}
    assert planted.ask("POST", path, binary + payload.encode(), **length)[0] == 400
    for action in ("generate", "generate_stream"):
        assert planted.ask("POST", f"/v2/models/mirror/{action}", {"no_such": payload})[0] == 400
    assert planted.ask("POST", "/v1/models/mirror:predict", {"instances": [payload, {}]})[0] >= 400


def _settings(planted: Planted) -> None:
    for name in ("an API key that is none", "a JWT", "a Vault token", "a password"):
        secret = PLANTED[name]
        for body in (
            {"log_format": secret},
            {"log_verbose_level": secret},
            {secret: True},
            {"log_file": secret},
        ):
            assert planted.ask("POST", "/v2/logging", body)[0] in (400, 501)
        traces: list[Any] = [{"trace_rate": secret}, {secret: "1"}, {"trace_level": [secret]}]
        for given in traces:
            assert planted.ask("POST", "/v2/trace/setting", given)[0] == 400
    assert planted.ask("POST", "/v2/logging", {"log_verbose_level": 2})[0] == 200


def _models(planted: Planted) -> None:
    for text in (
        {"config": '{"backend": "python", "PLANTEDpassword": 1}'},
        {"config": '{"backend": PLANTEDpassword'},
        {"config": '{"backend": "python", "max_batch_size": "PLANTEDpassword"}'},
        {
            "config": '{"backend": "python"}',
            "file:1/model.py": _base64(b"raise ValueError('not today')"),
            "file:1/weights.bin": _base64(b"PLANTEDfile" * 100),
        },
        {"config": '{"backend": "python"}', "file:1/model.py": "PLANTEDfile"},
    ):
        status, _ = planted.ask("POST", "/v2/repository/models/other/load", {"parameters": text})
        assert status in (400, 404), text
    status, _ = planted.ask("POST", "/v2/repository/models/mirror/load", {})
    assert status == 200


def _tenants(planted: Planted) -> None:
    status, body = planted.ask(
        "POST", "/v2/tenants/team/keys", {"roles": ["user"], "label": "second"}
    )
    assert status == 200, body
    text = json.dumps(json.loads(body))
    made = next(word for word in text.replace('"', " ").split() if len(word) > 40)
    assert made.startswith("psk_")
    planted.ask("GET", "/v2", None, x_api_key=made)
    # a key where its id is expected
    planted.ask("POST", "/v2/tenants/team/keys", {"PLANTEDpassword": 1})
    config = f"--config={planted.folder / 'penstock.toml'}"
    with contextlib.redirect_stderr(io.StringIO()):
        revoke = ["tenants", "key", "revoke", "team", PLANTED["an API key that is none"]]
        assert main([*revoke, config]) != 0


def _over_grpc(planted: Planted) -> None:
    payload = PLANTED["a payload"]
    with tritonclient.grpc.InferenceServerClient(planted.served.grpc) as client:
        good = {"authorization": f"Bearer {planted.key}"}
        tensor = tritonclient.grpc.InferInput("X_BYTES", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[payload.encode()]], np.object_))
        client.infer("mirror", [tensor], request_id="over-grpc", headers=good)
        for name in ("an API key that is none", "a JWT", "a password"):
            secret = PLANTED[name]
            for headers in (
                {"authorization": f"Bearer {secret}"},
                {"authorization": secret},
                {"x-api-key": secret},
                {"x-vault-token": secret, "cookie": secret},
            ):
                with pytest.raises(InferenceServerException):
                    client.infer("mirror", [tensor], headers=headers)
                with pytest.raises(InferenceServerException):
                    client.get_model_repository_index(headers=headers)
        wrong = tritonclient.grpc.InferInput("X_BYTES", [9, 9], "BYTES")
        wrong.set_data_from_numpy(np.full((9, 9), payload.encode(), np.object_))
        with pytest.raises(InferenceServerException):
            client.infer("mirror", [wrong], headers=good)
        config = '{"backend": "python", "PLANTEDpassword": 1}'
        with pytest.raises(InferenceServerException):
            client.load_model("other", config=config, headers=good)
        with pytest.raises(InferenceServerException):
            client.update_log_settings({"log_format": "PLANTEDpassword"}, headers=good)


def _crash(planted: Planted) -> None:
    """The model's own error quotes a credential; then its process dies."""
    x = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
    for parameters in (
        {"raise": f"denied: {PLANTED['an API key that is none']}"},
        {"raise": f"Authorization: Bearer {PLANTED['a JWT']}"},
        {"raise": f"http://user:{PLANTED['a password']}@host/"},
        {"raise": f"token {PLANTED['a Vault token']}"},
        {"die": True, "with": PLANTED["a payload"]},
    ):
        body = {"inputs": [x], "parameters": parameters}
        assert planted.ask("POST", "/v2/models/puppet/infer", body)[0] >= 400
    eventually(lambda: "denied: psk_0123456789_[hidden]" in planted.served.log, "no log of it")


def _audit(planted: Planted) -> str:
    return (planted.folder / "audit" / "audit-000001.jsonl").read_text()


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _commands(served: Served) -> list[bytes]:
    return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in served.processes()]


def _files(folder: Path, without: str = "\0") -> dict[str, bytes]:
    """All files of a folder but those of the models, and of tenants: they hold what they are for."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if path.is_file() and not name.startswith(without) and "models" not in path.parts:
                found[str(path)] = path.read_bytes()
    return found
