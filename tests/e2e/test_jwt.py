"""Tokens of an issuer, through real clients of a running server: good ones, bad ones, and issuers that change."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from grpc_calls import MODEL_INFER, infer_request
from jwt_issuer import (
    DISCOVERY_PATH,
    SECRET,
    IssuerKey,
    IssuerServer,
    claims_of,
    hmac_token,
    key_of,
    key_set,
    serving,
)
from penstock.access.jwt_auth import NOT_YET, REFUSED
from penstock.audit.reading import Filter, records
from served import FRONTS, Served
from served_models import write_add_sub
from supervised import eventually

pytestmark = pytest.mark.e2e

KEY = key_of("ES256")
OTHER = key_of("RS256", "rsa")
FILE_ISSUER = "of a file"
SECRET_ISSUER = "of a secret"

CONFIG = """
[access]
mode = "required"
tenants_file = "tenants.db"

[audit]
folder = "audit"

[[access.jwt]]
issuer = "{issuer}"
audience = ["penstock", "penstock-2"]
roles_claim = "realm.groups"
role_map = {{ml = "user", ops = ["operator", "viewer"], watch = "monitor"}}
leeway_secs = 0
refresh_secs = 1
refresh_min_secs = 0.1

[[access.jwt]]
issuer = "{late}"
audience = "penstock"
default_roles = "user"
refresh_min_secs = 0.1

[[access.jwt]]
issuer = "of a file"
audience = "penstock"
default_roles = "user"
jwks_file = "keys.json"

[[access.jwt]]
issuer = "of a secret"
audience = "penstock"
default_roles = "user"
secret = "file:{secret}"
"""


@dataclass
class Secured:
    """A server that asks for tokens, and those who make them."""

    served: Served
    issuer: IssuerServer
    late: IssuerServer
    """Has no keys yet."""
    folder: Path
    http: tritonclient.http.InferenceServerClient
    rpc: tritonclient.grpc.InferenceServerClient

    def token(self, key: IssuerKey = KEY, **changes: Any) -> bytes:
        """One of `issuer`, for the group `ml`."""
        return key.sign(claims_of(self.issuer.url, **{"realm": {"groups": ["ml"]}, **changes}))


@pytest.fixture(scope="module", params=FRONTS)
def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """One a front."""
    folder = tmp_path_factory.mktemp("jwt")
    write_add_sub(folder / "models" / "add_sub")
    (folder / "keys.json").write_bytes(key_set(KEY))
    with serving(KEY, OTHER) as issuer, serving() as late:
        late.pages.clear()
        secret, config = folder / "secret", folder / "penstock.toml"
        _write_secret(secret, SECRET)
        config.write_text(CONFIG.format(issuer=issuer.url, late=late.url, secret=secret))
        served = Served(folder / "models", request.param, f"--config={config}")
        try:
            served.wait_ready()
            with (
                tritonclient.http.InferenceServerClient(served.http) as http,
                tritonclient.grpc.InferenceServerClient(served.grpc) as rpc,
            ):
                secured = Secured(served, issuer, late, folder, http, rpc)
                eventually(lambda: _http(secured, secured.token()) == "200", "no keys")
                yield secured
            assert served.stop() == 0, served.log
        finally:
            served.close()


def _headers(token: bytes) -> dict[str, str]:
    return {"authorization": f"Bearer {token.decode('latin-1')}"}


def _inputs(module: Any) -> list[Any]:
    made = []
    for name in ("INPUT0", "INPUT1"):
        made.append(module.InferInput(name, [4], "FP32"))
        made[-1].set_data_from_numpy(np.ones(4, np.float32))
    return made


def _http(secured: Secured, token: bytes) -> str:
    """What NVIDIA's client for HTTP gets."""
    try:
        secured.http.infer("add_sub", _inputs(tritonclient.http), headers=_headers(token))
    except InferenceServerException as error:
        return str(error.status())
    return "200"


