"""The supervisor's parts that need no gateway."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from penstock.access.tenants import TenantStore
from penstock.config import Settings
from penstock.errors import Unavailable
from penstock.supervisor import front, ports
from penstock.supervisor.banner import Announcer
from penstock.supervisor.child import Child, describe_exit
from penstock.supervisor.front import GatewayCommand
from penstock.supervisor.gateway_life import last_error
from penstock.supervisor.liveness import HttpProbe, PingProbe, ProbeTiming, is_live, wait_until_dead
from penstock.supervisor.local_http import request
from penstock.supervisor.oom import count_oom_kills
from penstock.supervisor.ports import resolve_ports
from penstock.supervisor.run_dir import run_dir
from penstock.supervisor.supervisor import Supervisor
from penstock.workers.supervisor_messages import ModelReport, Ping, Pong, Report


def test_free_ports_are_chosen_and_differ() -> None:
    found = resolve_ports(Settings(http_port=0, grpc_port=0, metrics_port=0)).ports()
    assert len(set(found.values())) == 3
    assert 0 not in found.values()


@pytest.mark.parametrize(
    ("given", "below"), [("20000\t60999\n", 20_000), ("1024\t65535\n", 65_536), (None, 65_536)]
)
def test_free_ports_are_none_that_any_connection_may_get(
    given: str | None, below: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are closed again until the front opens them, and whenever it is started anew."""
    if given is not None:
        (tmp_path / "range").write_text(given)
    monkeypatch.setattr(ports, "KERNELS_RANGE", tmp_path / "range")
    settings = Settings(http_port=0, grpc_port=0, metrics_port=0)
    found = {port for _ in range(20) for port in resolve_ports(settings).ports().values()}
    assert 3 <= len(found) <= 60
    assert min(found) >= 1024 and max(found) < below


def test_a_port_that_is_not_served_is_not_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = Settings(http_port=port, allow_http=False, grpc_port=0, metrics_port=0)
        assert resolve_ports(settings).http_port == port


@pytest.mark.parametrize(
    ("status", "oom", "words"),
    [
        (3, False, "exit code 3"),
        (-9, False, "killed by SIGKILL"),
        (-9, True, "killed: out of memory"),
        (-11, True, "killed by SIGSEGV"),
        (-200, False, "killed by signal 200"),
    ],
)
def test_exits_in_words(status: int, oom: bool, words: str) -> None:
    assert describe_exit(status, out_of_memory=oom) == words


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.set_inheritable(True)
        code = f"import os; os.dup2({writer.fileno()}, 1); {code}"
        child = Child.start([sys.executable, "-c", code], {}, pass_fds=[writer.fileno()])
        await asyncio.get_running_loop().run_in_executor(None, reader.recv, 1)
        assert await child.stop(0.05) == -9


async def test_what_a_child_started_goes_with_it() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader:
        script = f"sleep 600 >/proc/self/fd/{write_end} & echo x >/proc/self/fd/{write_end}"
        child = Child.start(["/bin/sh", "-c", script], {}, pass_fds=[write_end])
        os.close(write_end)
        assert await child.exited == 0
        # the end of file comes when nobody holds the other end any more
        read = asyncio.get_running_loop().run_in_executor(None, reader.read)
        assert await asyncio.wait_for(read, 60) == b"x\n"


