"""Signed and encrypted models on a running server: what was tampered with is refused, and what was served goes on."""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from penstock.trust.at_rest import encrypt_version
from penstock.trust.kek import KeyEncryptionKey, KeyRing
from penstock.trust.signing import sign_version
from served import Served, json_request
from served_models import XY, write_add_sub, write_model
from supervised import eventually
from traffic import Client, failures, traffic
from trusted_models import content, write, write_public

pytestmark = [pytest.mark.e2e, pytest.mark.extension("model_repository")]

EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")
POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.1")

Serve = Callable[..., Served]


class Site:
    """A repository, the keys of who releases its models, and the settings of the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.model = self.models / "add_sub"
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kek = KeyEncryptionKey(os.urandom(32))
        self.memory = folder / "memory"
        self.memory.mkdir()
        write_public(folder / "release.pub", self.key)
        kek = write(folder / "kek", base64.b64encode(self.kek._key))
        kek.chmod(0o600)
        self.settings = folder / "penstock.toml"
        self.settings.write_text(
            f"""
            [artifacts]
            state_file = "state/releases.json"
            memory_folder = "memory"
            key_encryption_key = "file:{kek}"
            [[artifacts.trust]]
            models = ["open_*"]
            require = "none"
            [[artifacts.trust]]
            public_keys = ["release.pub"]
            """
        )
        write_add_sub(self.model)
        self.write_config()

    def write_config(self, name: str = "") -> None:
        """The model's, of one instance; `name`: of its instance group, to tell one release from another."""
        (self.model / "config.pbtxt").write_text(
            f'instance_group {{ count: 1 kind: KIND_CPU name: "{name}" }}\n'
        )

    def sign(self, model: Path | None = None, **options: object) -> None:
        sign_version(model or self.model, 1, self.key, **options)  # type: ignore[arg-type]

    def encrypt(self, model: Path) -> None:
        encrypt_version(model, 1, KeyRing((self.kek,)))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_explicit_mode_under_load(front: str, serve: Serve, site: Site) -> None:
    site.sign(serial=7)
    write_model(site.models / "open_mirror", "mirror", f"max_batch_size: 2\n{XY}")
    server = serve(site.models, front, f"--config={site.settings}", *EXPLICIT).wait_ready()
    released = site.folder / "released"
    shutil.copytree(site.model, released)
    assert server.infer("open_mirror", json_request(1.0)).status == 200
    # nothing is copied of what nothing is asked of
    assert [path.name for path in (server.run_dir / "trusted").glob("*/model/*")] == ["add_sub"]
    with traffic(server) as clients:
        answered(clients)
        worker = server.workers("add_sub")
        for name, tamper in TAMPERING.items():
            tamper(site)
            error = load_error(server)
            assert f"{name}: " in error
            assert str(site.folder) not in error
            assert str(server.run_dir) not in error
            answered(clients)
            shutil.rmtree(site.model, ignore_errors=True)
            site.model.unlink(missing_ok=True)
            shutil.copytree(released, site.model)
        assert server.workers("add_sub") == worker
        assert load(server) == 200
        site.write_config("newer")
        site.sign(serial=8)
        assert load(server) == 200
        assert group(server) == "newer"
        # the release before it is a downgrade now
        shutil.rmtree(site.model)
        shutil.copytree(released, site.model)
        assert "Downgraded: " in load_error(server)
        assert group(server) == "newer"
        answered(clients)
    assert failures(clients) == []
    refused = 'penstock_artifact_checks_total{model="add_sub",outcome="WrongKey",version="1"}'
    assert server.metrics()[refused] == 1
    assert len(list((server.run_dir / "trusted").iterdir())) == 1
    assert server.stop() == 0
    if front == "grpcio":
        # what was served before is remembered
        server = serve(site.models, front, f"--config={site.settings}", *EXPLICIT).wait_ready()
        assert "Downgraded: " in server.index()["add_sub", "1"]["reason"]


def wrong_key(site: Site) -> None:
    sign_version(site.model, 1, ec.generate_private_key(ec.SECP256R1()), serial=9)


def truncate(site: Site) -> None:
    path = site.model / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def flip_configuration(site: Site) -> None:
    """Into one that can't be read: that it was tampered with is the news."""
    path = site.model / "config.pbtxt"
    path.write_text(path.read_text().replace("{", "[", 1))


def link_outside(site: Site) -> None:
    path = site.model / "1" / "model.onnx"
    path.symlink_to(path.rename(site.folder / "model.onnx"))


def of_another_model(site: Site) -> None:
    other = site.folder / "other" / "m"
    shutil.copytree(site.model, other)
    site.sign(other, serial=9)
    shutil.rmtree(site.model)
    shutil.copytree(other, site.model)
    shutil.rmtree(other)


def plant_pickle(site: Site) -> None:
    write(site.model / "1" / "weights.bin", b"\x80\x04cos\nsystem\n.")
    site.sign(serial=9)


def wrong_kek(site: Site) -> None:
    encrypt_version(site.model, 1, KeyRing((KeyEncryptionKey(bytes(32)),)))


def damaged(site: Site) -> None:
    site.encrypt(site.model)
    path = site.model / "1" / "model.onnx.penc"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


