"""The supervisor over real processes: Envoy, a fake gateway inside it, and real workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.supervisor.envoy_admin import EnvoyAdmin
from served import descriptors
from supervised import Server, eventually, marked

pytestmark = pytest.mark.e2e

Start = Callable[..., Server]


def wait_for_active_request(server: Server) -> None:
    admin = EnvoyAdmin(server.run_dir / "admin.sock")
    eventually(lambda: asyncio.run(admin.active_requests()) == 1, "the request did not arrive")


def test_banner_says_what_is_served_where(start: Start) -> None:
    server = start(FAKE_MODELS="READY,UNAVAILABLE").wait_ready()
    settings, banner = server.settings, "\n".join(server.banner)
    assert f"http://127.0.0.1:{settings.http_port}\n" in banner
    assert f"gRPC     127.0.0.1:{settings.grpc_port}" in banner
    assert f"http://127.0.0.1:{settings.metrics_port}/metrics" in banner
    assert "Only this machine can connect" in banner
    assert "  m1     1        UNAVAILABLE  fake     1\n    no such file\n" in banner
    assert "1 of 2 models ready" in banner
    assert "\x1b" not in banner


def test_what_lies_in_the_run_dir_is_private(start: Start) -> None:
    run_dir = start().wait_ready().run_dir
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    for name in ("settings.json", "http.sock", "admin.sock"):
        assert stat.S_IMODE((run_dir / name).stat().st_mode) == 0o600


def test_envoy_has_nothing_in_shared_memory_that_could_stay(start: Start) -> None:
    server = start().wait_ready()
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in marked(server.mark)]
    assert any("_pyvoy" in text for text in maps)
    assert not any("/dev/shm" in text for text in maps)


def test_all_ports_reach_the_one_application(start: Start) -> None:
    server = start().wait_ready()
    for port in server.settings.ports().values():
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_cleanly(start: Start, number: signal.Signals) -> None:
    server = start().wait_ready()
    server.signal(number)
    assert server.wait() == 0


def test_requests_under_way_are_answered_before_the_end(start: Start, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    server = start("--model-control-mode=explicit", f"--load-model={seen}").wait_ready()
    connection = server.send("/slow?1")
    wait_for_active_request(server)
    server.signal(signal.SIGTERM)
    assert connection.getresponse().status == 200
    connection.close()
    assert server.wait() == 0
    assert json.loads(seen.read_text()) == ["Inheritance", "Drain", "Shutdown"]


def test_a_drain_that_takes_too_long_says_what_it_dropped(start: Start) -> None:
    server = start("--exit-timeout-secs=0.1").wait_ready()
    connection = server.send("/slow?60")
    wait_for_active_request(server)
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    assert "1 requests were dropped: not answered within 0.1 s" in server.log
    connection.close()


def test_the_second_ctrl_c_ends_at_once(start: Start) -> None:
    server = start().wait_ready()
    connection = server.send("/slow?60")
    wait_for_active_request(server)
    server.signal(signal.SIGINT)
    eventually(lambda: "SIGINT: stopping" in server.log, "the first Ctrl-C was not seen")
    server.signal(signal.SIGINT)
    assert server.wait() == 130
    connection.close()


def test_sigkill_of_the_supervisor_leaves_no_process(start: Start) -> None:
    server = start().wait_ready()
    server.get("/worker/1")
    assert len(marked(server.mark)) == 3
    server.signal(signal.SIGKILL)
    server.wait()
    eventually(lambda: not marked(server.mark), "processes are left")


def test_the_first_gateway_inherits_nothing(start: Start) -> None:
    server = start().wait_ready()
    assert server.get("/inherited")[1] == {"kept": {}, "next": 1, "wanted": None}


def test_a_crashed_gateways_loaded_workers_go_to_the_next_one(start: Start) -> None:
    """Those that have nothing loaded end."""
    server = start().wait_ready()
    (_, loading), (_, loaded) = server.get("/worker/1"), server.get("/worker/2")
    server.get("/loaded/2")
    with pytest.raises(ConnectionError):
        server.get("/crash")
    eventually(lambda: "the gateway ended: exit code 3" in server.log, "crash not told")
    eventually(lambda: gone(loading["pid"]), "the worker that had nothing loaded lives")
    eventually(lambda: answers(server), "the gateway did not come back")
    _, inherited = server.get("/inherited")
    kept = {"2": [loaded["pid"], "m0/1 #2", "key of 2"]}
    assert inherited == {"kept": kept, "next": 3, "wanted": {"m0": True}}
    eventually(lambda: "the gateway serves again" in server.log, "not told")
    assert "1 workers went on" in server.log
    # it is this gateway's own now
    server.get("/stop/2")
    assert gone(loaded["pid"])


def test_a_worker_that_ends_while_there_is_no_gateway_is_not_handed_on(start: Start) -> None:
    server = start().wait_ready()
    workers = [server.get(f"/worker/{number}")[1]["pid"] for number in (1, 2)]
    for number in (1, 2):
        server.get(f"/loaded/{number}")
    # the supervisor sees both at once: it looks for ended workers before it starts a gateway
    server.signal(signal.SIGSTOP)
    crash(server)
    os.kill(workers[0], signal.SIGKILL)
    server.signal(signal.SIGCONT)
    eventually(lambda: answers(server), "the gateway did not come back")
    _, inherited = server.get("/inherited")
    assert [(number, kept[0]) for number, kept in inherited["kept"].items()] == [("2", workers[1])]


def test_crashes_leave_no_descriptors(start: Start) -> None:
    server = start().wait_ready()
    server.get("/worker/1")
    server.get("/loaded/1")
    before = descriptors(server.process.pid)
    for _ in range(2):
        crash(server)
        eventually(lambda: answers(server), "the gateway did not come back")
        server.get("/inherited")
    # probes come and go
    eventually(lambda: descriptors(server.process.pid) <= before, "descriptors are left")


def test_a_stop_while_there_is_no_gateway_ends_the_workers(start: Start) -> None:
    server = start(FIRST_DELAY_S="60").wait_ready()
    server.get("/worker/1")
    server.get("/loaded/1")
    crash(server)
    eventually(lambda: answers(server), "the gateway did not come back")
    # only the second one is waited after
    crash(server)
    eventually(lambda: server.log.count("the gateway ended") == 2, "crash not told")
    assert len(marked(server.mark)) == 2
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not marked(server.mark)


def test_a_blocked_application_is_killed_and_started_again(start: Start) -> None:
    server = start().wait_ready()
    connection = server.send("/hang")
    eventually(lambda: "it did not answer 3 health checks" in server.log, "hang not seen")
    eventually(lambda: answers(server), "the gateway did not come back")
    connection.close()


def test_a_gateway_that_crashes_again_and_again_is_given_up(start: Start) -> None:
    server = start().wait_ready()
    while server.process.poll() is None:
        crash(server)
    assert server.wait() == 1
    assert "penstock: the gateway ended 3 times in a row, at last: exit code 3" in server.log


def test_a_gateway_that_never_starts_ends_the_server(start: Start) -> None:
    server = start(FAKE_GATEWAY="broken")
    assert server.wait() == 1
    assert "penstock: the gateway did not start: " in server.log


def test_a_gateway_that_gives_up_ends_the_server_with_its_reason(start: Start) -> None:
    server = start().wait_ready()
    server.send("/fail").close()
    assert server.wait() == 1
    assert server.log.endswith("penstock: the disk is full\n")


def test_exit_on_error_names_the_models(start: Start) -> None:
    server = start("--exit-on-error", FAKE_MODELS="READY,UNAVAILABLE")
    assert server.wait() == 1
    assert "penstock: --exit-on-error: can't be loaded: m1/1: no such file\n" in server.log


def test_changes_after_the_banner_are_logged(start: Start) -> None:
    server = start().wait_ready()
    server.get("/report?UNAVAILABLE")
    eventually(lambda: "model m0/1 is UNAVAILABLE: no such file" in server.log, "not logged")


def test_a_worker_starts_clean_and_its_end_is_told_in_words(start: Start) -> None:
    server = start().wait_ready()
    _, worker = server.get("/worker/1")
    environment = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
    assert b"FAKE=yes" in environment
    names = {entry.partition(b"=")[0] for entry in environment}
    assert not names & {b"PYTHONHOME", b"LD_PRELOAD", b"PENSTOCK_CONTROL_FD"}
    assert os.getsid(worker["pid"]) == worker["pid"]
    os.kill(worker["pid"], signal.SIGKILL)
    assert server.get("/exit/1") == (200, {"status": -9, "reason": "killed by SIGKILL"})


def test_a_worker_is_stopped_when_the_gateway_asks(start: Start) -> None:
    server = start().wait_ready()
    _, worker = server.get("/worker/1")
    status, _ = server.get("/stop/1")
    assert status == 200
    assert not Path(f"/proc/{worker['pid']}").exists()


def test_workers_end_with_the_server(start: Start) -> None:
    server = start().wait_ready()
    server.get("/worker/1")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not marked(server.mark)


def test_a_port_in_use_is_one_clear_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = start(f"--http-port={port}")
        assert server.wait() == 1
    expected = f"penstock: port {port} on 127.0.0.1 is in use: choose another with --http-port"
    assert server.log.startswith(expected)
    assert server.log.count("\n") == 1


def test_a_second_server_does_not_share_the_port(start: Start) -> None:
    port = start().wait_ready().settings.http_port
    second = start(f"--http-port={port}")
    assert second.wait() == 1
    assert f"port {port} on 127.0.0.1 is in use" in second.log


@pytest.mark.parametrize("path", ["/%ff", "/v2/%C3%28", "/a%2Fb"])
def test_paths_that_would_hang_are_refused(start: Start, path: str) -> None:
    assert start().wait_ready().get(path)[0] in (400, 403)


def test_the_application_always_sees_te_trailers(start: Start) -> None:
    server = start().wait_ready()
    for headers in ({}, {"te": "gzip"}):
        assert server.get("/scope", headers)[1]["headers"]["te"] == "trailers"


def test_headers_forge_no_identity(start: Start) -> None:
    forged = {"x-forwarded-for": "203.0.113.9", "x-forwarded-client-cert": "Subject=boss"}
    _, seen = start().wait_ready().get("/scope", forged)
    assert seen["client"][0] == "127.0.0.1"
    assert "x-forwarded-client-cert" not in seen["headers"]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def answers(server: Server) -> bool:
    try:
        return server.get("/v2/health/live")[0] == 200
    except (OSError, ValueError):
        return False


def crash(server: Server) -> None:
    try:
        server.get("/crash")
    except (OSError, ValueError):
        return
