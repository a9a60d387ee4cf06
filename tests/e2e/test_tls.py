"""TLS on all ports of both fronts, with clients that must show certificates: real clients, and what is refused."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from certificates import DAY, Authority
from penstock.cli import main
from penstock.gateway.forwarded_certificate import forwarded_pem
from secured import CLIENT_URI, Files, curl, s_client, seconds_left
from served import FRONTS, Served
from served_models import write_add_sub

pytestmark = pytest.mark.e2e

PORTS = ("http_port", "grpc_port", "metrics_port")
ALPN = {"http_port": "http/1.1", "grpc_port": "h2", "metrics_port": "http/1.1"}
ACCESS = f"""
    [access]
    mode = "required"
    tenants_file = "tenants.db"
    [[access.certificates]]
    uri = "{CLIENT_URI}"
    tenant = "clients"
    roles = ["admin"]
"""
ROW = np.array([1, 2, 3, 4], np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    write_add_sub(folder / "models" / "add_sub")
    return Files(folder)


@pytest.fixture(scope="module", params=FRONTS)
def secured(request: pytest.FixtureRequest, files: Files) -> Iterator[Served]:
    """A server that asks every client for a certificate, and lets those do something that it knows."""
    config = files.folder / "penstock.toml"
    config.write_text(ACCESS)
    served = Served(files.folder / "models", request.param, *files.flags(), f"--config={config}")
    try:
        served.wait_ready()
        served.tls = files.context()
        yield served
        assert served.stop() == 0, served.log
        assert not served.log.count("Traceback"), served.log
    finally:
        served.close()


def inputs(client: Any) -> list[Any]:
    """Of add_sub."""
    given = [client.InferInput(name, ROW.shape, "FP32") for name in ("INPUT0", "INPUT1")]
    for tensor in given:
        tensor.set_data_from_numpy(ROW)
    return given


# ── who is let in ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_nvidias_clients(secured: Served, files: Files) -> None:
    with files.grpc(secured) as rpc:
        answer: Any = rpc.infer("add_sub", inputs(tritonclient.grpc))
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ROW + ROW)
    with files.http(secured) as http:
        answer = http.infer("add_sub", inputs(tritonclient.http))
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), ROW + ROW)


def test_curl(secured: Served, files: Files) -> None:
    for port, path in (("http_port", "/v2/health/ready"), ("metrics_port", "/metrics")):
        url = f"https://localhost:{getattr(secured.settings, port)}{path}"
        code, said = curl(files, url, "-o", "/dev/null", "-w", "%{http_code}", pair=files.client)
        assert (code, said) == (0, "200")
        code, said = curl(files, url, pair=None)
        # 56: the server's alert came after the handshake; 35: in it; 52, 16: it closed the connection
        assert code in (16, 35, 52, 55, 56), said


def test_our_own_commands(
    secured: Served,
    files: Files,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"https://{secured.http}"
    certificate, key = map(str, files.client)
    identity = ["--ca-file", str(files.ca), "--cert-file", certificate, "--key-file", key]
    assert main(["models", "list", "--url", url, *identity]) == 0
    assert "add_sub" in capsys.readouterr().out
    values = ["-i", "INPUT0=[1,2,3,4]", "-i", "INPUT1=[1,2,3,4]", "-o", "json"]
    # where files of TLS are given, TLS is meant
    assert main(["infer", "add_sub", *values, "--url", secured.http, *identity]) == 0
    assert "8.0" in capsys.readouterr().out
    assert main(["models", "list", "--url", url, "--ca-file", str(files.ca)]) == 1
    assert "if it asks for a client certificate, --cert-file and" in capsys.readouterr().err
    assert main(["models", "list", "--url", url]) == 1
    assert "its certificate is not trusted: " in capsys.readouterr().err


@pytest.mark.parametrize("port", PORTS)
def test_versions(secured: Served, files: Files, port: str) -> None:
    number = getattr(secured.settings, port)
    certificate, key = map(str, files.client)
    own = ["-cert", certificate, "-key", key, "-CAfile", str(files.ca), "-verify_return_error"]
    own += ["-alpn", ALPN[port]]
    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        answer, said = s_client(number, version, *own)
        assert f"Protocol version: {name}" in said
        assert "Verification: OK" in said
        assert answer, said
    for refused in (
        ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES128-SHA"),
    ):
        answer, said = s_client(number, *refused, *own)
        assert not answer
        assert "Protocol version" not in said


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_clients_without_a_good_certificate_are_refused(
    secured: Served, files: Files, port: str, version: str
) -> None:
    number = getattr(secured.settings, port)
    stranger = files.issue_client("stranger", Authority())
    over = files.issue_client("over", after=-3 * DAY)
    for pair in (None, stranger, over):
        own = ["-cert", str(pair[0]), "-key", str(pair[1])] if pair else []
        answer, said = s_client(number, version, "-alpn", ALPN[port], *own)
        assert not answer, said


def test_handshakes_that_go_on_for_ever(secured: Served) -> None:
    """Ten seconds; whoever has not finished then has not come to anything that counts connections."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    half = [
        socket.create_connection(("127.0.0.1", getattr(secured.settings, port)), timeout=30)
        for port in PORTS
        for _ in range(3)
    ]
    try:
        for connection in half:
            connection.sendall(hello)
        for connection in half:
            with suppress(ConnectionResetError):
                assert connection.recv(1000) in (b"", b"\x15")
    finally:
        for connection in half:
            connection.close()


