"""A repository after a crash of the gateway, over the workers that the one before it has left."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from fake_workers import until
from penstock.errors import NotFound, Unavailable
from repository_bench import Make, crash, explicit, write


async def test_what_was_loaded_is_taken_over(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config="instance_group { count: 2 kind: KIND_CPU }")
    write(tmp_path / "a" / "n", 1, 2, config="version_policy { all {} }")
    before = make()
    await before.repository.start()
    after = crash(make, before)
    await after.repository.start()
    assert after.lines == before.lines
    assert after.link.loads == []
    assert [worker.resets for worker in after.link.played.values()] == [1] * 4
    assert [line.instances for line in after.repository.index()] == [2, 1, 1]
    assert after.repository.get("m").config == before.repository.get("m").config
    again = crash(make, after)
    await again.repository.start()
    assert again.lines == before.lines
    assert again.link.loads == []


async def test_a_worker_that_was_started_anew_is_taken_over_too(make: Make, tmp_path: Path) -> None:
    """It was told the complete configuration, unlike the first of a version."""
    write(tmp_path / "a" / "m", 1)
    before = make()
    await before.repository.start()
    before.link.workers["m/1#0"].exited.set_result("killed by SIGKILL")
    await until(lambda: len(before.link.told_loaded) == 2 and before.repository.is_ready("m"))
    first, second = before.link.loads
    assert first.config_json != second.config_json
    after = crash(make, before)
    await after.repository.start()
    assert (after.states, after.link.loads) == ({"m/1": "READY"}, [])


@pytest.mark.parametrize(
    "path", ["m/1/model.py", "m/1/deep/weights.bin", "m/config.pbtxt", "m/vocabulary.txt"]
)
async def test_what_has_changed_is_loaded_anew(make: Make, tmp_path: Path, path: str) -> None:
    write(tmp_path / "a" / "m", 1, config="max_batch_size: 4")
    write(tmp_path / "a" / "n", 1)
    before = make()
    await before.repository.start()
    file = tmp_path / "a" / path
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as changed:
        changed.write("# changed\n")
    after = crash(make, before)
    await after.repository.start()
    assert after.link.started == ["m/1#0"]
    assert after.states == {"m/1": "READY", "n/1": "READY"}
    assert [worker.pid for worker in after.link.stopped] == [before.link.workers["m/1#0"].pid]


async def test_what_is_gone_ends(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    folder = write(tmp_path / "a" / "n", 1)
    before = make()
    await before.repository.start()
    shutil.rmtree(folder)
    after = crash(make, before)
    await after.repository.start()
    assert (after.states, after.link.started) == ({"m/1": "READY"}, [])
    assert [worker.pid for worker in after.link.stopped] == [before.link.workers["n/1#0"].pid]


async def test_a_worker_that_does_not_come_is_started_anew(make: Make, tmp_path: Path) -> None:
    """One is dead, one never answers: it may be as busy as any batch."""
    write(tmp_path / "a" / "m", 1, config="instance_group { count: 2 kind: KIND_CPU }")
    before = make()
    await before.repository.start()
    after = crash(make, before, execution_timeout_secs=0.05)
    del after.link.kept["m/1#0"]
    after.link.played["m/1#1"].mute = True
    await after.repository.start()
    assert sorted(after.link.started) == ["m/1#0", "m/1#1"]
    assert [line.instances for line in after.repository.index()] == [2]


async def test_explicit_mode_goes_on_with_what_was_asked_for(make: Make, tmp_path: Path) -> None:
    for name in ("loaded", "unloaded", "idle"):
        write(tmp_path / "a" / name, 1)
    write(tmp_path / "a" / "broken", 1, config="max_batch_size: -1")
    before = await explicit(make, load_model=("unloaded", "broken"))
    await before.repository.load("loaded")
    await before.repository.unload("unloaded")
    assert sorted(before.repository.wanted()) == ["broken", "loaded"]
    after = crash(make, before, model_control_mode="explicit", load_model=("unloaded",))
    await after.repository.start()
    assert after.states == {"broken/": "UNAVAILABLE", "loaded/1": "READY"}
    assert after.link.loads == []


async def test_what_is_not_loaded_yet_may_come(make: Make, tmp_path: Path) -> None:
    """Nobody shall hear that a model is unknown just because the server has not looked yet."""
    write(tmp_path / "a" / "m", 1)
    bench = make()
    for name in ("m", "x"):
        with pytest.raises(Unavailable, match=f"model '{name}' can't be served yet"):
            bench.repository.get(name)
    assert not bench.repository.is_ready("m")
    await bench.repository.start()
    assert bench.repository.is_ready("m")
    with pytest.raises(NotFound):
        bench.repository.get("x")


async def test_taking_over_does_not_wait_for_loads(make: Make, tmp_path: Path) -> None:
    for name in ("a_new_one", "m"):
        write(tmp_path / "a" / name, 1)
    before = await explicit(make, load_model=("m",))
    after = crash(make, before, model_load_thread_count=1)
    after.link.mute.add("a_new_one/1#0")
    starting = asyncio.ensure_future(after.repository.start())
    await until(lambda: after.repository.is_ready("m") and bool(after.link.loads))
    assert not starting.done()
    after.link.played["a_new_one/1#0"].answer()
    await starting
    assert after.states == {"a_new_one/1": "READY", "m/1": "READY"}
