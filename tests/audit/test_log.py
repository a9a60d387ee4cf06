"""The log as the server has it: nothing blocks, and when it can't be written the policy holds."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audit_logs import event, settings
from penstock.audit import log as log_module
from penstock.audit.log import AuditLog
from penstock.audit.reading import Filter, records
from penstock.audit.signing import Signer
from penstock.audit.verify import verify
from penstock.errors import Unavailable
from supervised import eventually


@contextmanager
def opened(log: AuditLog) -> Iterator[AuditLog]:
    try:
        yield log
    finally:
        log.close()


def texts(folder: Path) -> list[str]:
    """The events' texts."""
    wanted = Filter(action="authenticate", limit=10_000)
    return [record.reason for record in records(folder, wanted)]


async def test_an_event_is_on_the_disk_once_it_is_durable(tmp_path: Path) -> None:
    with opened(AuditLog(settings(tmp_path / "audit"))) as log:
        ticket = log.record(event("a", tenant="team", details={"method": "GET"}))
        await log.durable(ticket)
        (record,) = records(tmp_path / "audit", Filter(tenant="team"))
        assert (record.reason, record.details) == ("a", {"method": "GET"})
        # once more: it is known by now
        await log.durable(ticket)
        assert log.counts.records == 1 and not log.counts.failing


async def test_events_that_come_together_share_a_group(tmp_path: Path) -> None:
    with opened(AuditLog(settings(tmp_path / "audit"))) as log:
        tickets = [log.record(event(str(n))) for n in range(1000)]
        await asyncio.gather(*map(log.durable, tickets))
        assert log.counts.groups < 20
    assert texts(tmp_path / "audit") == [str(n) for n in range(1000)]
    assert verify(tmp_path / "audit").is_whole


def test_a_program_without_an_event_loop_waits(tmp_path: Path) -> None:
    with opened(AuditLog(settings(tmp_path / "audit"))) as log:
        log.wait(log.record(event("a")))
        assert texts(tmp_path / "audit") == ["a"]


def test_closing_writes_what_is_left_and_signs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = Signer.generate()
    log = AuditLog(settings(tmp_path / "audit"), signer)
    with caplog.at_level(logging.INFO, "penstock.audit"), opened(log):
        for n in range(5000):
            log.record(event(str(n)))
    verdict = verify(tmp_path / "audit", [signer.verifier])
    assert verdict.is_whole and verdict.signed_up_to == verdict.records
    assert len(texts(tmp_path / "audit")) == 5000
    # the anchor is told where somebody without access to the log's folder may keep it
    assert f"audit checkpoint {verdict.anchor}" in caplog.text
    with pytest.raises(Unavailable):
        log.record(event("late"))


def test_what_was_idle_is_signed_in_time(tmp_path: Path) -> None:
    signer = Signer.generate()
    log = AuditLog(settings(tmp_path / "audit", checkpoint_secs=0.05), signer)
    with opened(log):
        log.record(event("a"))
        eventually(lambda: (tmp_path / "audit").is_dir(), "no log")
        eventually(lambda: verify(tmp_path / "audit").checkpoints == 1, "no checkpoint")


def test_the_key_changes_while_it_is_open(tmp_path: Path) -> None:
    old, new = Signer.generate(), Signer.generate()
    with opened(AuditLog(settings(tmp_path / "audit"), old)) as log:
        log.wait(log.record(event("a")))
        log.rekey(new)
        log.wait(log.record(event("b")))
    assert verify(tmp_path / "audit", [old.verifier]).is_whole
    keys = [r.key for r in records(tmp_path / "audit", Filter()) if r.kind == "key"]
    assert keys == [old.id, new.id]


def test_long_texts_are_cut_and_odd_ones_written(tmp_path: Path) -> None:
    with opened(AuditLog(settings(tmp_path / "audit"))) as log:
        log.record(event("x" * 10_000, details={str(n): "y" * 9999 for n in range(99)}))
        log.record(event('\ud800 "\n'))
    first, second = records(tmp_path / "audit", Filter(action="authenticate"))
    assert len(first.reason) == 512
    assert (len(first.details), len(first.details["0"])) == (16, 512)
    assert second.reason == r'\ud800 "\n'


def test_credentials_never_reach_the_log(tmp_path: Path) -> None:
    with opened(AuditLog(settings(tmp_path / "audit"))) as log:
        log.record(event("bad header authorization: Bearer hunter2hunter2"))
        log.record(event("", details={"x": "eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl"}))
    data = b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir())
    assert b"hunter2" not in data and b"eyJ" not in data
    assert data.count(b"[hidden]") == 2


# ── when it can't be written ────────────────────────────────────────────────────────────────────────────────────────


