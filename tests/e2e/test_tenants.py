"""Tenants and their API keys while the server runs: what `penstock tenants` and /v2/tenants change holds at once, over
both protocols and on both fronts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from penstock.access.api_key_auth import MISTYPED, REFUSED
from served import FRONTS, Served
from served_models import write_add_sub
from supervised import eventually
from tenant_commands import tenants

pytestmark = pytest.mark.e2e

WORKS: Final = ("200", "OK")
UNKNOWN: Final = ("401", "UNAUTHENTICATED")
FORBIDDEN: Final = ("403", "PERMISSION_DENIED")


class Bench:
    """A server that asks for credentials, the command line beside it, and clients of both protocols."""

    def __init__(self, folder: Path, front: str) -> None:
        self.file = folder / "state" / "tenants.db"
        write_add_sub(folder / "models" / "add_sub")
        self.cli("create", "root")
        self.admin = self.cli("key", "create", "root", "--role", "admin").strip()
        flags = ("--access-mode=required", f"--access-tenants-file={self.file}")
        self.server = Served(folder / "models", front, *flags)

    def __enter__(self) -> Bench:
        try:
            self.server.wait_ready()
            self._http = tritonclient.http.InferenceServerClient(self.server.http)
            self._grpc = tritonclient.grpc.InferenceServerClient(self.server.grpc)
        except BaseException:
            self.server.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._grpc.close()
        self.server.close()

    def cli(self, *arguments: str) -> str:
        """Standard output of `penstock tenants …`."""
        return tenants(*arguments, f"--access-tenants-file={self.file}")

    def process(self, *arguments: str) -> str:
        """The same in a process of its own, which takes a second more."""
        command = [sys.executable, "-m", "penstock.cli", "tenants", *arguments]
        environment = {**os.environ, "PENSTOCK_ACCESS_TENANTS_FILE": str(self.file)}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        return done.stdout

    def curl(self, method: str, path: str, key: str, body: object = None) -> tuple[int, Any]:
        """Status and body of a request over HTTP, by curl."""
        command = ["curl", "-sS", "-X", method, "-H", f"Authorization: Bearer {key}"]
        if body is not None:
            command += ["-d", json.dumps(body)]
        command += ["-w", "\n%{http_code}", f"http://{self.server.http}{path}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)

    def manage(self, method: str, path: str = "", body: object = None) -> Any:
        """What /v2/tenants answers to root's key."""
        status, answer = self.curl(method, f"/v2/tenants{path}", self.admin, body)
        assert status == 200, answer
        return answer

    def asks(self, key: str, *, plain: bool = False) -> tuple[str, str]:
        """How an inference ends over HTTP and over gRPC."""
        headers = {"x-api-key": key} if plain else {"authorization": f"Bearer {key}"}
        return self._ask(self._http, tritonclient.http, headers), self._ask(
            self._grpc, tritonclient.grpc, headers
        )

    def _ask(self, client: Any, kind: Any, headers: dict[str, str]) -> str:
        inputs = []
        for name in ("INPUT0", "INPUT1"):
            tensor = kind.InferInput(name, [4], "FP32")
            tensor.set_data_from_numpy(np.ones(4, np.float32))
            inputs.append(tensor)
        try:
            # NVIDIA's client for HTTP adds to what it is given
            result = client.infer("add_sub", inputs, headers=dict(headers))
        except InferenceServerException as error:
            self.told = error.message()
            return str(error.status()).removeprefix("StatusCode.")
        assert result.as_numpy("OUTPUT0").tolist() == [2.0] * 4
        return "200" if kind is tritonclient.http else "OK"

    def wait(self, key: str, *expected: tuple[str, str]) -> None:
        """Until it is so: it takes a fifth of a second."""
        eventually(lambda: self.asks(key) in expected, f"expected {expected}")


@pytest.fixture(scope="module", params=FRONTS)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("tenants"), request.param) as made:
        yield made


def test_a_key_from_its_creation_to_its_end(bench: Bench) -> None:
    bench.cli("create", "team-a")
    key = bench.process("key", "create", "team-a").strip()
    bench.wait(key, WORKS)
    assert bench.asks(key, plain=True) == WORKS
    (listed,) = json.loads(bench.cli("key", "list", "team-a", "--json"))
    bench.process("key", "revoke", "team-a", listed["id"])
    bench.wait(key, UNKNOWN)
    assert bench.told == REFUSED
    assert bench.asks(key[:-1]) == UNKNOWN
    assert bench.told == MISTYPED
    assert bench.asks(bench.admin) == WORKS