def _grpc(secured: Secured, token: bytes) -> str:
    """What NVIDIA's client for gRPC gets."""
    try:
        secured.rpc.infer("add_sub", _inputs(tritonclient.grpc), headers=_headers(token))
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"


def _curl(secured: Secured, token: bytes, path: str = "/v2/models/add_sub") -> str:
    """The status that curl sees."""
    authorization = b"Authorization: Bearer " + token
    url = f"http://{secured.served.http}{path}"
    shown = ["-s", "-o", "/dev/null", "-w", "%{http_code}"]
    return subprocess.run(
        ["curl", *shown, "-H", authorization, url], capture_output=True, check=True, timeout=30
    ).stdout.decode()


def test_a_good_token_on_both_protocols(secured: Secured) -> None:
    """Of each of the issuer's keys."""
    for key in (KEY, OTHER):
        token = secured.token(key, aud=["elsewhere", "penstock-2"])
        assert _http(secured, token) == "200"
        assert _grpc(secured, token) == "OK"
        assert _curl(secured, token) == "200"


def _confused(secured: Secured) -> bytes:
    """The public key as a secret."""
    return hmac_token(key_set(KEY), {"alg": "HS256", "kid": "first"}, claims_of(secured.issuer.url))


BAD: Mapping[str, Callable[[Secured], bytes]] = {
    "audience": lambda secured: secured.token(aud="somebody"),
    "issuer": lambda secured: secured.token(iss="https://somebody"),
    "another issuer's key": lambda secured: secured.token(iss=secured.late.url),
    "signature": lambda secured: secured.token(IssuerKey("ES256", "first")),
    "unknown key": lambda secured: secured.token(IssuerKey("ES256", "unknown")),
    "algorithm": _confused,
    "no algorithm": lambda secured: jwt.encode(claims_of(secured.issuer.url), "", "none").encode(),
    "expired": lambda secured: secured.token(exp=int(time.time()) - 1),
    "not yet": lambda secured: secured.token(nbf=int(time.time()) + 100),
    "no tenant": lambda secured: secured.token(tenant=None),
    "cut": lambda secured: secured.token()[:-4],
    "nothing in it": lambda secured: b"..",
}


@pytest.mark.parametrize("name", [name for name in BAD if name != "another issuer's key"])
def test_a_bad_token_is_401(secured: Secured, name: str) -> None:
    """In the same words, whatever is wrong; and whatever is asked for."""
    token = BAD[name](secured)
    assert _http(secured, token) == "401"
    assert _grpc(secured, token) == "UNAUTHENTICATED"
    for path in ("/v2/models/add_sub", "/v2/models/nothing", "/v2"):
        answer = secured.served.request("GET", path, headers=_headers(token))
        assert (answer.status, answer.error) == (401, REFUSED)
    assert REFUSED in _details(secured, token)


def test_the_audit_log_knows_why(secured: Secured) -> None:
    """And holds neither the token nor what it says."""
    token = secured.token(exp=int(time.time()) - 1, sub="planted", tenant="planted")
    assert _curl(secured, token) == "401"
    folder = secured.folder / "audit"

    def is_there() -> bool:
        found = records(folder, Filter(limit=10_000, action="authenticate"))
        return any(record.reason == "token: expired" for record in found)

    eventually(is_there, "no record")
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for part in (b"planted", *token.split(b".")):
        assert part not in text
        assert part.decode() not in secured.served.log


def _details(secured: Secured, token: bytes) -> str:
    with grpc.insecure_channel(secured.served.grpc) as channel:
        call = channel.unary_unary(MODEL_INFER)
        message = infer_request("nothing").SerializeToString()
        try:
            call(message, timeout=30, metadata=tuple(_headers(token).items()))
        except grpc.RpcError as error:
            status: Any = error
            return str(status.details())
    raise AssertionError("no error")