TAMPERING: dict[str, Callable[[Site], object]] = {
    "ContentChanged": truncate,
    "ContentChanged: 'config.pbtxt' is not what was signed": flip_configuration,
    "FileAdded": lambda site: write(site.model / "labels.txt", b"a\n"),
    "FileMissing": lambda site: (site.model / "config.pbtxt").unlink(),
    "LinkOutside": link_outside,
    "SignatureMissing": lambda site: (site.model / "1" / "model.sig").unlink(),
    "SignatureInvalid": lambda site: write(site.model / "1" / "model.sig", b"{}"),
    "WrongKey": wrong_key,
    "WrongModel": of_another_model,
    "Downgraded": lambda site: site.sign(serial=6),
    "PickleRefused": plant_pickle,
    "WrongKeyEncryptionKey": wrong_kek,
    "EncryptionBroken": damaged,
}


def test_what_load_requests_give(serve: Serve, site: Site) -> None:
    site.sign(serial=7)
    server = serve(site.models, "grpcio", f"--config={site.settings}", *EXPLICIT).wait_ready()
    assert "OverrideRefused: " in load_error(server, {"config": "{}"})
    site.write_config("given")
    files = given(site)
    assert "ContentChanged: " in load_error(server, {"config": "{}", **files})
    site.sign(serial=8)
    files = given(site)
    other = {"config": '{"instance_group": [{"count": 2, "kind": "KIND_CPU"}]}', **files}
    assert "OverrideRefused: " in load_error(server, other)
    assert group(server) != "given"
    same = '{"instance_group": [{"count": 1, "kind": "KIND_CPU", "name": "given"}]}'
    for config in ("{}", same):
        assert load(server, {"config": config, **files}) == 200
        assert group(server) == "given"
    unsigned = {name: text for name, text in files.items() if not name.endswith(".sig")}
    assert "SignatureMissing: " in load_error(server, {"config": "{}", **unsigned})
    assert group(server) == "given"


def test_poll_mode_under_load(serve: Serve, site: Site) -> None:
    site.sign(serial=7)
    server = serve(site.models, "grpcio", f"--config={site.settings}", *POLL).wait_ready()
    with traffic(server) as clients:
        answered(clients)
        model = site.model / "1" / "model.onnx"
        whole = model.read_bytes()
        model.write_bytes(whole[:-1])
        eventually(lambda: "ContentChanged: " in reason(server), "it is not refused")
        answered(clients)
        model.write_bytes(whole)
        eventually(lambda: reason(server) == "", "it is not well again")
        site.write_config("newer")
        eventually(lambda: "ContentChanged: " in reason(server), "it is not refused")
        assert group(server) != "newer"
        site.sign(serial=8)
        eventually(lambda: group(server) == "newer", "the new release is not served")
        answered(clients)
    assert failures(clients) == []


def test_encrypted_models_are_decrypted_in_memory(serve: Serve, site: Site) -> None:
    front = "envoy"
    site.sign(serial=7)
    site.encrypt(site.model)
    secret = site.models / "open_secret"
    write_model(secret, "mirror", f"max_batch_size: 2\n{XY}")
    site.encrypt(secret)
    server = serve(site.models, front, f"--config={site.settings}", *EXPLICIT).wait_ready()
    (folder,) = site.memory.glob(f"penstock-models-*-{server.run_dir.name}")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "1/model.onnx" in "".join(content(folder))
    assert not list(server.run_dir.rglob("model.onnx"))
    assert server.infer("open_secret", json_request(1.0)).status == 200

    # a gateway that crashes leaves its workers, and what they were loaded from, to the next one
    workers, gateway = server.workers("open_secret"), server.gateway
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: answers(server), "the server is not back")
    assert server.workers("open_secret") == workers
    # and a worker that crashes is started anew from it
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: server.workers("open_secret") not in ([], workers), "no new worker")
    eventually(lambda: answers(server), "the model is not back")

    assert server.request("POST", "/v2/repository/models/open_secret/unload").status == 200
    assert not [path for path in content(folder) if path.endswith("model.py")]
    # one that is killed is cleaned up after by the next one
    server.process.kill()
    server.process.wait(30)
    assert any(path.endswith("1/model.onnx") for path in content(folder))
    server.check_gone()
    again = serve(site.models, front, f"--config={site.settings}", *EXPLICIT).wait_ready()
    assert not folder.exists()
    assert answers(again)
    (folder,) = site.memory.glob(f"penstock-models-*-{again.run_dir.name}")
    assert again.stop() == 0
    assert not folder.exists()


def answered(clients: list[Client]) -> None:
    """All of them get answers now."""
    before = [client.answers for client in clients]
    eventually(
        lambda: all(c.answers > was for c, was in zip(clients, before, strict=True)),
        f"no answers: {failures(clients)}",
    )


def answers(server: Served) -> bool:
    try:
        return server.infer("open_secret", json_request(1.0)).status == 200
    except OSError:
        return False


def load(server: Served, parameters: dict[str, str] | None = None) -> int:
    body = {"parameters": parameters} if parameters else None
    return server.request("POST", "/v2/repository/models/add_sub/load", body).status


def load_error(server: Served, parameters: dict[str, str] | None = None) -> str:
    body = {"parameters": parameters} if parameters else None
    answer = server.request("POST", "/v2/repository/models/add_sub/load", body)
    assert answer.status == 400
    return answer.error


def given(site: Site) -> dict[str, str]:
    return {
        f"file:{path}": base64.b64encode(data).decode()
        for path, data in content(site.model).items()
    }


def group(server: Served) -> object:
    """The name of the instance group: which release is served."""
    return server.get("/v2/models/add_sub/config").json["instance_group"][0]["name"]


def reason(server: Served) -> str:
    return server.index()["add_sub", "1"]["reason"]