def test_oom_kills_are_counted_in_either_version(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/box\n")
    (tmp_path / "box").mkdir()
    (tmp_path / "box/memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert count_oom_kills(proc, tmp_path) == 2
    proc.write_text("5:cpu:/\n4:memory:/host/path\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.oom_control").write_text("under_oom 0\noom_kill 7\n")
    assert count_oom_kills(proc, tmp_path) == 7
    assert count_oom_kills(tmp_path / "none", tmp_path) == 0


def test_the_run_dir_is_new_private_and_gone_at_the_end(tmp_path: Path) -> None:
    short = Path("/tmp")
    with run_dir(short) as first, run_dir(short) as second:
        assert first != second
        assert first.stat().st_mode & 0o777 == 0o700
        (first / "file").touch()
    assert not first.exists()
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(Unavailable, match="too long for Unix sockets"), run_dir(deep):
        pass
    assert not list(deep.iterdir())


async def test_a_full_disk_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()

    def full(_settings: Settings, _folder: Path) -> GatewayCommand:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # pytest's own folders are too deep for Unix sockets
    with tempfile.TemporaryDirectory(prefix="pt-") as short:
        settings = Settings(
            model_repository=(tmp_path / "models",),
            run_dir=Path(short),
            http_port=0,
            grpc_port=0,
            metrics_port=0,
        )
        supervisor = Supervisor(settings, io.StringIO(), full)
        told = f"run_dir: {short}/penstock-run-.* can't be written: No space left on device"
        with pytest.raises(Unavailable, match=told):
            await supervisor.run()
        assert os.listdir(short) == []


async def test_answers_that_are_no_http_are_an_oserror() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 ready\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="no HTTP answer"):
            await request(("127.0.0.1", port), "GET", "/", 5)
    with pytest.raises(OSError, match="Connect call failed"):
        await request(("127.0.0.1", port), "GET", "/", 5)


async def test_misses_count_only_once_the_gateway_has_started() -> None:
    timing = ProbeTiming(interval_s=0.01, timeout_s=1.0, misses=3)
    started = asyncio.Event()
    probe = HttpProbe(Path("/nowhere.sock"))
    task = asyncio.ensure_future(wait_until_dead(probe, timing, started))
    done, _ = await asyncio.wait([task], timeout=0.2)
    assert not done
    started.set()
    assert await task == "it did not answer 3 health checks in a row"


async def test_who_can_not_be_asked_over_http_answers_a_ping() -> None:
    pings: asyncio.Queue[Ping] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    probe = PingProbe(pings.put_nowait, address, None)
    async with server:
        probe_task = asyncio.ensure_future(is_live(probe, 60))
        number = (await pings.get()).number
        # an answer that came too late is not one to this question
        probe.take(Pong(number - 1))
        done, _ = await asyncio.wait([probe_task], timeout=0.05)
        assert not done
        probe.take(Pong(number))
        assert await probe_task
        assert not await is_live(probe, 0.05)
    assert not await is_live(probe, 60)
    # nobody listens: the application need not be asked
    assert pings.qsize() == 1


def test_envoys_last_error_is_found(tmp_path: Path) -> None:
    log = tmp_path / "envoy.log"
    log.write_text(
        "[2026-11-24 01:00:00.000][12][warning][main] [a.cc:1] hm\n"
        "[2026-11-24 01:00:00.000][12][critical][main] [source/s.cc:438] error: no such port\n"
        "[2026-11-24 01:00:00.100][12][info][main] [source/s.cc:439] exiting\n"
    )
    assert last_error(log) == "error: no such port"
    assert last_error(tmp_path / "none") == ""
    assert last_error(None) == ""


def test_auto_takes_the_portable_front_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_libpython", lambda: None)
    factory, why = front.choose_front(Settings())
    assert factory is front.portable_command
    assert "no shared libpython" in why
    with pytest.raises(Unavailable, match=r"--front envoy can't run here: .*libpython"):
        front.choose_front(Settings(front="envoy"))
    assert front.choose_front(Settings(front="grpcio")) == (front.portable_command, "")


def test_envoy_gets_no_path_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend("")
    settings = Settings(http_port=1, grpc_port=2, metrics_port=3)
    path = front.envoy_command(settings, tmp_path).environment["PYTHONPATH"].split(":")
    assert str(tmp_path) not in path
    assert "" not in path


def announce(settings: Settings, *reports: tuple[ModelReport, ...]) -> str:
    out = io.StringIO()
    announcer = Announcer(settings, "Envoy", "1.2", out)
    for models in reports:
        announcer.show(Report(models, (), {}))
    return out.getvalue()


def test_reasons_are_one_line_and_never_markup() -> None:
    model = ModelReport("[red]m[/red]", "1", "UNAVAILABLE", "two\nlines [bold]", "onnx", 0)
    shown = announce(Settings(), (model,))
    assert "[red]m[/red]  1" in shown
    assert "    two lines [bold]\n" in shown


def test_a_server_without_models_has_no_table() -> None:
    shown = announce(Settings(host="0.0.0.0", allow_grpc=False), ())
    assert "0 of 0 models ready" in shown
    assert "MODEL" not in shown
    assert "gRPC" not in shown
    assert "Only this machine" not in shown


def test_an_empty_repository_is_told_what_was_expected(tmp_path: Path) -> None:
    shown = announce(Settings(model_repository=(tmp_path,)), ())
    assert f"  {tmp_path}: expected NAME/config.pbtxt and NAME/1/model.onnx" in shown
    model = ModelReport("m", "1", "READY", "", "onnx", 1)
    assert "expected" not in announce(Settings(model_repository=(tmp_path,)), (model,))


def test_the_banner_says_who_is_let_in_and_what_is_recorded(tmp_path: Path) -> None:
    assert "  access   open: whoever reaches a port may do everything\n" in announce(Settings(), ())
    assert "  audit " not in announce(Settings(), ())
    file = tmp_path / "tenants.db"
    access: dict[str, object] = {"mode": "required", "tenants_file": file}
    audit: dict[str, object] = {"folder": tmp_path / "log"}
    store = TenantStore(file)
    shown = announce(settings_of(access=access, audit=audit), ())
    assert (
        f"  access   API keys\n  audit    {tmp_path / 'log'}, not signed\n  No tenant has a"
        in shown
    )
    certificate = {"uri": "spiffe://a/*", "tenant": "a"}
    issuer = {"issuer": "https://i.example", "audience": ["a"], "default_roles": "user"}
    shown = announce(
        settings_of(
            access={**access, "certificates": [certificate], "jwt": [issuer]},
            audit={**audit, "sign_key": "file:/k"},
        ),
        (),
    )
    assert "  access   API keys, JWT, client certificates\n" in shown
    assert f"  audit    {tmp_path / 'log'}, signed\n" in shown
    assert "No tenant" not in shown
    store.create("a")
    key = store.keys.create("a")
    assert "No tenant" not in announce(settings_of(access=access), ())
    store.keys.revoke("a", key.key.id)
    assert "No tenant has a key yet" in announce(settings_of(access=access), ())
    store.close()
    shown = announce(settings_of(access={**access, "anonymous_roles": ["viewer"]}), ())
    assert "  access   API keys; without a credential: viewer\n" in shown
    assert "No tenant" not in shown


def settings_of(**tables: dict[str, object]) -> Settings:
    return Settings.model_validate(tables)


def test_json_logs_have_no_banner(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ready = ModelReport("m", "1", "READY", "", "onnx", 1)
    assert announce(Settings(log_format="json"), (ready,), ()) == ""
    assert caplog.messages == ["serving", "model m/1 is READY", "model m/1 is gone"]


HOLD_RUN_DIR = """
import sys
from pathlib import Path
from penstock.supervisor.run_dir import run_dir
with run_dir(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_the_run_dir_of_a_server_that_was_killed_goes_with_the_next_start() -> None:
    """It may hold the key of its certificate."""
    with tempfile.TemporaryDirectory(prefix="pt-") as parent:
        command = [sys.executable, "-c", HOLD_RUN_DIR, parent]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            left = Path(process.stdout.readline().strip())
            (left / "key").touch()
            with run_dir(Path(parent)):
                # its server runs
                assert (left / "key").exists()
            process.kill()
        assert (left / "key").exists()
        with run_dir(Path(parent)) as own:
            assert sorted(Path(parent).iterdir()) == [own]


@pytest.mark.parametrize(("reason", "level"), [("unloaded", "INFO"), ("no such file", "WARNING")])
def test_what_was_to_be_unloaded_is_no_warning(
    caplog: pytest.LogCaptureFixture, reason: str, level: str
) -> None:
    caplog.set_level(logging.INFO)
    lines = [ModelReport("m", "1", "READY", "", "onnx", 1)]
    lines.append(ModelReport("m", "1", "UNAVAILABLE", reason, "onnx", 0))
    announce(Settings(log_format="json"), *((line,) for line in lines))
    last = caplog.records[-1]
    assert (last.levelname, last.message) == (level, f"model m/1 is UNAVAILABLE: {reason}")