def test_roles_of_a_claim(secured: Secured) -> None:
    """What the group may do, and no more: 403, whether there is such a model or not."""
    user, operator = secured.token(), secured.token(realm={"groups": ["ops"]})
    nobody = secured.token(realm={"groups": ["admin"]})
    assert _curl(secured, user) == "200"
    for path in ("/v2/models/add_sub/stats", "/v2/models/nothing/stats"):
        assert _curl(secured, user, path=path) == "403"
    assert _curl(secured, operator, path="/v2/models/add_sub/stats") == "200"
    assert _grpc(secured, operator) == _grpc(secured, nobody) == "PERMISSION_DENIED"
    assert _http(secured, operator) == _http(secured, nobody) == "403"


def test_a_token_ends_while_it_is_used(secured: Secured) -> None:
    """What was remembered of it ends with it; so does what a stream may ask."""
    token = secured.token(exp=int(time.time()) + 2)
    answers: list[str] = []
    streamed: list[Exception | None] = []
    with tritonclient.grpc.InferenceServerClient(secured.served.grpc) as rpc:
        rpc.start_stream(lambda result, error: streamed.append(error), headers=_headers(token))
        rpc.async_stream_infer("add_sub", _inputs(tritonclient.grpc))
        eventually(lambda: len(streamed) == 1, "no answer")
        assert streamed == [None]
        assert (_http(secured, token), _grpc(secured, token)) == ("200", "OK")

        def has_ended() -> bool:
            answers[:] = [_http(secured, token), _grpc(secured, token)]
            return "200" not in answers and "OK" not in answers

        eventually(has_ended, "the token holds for ever")
        assert answers == ["401", "UNAUTHENTICATED"]
        assert time.time() >= jwt.decode(token, options={"verify_signature": False})["exp"]
        rpc.async_stream_infer("add_sub", _inputs(tritonclient.grpc))
        eventually(lambda: len(streamed) == 2, "no error")
    assert streamed[1] is not None


def test_the_issuer_changes_its_keys(secured: Secured) -> None:
    """A new key holds as soon as a token names it; one that was taken back holds no more, remembered or not."""
    new, old = IssuerKey("ES256", "new"), secured.token()
    assert _http(secured, old) == "200"
    try:
        secured.issuer.show(KEY, OTHER, new)
        eventually(lambda: _grpc(secured, secured.token(new)) == "OK", "the new key is not found")
        assert (_http(secured, old), _http(secured, secured.token(new))) == ("200", "200")
        secured.issuer.show(OTHER, new)
        eventually(lambda: _http(secured, old) == "401", "the old key is not forgotten")
        assert _grpc(secured, old) == "UNAUTHENTICATED"
        assert _http(secured, secured.token(new)) == "200"
    finally:
        secured.issuer.show(KEY, OTHER)
        eventually(lambda: _http(secured, old) == "200", "the old key is not back")


def test_the_issuer_is_away(secured: Secured) -> None:
    """Its last keys go on, for tokens that were seen and for new ones."""
    seen, asked = secured.token(), len(secured.issuer.asked)
    assert _http(secured, seen) == "200"
    secured.issuer.pages.clear()
    try:
        eventually(lambda: len(secured.issuer.asked) > asked + 2, "the issuer is not asked")
        assert DISCOVERY_PATH in secured.issuer.asked[asked:]
        for token in (seen, secured.token(sub="bob")):
            assert (_http(secured, token), _grpc(secured, token)) == ("200", "OK")
        eventually(lambda: "the keys that are known go on" in secured.served.log, "no log")
    finally:
        secured.issuer.show(KEY, OTHER)


def test_the_issuer_was_away_from_the_start(secured: Secured) -> None:
    """Nobody can tell whether its tokens are good: come back. And then they are."""
    token = KEY.sign(claims_of(secured.late.url))
    answer = secured.served.request("GET", "/v2/models/add_sub", headers=_headers(token))
    assert (answer.status, answer.error) == (503, NOT_YET)
    assert answer.headers["retry-after"] == "1"
    assert _grpc(secured, token) == "UNAVAILABLE"
    # who asks for what is public is not told of it
    assert secured.served.request("GET", "/v2/health/live", headers=_headers(token)).status == 200
    secured.late.show(KEY)
    try:
        eventually(lambda: _http(secured, token) == "200", "no keys")
        assert _grpc(secured, token) == "OK"
        assert _curl(secured, BAD["another issuer's key"](secured), path="/v2") == "200"
        forged = IssuerKey("ES256", "first").sign(claims_of(secured.late.url))
        assert _http(secured, forged) == "401"
    finally:
        secured.late.pages.clear()