def _remove(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def _restore(folder: Path) -> None:
    folder.with_name("away").rename(folder)


async def test_refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "audit"
    with opened(AuditLog(settings(folder))) as log:
        await log.durable(log.record(event("a")))
        _remove(folder)
        with pytest.raises(Unavailable, match="the audit log can't be written"):
            await log.durable(log.record(event("b")))
        for _ in range(50):
            with pytest.raises(Unavailable):
                log.record(event("c"))
        with pytest.raises(Unavailable):
            log.check()
        assert log.counts.failing
        loud = [r for r in caplog.records if "what has to be recorded is refused" in r.message]
        assert len(loud) == 1
        assert str(folder) in loud[0].message

        _restore(folder)
        await asyncio.to_thread(eventually, lambda: not log.counts.failing, "still failing")
        await log.durable(log.record(event("d")))
    # b was taken before that was known: what it led to was refused, and it is recorded all the same
    assert texts(folder) == ["a", "b", "d"]
    assert verify(folder).is_whole


async def test_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_WAITING", 10)
    folder = tmp_path / "audit"
    with opened(AuditLog(settings(folder, when_it_cant_be_written="go_on"))) as log:
        await log.durable(log.record(event("a")))
        _remove(folder)
        # returns all the same
        await log.durable(log.record(event("b")))
        for n in range(20):
            await log.durable(log.record(event(str(n))))
        assert log.counts.failing and log.counts.lost == 10
        assert caplog.text.count("the server goes on") == 1

        _restore(folder)
        await asyncio.to_thread(eventually, lambda: not log.counts.failing, "still failing")
    assert texts(folder) == ["a", "b", *map(str, range(10))]
    verdict = verify(folder)
    assert verdict.is_whole
    (resumed,) = [r for r in records(folder, Filter()) if r.kind == "resumed"]
    assert resumed.lost == 10 and "No such file" in resumed.problem
    assert "(" in verdict.notes[0] and ": 10 events of that time missing" in "\n".join(
        verdict.notes
    )


def test_what_is_lost_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "audit"
    with opened(AuditLog(settings(folder, when_it_cant_be_written="go_on"))) as log:
        log.wait(log.record(event("a")))
        _remove(folder)
        log.wait(log.record(event("b")))
    assert "1 audit record lost" in caplog.text


def test_a_start_without_a_writable_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"file/audit: (Not a directory|File exists)"):
        AuditLog(settings(tmp_path / "file" / "audit")).probe()


def test_permission_lost() -> None:
    """As a user for whom permissions count, who can't enter pytest's own folders."""
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o777)
        _lose_permission(Path(parent))


def _lose_permission(parent: Path) -> None:
    folder = parent / "audit"
    script = f"""
import os
from pathlib import Path
from audit_logs import event, settings
from penstock.audit.log import AuditLog
from penstock.errors import Unavailable
folder = Path({str(folder)!r})
if os.getuid() == 0:
    os.setuid(65534)
log = AuditLog(settings(folder))
log.wait(log.record(event("a")))
os.chmod(folder, 0o500)
# files that are there can be written, but no head
try:
    log.wait(log.record(event("b")))
except Unavailable as error:
    print(error)
os.chmod(folder, 0o700)
log.close()
"""
    assert _run(script, parent) == "the audit log can't be written"
    assert texts(folder) == ["a", "b"]
    assert verify(folder).is_whole


def test_a_limit_of_file_size(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    script = f"""
import resource
from pathlib import Path
from audit_logs import event, settings
from penstock.audit.log import AuditLog
from penstock.errors import Unavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
log = AuditLog(settings(Path({str(folder)!r})))
written = 0
try:
    while True:
        log.wait(log.record(event("x" * 100)))
        written += 1
except Unavailable as error:
    print(written, error)
log.close()
"""
    written, _, text = _run(script, tmp_path).partition(" ")
    assert text == "the audit log can't be written"
    assert texts(folder) == ["x" * 100] * int(written)
    assert verify(folder).is_whole


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        _fill(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path) -> None:
    folder = disk / "audit"
    with opened(AuditLog(settings(folder))) as log:
        log.wait(log.record(event("a")))
        (disk / "ballast").write_bytes(bytes(36 << 10))
        written = 0
        with pytest.raises(Unavailable):
            while True:
                log.wait(log.record(event("x" * 500)))
                written += 1
        assert written
        (disk / "ballast").unlink()
        eventually(lambda: not log.counts.failing, "still failing")
        log.wait(log.record(event("z")))
    assert texts(folder)[0] == "a" and texts(folder)[-1] == "z"
    assert len(texts(folder)) == written + 3
    assert verify(folder).is_whole


# ── killed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_killed_at_any_point_nothing_durable_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    script = f"""
from pathlib import Path
from audit_logs import event, settings
from penstock.audit.log import AuditLog
from pydantic import ByteSize
log = AuditLog(settings(Path({str(folder)!r}), rotate_bytes=ByteSize(3000)))
for n in range(10**9):
    log.wait(log.record(event(str(n))))
    print(n, flush=True)
"""
    for kills in range(4):
        before = len(texts(folder)) if kills else 0
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for _ in range(5 + 7 * kills):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        durable = int(said[-1]) if said else 4 + 7 * kills
        assert verify(folder).is_whole
        assert texts(folder)[before:][: durable + 1] == [str(n) for n in range(durable + 1)]
    with opened(AuditLog(settings(folder))) as log:
        log.wait(log.record(event("after")))
    assert verify(folder).is_whole
    assert texts(folder)[-1] == "after"


def _run(script: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