def test_strangers_get_no_rpc_through(secured: Served, files: Files) -> None:
    with (
        files.grpc(secured, files.issue_client("stranger", Authority())) as rpc,
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        rpc.is_server_live(client_timeout=20)


def test_nobody_is_who_a_header_says(secured: Served, files: Files) -> None:
    """A certificate of the right CA, of somebody who is not known here."""
    other = files.issue_client("other", uris=["spiffe://example.org/other"])
    known = forwarded_pem(files.client[0].read_bytes()).decode()
    url = f"https://localhost:{secured.settings.http_port}/v2/models/add_sub"
    for header in ("x-forwarded-client-cert", "X-Forwarded-Client-Cert", "x_forwarded_client_cert"):
        code, said = curl(files, url, "-H", f"{header}: {known}", "-w", "%{http_code}", pair=other)
        assert code == 0
        assert said.endswith("401"), said
    with files.grpc(secured, other) as rpc:
        for forged in ({}, {"x-forwarded-client-cert": known}):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                rpc.infer("add_sub", inputs(tritonclient.grpc), headers=forged)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                rpc.get_model_metadata("add_sub", headers=forged)


def test_plain_text_is_not_spoken(secured: Served) -> None:
    for port in PORTS:
        url = f"http://127.0.0.1:{getattr(secured.settings, port)}/v2/health/live"
        done = subprocess.run(["curl", "-sS", url], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert not done.stdout


def test_http_2_is_agreed_on_where_both_speak_it(secured: Served, files: Files) -> None:
    certificate, key = map(str, files.client)
    own = ["-cert", certificate, "-key", key, "-alpn", "h2,http/1.1"]

    def agreed(port: str) -> bytes:
        number = getattr(secured.settings, port)
        connect = ["openssl", "s_client", "-connect", f"127.0.0.1:{number}", *own]
        return subprocess.run(connect, input=b"", capture_output=True, check=False).stdout

    assert b"ALPN protocol: h2" in agreed("grpc_port")
    wanted = b"h2" if secured.front == "envoy" else b"http/1.1"
    assert b"ALPN protocol: %s" % wanted in agreed("http_port")


# ── what it tells of it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_banner(secured: Served, files: Files) -> None:
    settings, banner = secured.settings, secured.banner
    assert f"https://127.0.0.1:{settings.http_port}\n" in banner
    assert f"gRPC     grpcs://127.0.0.1:{settings.grpc_port}\n" in banner
    assert f"https://127.0.0.1:{settings.metrics_port}/metrics" in banner
    assert f"Clients must show a certificate of a CA in {files.client_ca}." in banner


def test_when_certificates_end(secured: Served) -> None:
    metrics = secured.metrics()
    name = "penstock_tls_certificate_expiry_timestamp_seconds"
    left_s = seconds_left(metrics[f'{name}{{kind="server"}}'])
    assert 0 < left_s < DAY.total_seconds()
    assert seconds_left(metrics[f'{name}{{kind="client_ca"}}']) > 300 * DAY.total_seconds()
    assert metrics["penstock_tls_refused_rotations_total"] == 0


# ── other ways to ask for certificates ──────────────────────────────────────────────────────────────────────────────


def test_certificates_that_clients_need_not_show(
    files: Files, serve: Callable[..., Served], front: str
) -> None:
    """Nor do they show any to gRPC here, which can't be asked for optional ones on the portable front."""
    flags = [*files.flags("optional"), "--tls-min-version=1.3", "--allow-grpc=false"]
    served = serve(files.folder / "models", front, *flags).wait_ready()
    assert "Clients may show a certificate of a CA in" in served.banner
    url = f"https://localhost:{served.settings.http_port}/v2/health/live"
    for pair in (None, files.client):
        code, said = curl(files, url, "-o", "/dev/null", "-w", "%{http_code}", pair=pair)
        assert (code, said) == (0, "200")
    code, said = curl(files, url, pair=files.issue_client("stranger", Authority()))
    assert code != 0, said
    code, said = curl(files, url, "--tls-max", "1.2", pair=files.client)
    assert code == 35, said


# ── bad starts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tls-key-file=client.key"], "tls.key_file: {}/client.key is not the key of the"),
        (["--tls-cert-file=none.pem"], "tls.cert_file: {}/none.pem can't be read: No such file"),
        (["--tls-client-ca-file=client.key"], "tls.client_ca_file: {}/client.key has no certif"),
        (["--tls-client-auth=none"], "tls.client_ca_file needs tls.client_auth optional or"),
        (["--tls-client-auth=never"], "--tls-client-auth: expected 'none', 'optional'"),
        (["--tls-min-version=1.1"], "--tls-min-version: expected '1.2' or '1.3'"),
        (["--tls-client-auth=optional", "--front=grpcio"], "tls.client_auth optional: gRPC on"),
        (["--tls-min-version=1.3", "--front=grpcio"], "tls.min_version 1.3: gRPC on the front"),
    ],
)
def test_a_bad_start_is_one_line(
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(files.folder)
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    given = {flag.partition("=")[0]: flag for flag in [*files.flags(), *flags]}
    assert main(["serve", "models", *ports, *given.values()]) == 2
    said = capsys.readouterr().err
    assert words.format(files.folder) in said
    assert said.count("\n") == 1


def test_tritons_flags(files: Files, serve: Callable[..., Served], tmp_path: Path) -> None:
    certificate, key = files.server
    write_add_sub(tmp_path / "models" / "add_sub")
    served = serve(
        tmp_path / "models",
        "grpcio",
        *("--grpc-use-ssl", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"),
        *("--grpc-use-ssl-mutual", "true", f"--grpc-root-cert={files.client_ca}"),
    ).wait_ready()
    with files.grpc(served) as rpc:
        assert rpc.is_server_ready()
