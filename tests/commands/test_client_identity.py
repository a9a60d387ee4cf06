"""What `penstock models` and `penstock infer` show of themselves to a server, and whom they trust."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from certificates import Authority
from penstock.cli import main
from penstock.commands.client_identity import Identity

SECRET = "psk_abc_0123456789"


class Handler(BaseHTTPRequestHandler):
    seen: ClassVar[list[str | None]]
    status = 200

    def do_POST(self) -> None:
        self.seen.append(self.headers["Authorization"])
        body = b"[]" if self.status == 200 else b'{"error": "who are you?"}'
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    class Own(Handler):
        seen: ClassVar[list[str | None]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}", Own
        made.shutdown()
        thread.join()


def test_the_api_key_comes_from_the_environment(
    server: tuple[str, type[Handler]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = server
    assert main(["models", "list", "--url", url]) == 0
    monkeypatch.setenv("PENSTOCK_API_KEY", SECRET)
    assert main(["models", "list", "--url", url]) == 0
    assert handler.seen == [None, f"Bearer {SECRET}"]


@pytest.mark.parametrize("status", [401, 403, 429])
def test_what_the_server_refuses_is_one_line(
    server: tuple[str, type[Handler]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    url, handler = server
    handler.status = status
    monkeypatch.setenv("PENSTOCK_API_KEY", SECRET)
    assert main(["models", "list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert said == f"penstock: {url} answered {status}: who are you?\n"


def test_who_shows_nothing_is_told_how(
    server: tuple[str, type[Handler]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, handler = server
    handler.status = 401
    monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)
    assert main(["models", "list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"penstock: {url} answered 401: who are you? (PENSTOCK_API_KEY in the environment is the API key to"
        " show, --cert-file a certificate)\n"
    )


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x03\x00\x02\x02\x46"], ids=["none", "alert"])
def test_http_to_a_port_of_tls(capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    """Such a server closes the connection, with or without an alert."""

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert main(["models", "list", "--url", f"http://{place}"]) == 1
        thread.join()
    assert capsys.readouterr().err.endswith(f": it may speak TLS: try https://{place}\n")


def test_a_key_is_not_shown() -> None:
    assert SECRET not in repr(Identity(api_key=SECRET))


def test_files_that_are_no_good_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = Authority().issue(passphrase=b"hush").write(tmp_path, "client")
    for flags, words in (
        (["--ca-file", "/nowhere"], "--ca-file: /nowhere: No such file"),
        (["--ca-file", str(key)], f"--ca-file: {key}: "),
        (["--key-file", str(key)], "--key-file needs --cert-file"),
        (["--cert-file", str(certificate)], f"--cert-file: {certificate}: "),
        (
            ["--cert-file", str(certificate), "--key-file", str(key)],
            "--key-file: the key has a passphrase, expected one without",
        ),
    ):
        assert main(["models", "list", "--url", "https://127.0.0.1:1", *flags]) == 1
        assert words in capsys.readouterr().err
    plain = ["--url", "http://127.0.0.1:1", "--cert-file", str(certificate)]
    assert main(["models", "list", *plain]) == 1
    assert "are for https:// alone" in capsys.readouterr().err