def test_a_tenant_that_is_disabled_is_refused_until_it_is_enabled(bench: Bench) -> None:
    bench.cli("create", "team-b")
    keys = [bench.cli("key", "create", "team-b").strip() for _ in range(2)]
    for key in keys:
        bench.wait(key, WORKS)
    bench.cli("disable", "team-b")
    for key in keys:
        bench.wait(key, UNKNOWN)
    bench.cli("enable", "team-b")
    bench.wait(keys[0], WORKS)
    bench.cli("models", "team-b", "other")
    bench.wait(keys[0], FORBIDDEN)
    assert bench.told == "not allowed: infer of model 'add_sub'"
    bench.cli("delete", "team-b", "--yes")
    bench.wait(keys[1], UNKNOWN)


def test_a_rotated_key_goes_on_for_the_overlap_and_then_expires(bench: Bench) -> None:
    bench.cli("create", "team-c")
    made = json.loads(bench.cli("key", "create", "team-c", "--json"))
    bench.wait(made["key"], WORKS)
    new = bench.cli("key", "rotate", "team-c", made["id"], "--overlap", "3s").strip()
    bench.wait(new, WORKS)
    assert bench.asks(made["key"]) in (WORKS, UNKNOWN)
    bench.wait(made["key"], UNKNOWN)
    assert bench.asks(new) == WORKS
    keys = json.loads(bench.cli("key", "list", "team-c", "--json"))
    assert [key["state"] for key in keys] == ["expired", "active"]


def test_a_key_is_for_its_models_and_roles_only(bench: Bench) -> None:
    bench.cli("create", "team-d")
    narrow = bench.cli("key", "create", "team-d", "--models", "other-*").strip()
    bench.wait(narrow, FORBIDDEN)
    viewer = bench.cli("key", "create", "team-d", "--role", "viewer").strip()
    bench.wait(viewer, FORBIDDEN)
    assert bench.curl("GET", "/v2/models", viewer) == (200, {"models": ["add_sub"]})
    assert bench.curl("GET", "/v2/models", narrow) == (200, {"models": []})
    assert bench.curl("GET", "/v2/tenants", viewer)[0] == 403


def test_tenants_are_managed_over_http(bench: Bench) -> None:
    bench.manage("POST", "", {"name": "team-e"})
    boss = bench.manage("POST", "/team-e/keys", {"roles": ["tenant-admin"]})["key"]
    eventually(lambda: bench.curl("GET", "/v2/tenants", boss)[0] == 200, "the key does not work")
    status, made = bench.curl("POST", "/v2/tenants/team-e/keys", boss, {"label": "CI"})
    assert (status, made["roles"]) == (200, ["user"])
    bench.wait(made["key"], WORKS)
    assert bench.curl("GET", "/v2/tenants/root", boss) == (
        403,
        {"error": "not allowed: manage_tenants of tenant 'root'"},
    )
    assert bench.curl("POST", "/v2/tenants/team-e", boss, {"weight": 9})[0] == 403
    assert bench.curl("POST", "/v2/tenants", bench.admin, {"name": "a b"})[0] == 400
    assert bench.curl("GET", "/v2/tenants/nobody", bench.admin)[0] == 404
    bench.manage("POST", "/team-e/quotas", {"limits": {"rows_per_day": 10}, "models": "x"})
    assert json.loads(bench.cli("quota", "list", "team-e", "--json")) == {"x": {"rows_per_day": 10}}
    bench.curl("POST", f"/v2/tenants/team-e/keys/{made['id']}/revoke", boss)
    bench.wait(made["key"], UNKNOWN)
    bench.manage("DELETE", "/team-e")
    eventually(lambda: bench.curl("GET", "/v2/tenants", boss)[0] == 401, "the key still works")


def test_the_day_of_a_keys_last_use_is_written(bench: Bench) -> None:
    bench.cli("create", "team-f")
    made = json.loads(bench.cli("key", "create", "team-f", "--json"))
    assert made["last_used"] is None
    bench.wait(made["key"], WORKS)

    def written() -> bool:
        bench.asks(made["key"])
        (key,) = bench.manage("GET", "/team-f/keys")
        return key["last_used"] is not None

    eventually(written, "the last use is not written")


def test_no_key_is_in_the_servers_log_or_in_its_folders(bench: Bench) -> None:
    bench.cli("create", "team-g")
    key = bench.cli("key", "create", "team-g").strip()
    bench.wait(key, WORKS)
    bench.asks(key[:-1])
    for secret in (key.split("_")[2], bench.admin.split("_")[2]):
        assert secret[:40] not in bench.server.log + bench.server.banner
        for file in (*bench.server.folder.rglob("*"), *bench.file.parent.iterdir()):
            if file.is_file():
                assert secret[:40].encode() not in file.read_bytes()