def test_metrics_of_issuers(secured: Secured) -> None:
    """How many keys each has, and how it went to get them."""
    watcher = _headers(secured.token(realm={"groups": ["watch"]}))
    port = secured.served.settings.metrics_port
    assert secured.served.request("GET", "/metrics", port=port).status == 401
    page = secured.served.request("GET", "/metrics", headers=watcher, port=port).body.decode()
    found = dict(line.rsplit(" ", 1) for line in page.splitlines() if "penstock_jwt" in line)
    label = f'issuer="{secured.issuer.url}"'
    assert found[f"penstock_jwt_keys{{{label}}}"] == "2.0"
    assert found[f'penstock_jwt_keys{{issuer="{FILE_ISSUER}"}}'] == "1.0"
    assert float(found[f"penstock_jwt_keys_timestamp_seconds{{{label}}}"]) > time.time() - 300
    assert float(found[f'penstock_jwt_key_reads_total{{{label},outcome="success"}}']) >= 1
    late = f'issuer="{secured.late.url}"'
    assert float(found[f'penstock_jwt_key_reads_total{{{late},outcome="failure"}}']) >= 1


def test_keys_of_a_file(secured: Secured) -> None:
    """Changed while the server runs."""
    token, new = KEY.sign(claims_of(FILE_ISSUER)), IssuerKey("EdDSA", "new")
    assert (_http(secured, token), _grpc(secured, token)) == ("200", "OK")
    (secured.folder / "new").write_bytes(key_set(new))
    os.replace(secured.folder / "new", secured.folder / "keys.json")
    eventually(lambda: _http(secured, token) == "401", "the old key holds")
    assert _grpc(secured, new.sign(claims_of(FILE_ISSUER))) == "OK"


def test_a_secret_that_is_shared_with_the_issuer(secured: Secured) -> None:
    """Changed while the server runs; it is in no log."""
    token = hmac_token(SECRET, {"alg": "HS256"}, claims_of(SECRET_ISSUER))
    assert (_http(secured, token), _grpc(secured, token)) == ("200", "OK")
    assert _http(secured, KEY.sign(claims_of(SECRET_ISSUER))) == "401"
    assert _http(secured, hmac_token(SECRET, {"alg": "HS256"}, claims_of(FILE_ISSUER))) == "401"
    _write_secret(secured.folder / "secret", SECRET[::-1])
    eventually(lambda: _http(secured, token) == "401", "the old secret holds")
    other = hmac_token(SECRET[::-1], {"alg": "HS256"}, claims_of(SECRET_ISSUER))
    assert _grpc(secured, other) == "OK"
    for secret in (SECRET, SECRET[::-1]):
        assert secret.decode() not in secured.served.log


def _write_secret(path: Path, secret: bytes) -> None:
    aside = path.with_suffix(".new")
    aside.write_bytes(secret)
    aside.chmod(0o600)
    os.replace(aside, path)


def test_a_broken_file_of_keys_stops_the_start(
    serve: Callable[..., Served], front: str, tmp_path: Path
) -> None:
    """By name."""
    write_add_sub(tmp_path / "models" / "add_sub")
    (tmp_path / "keys.json").write_text('{"keys": []}')
    config = tmp_path / "penstock.toml"
    config.write_text(
        '[access]\nmode = "required"\ntenants_file = "tenants.db"\n[[access.jwt]]\nissuer = "x"\naudience = "y"\n'
        'default_roles = "user"\njwks_file = "keys.json"\n'
    )
    server = serve(tmp_path / "models", front, f"--config={config}")
    assert server.process.wait(30) == 1
    assert f"{tmp_path}/keys.json: no keys: no key in it that fits" in server.log
