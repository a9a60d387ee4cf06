"""A repository in mode poll follows what happens to its folders."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from fake_workers import until
from penstock.errors import NotFound, Unavailable
from penstock.repository import polling as polling_module
from repository_bench import Bench, Make, write

Looks = Callable[[int], Awaitable[None]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """`looks(count)` waits until that many more were taken."""
    taken = 0
    look = polling_module.look

    def counted(repositories: Iterable[Path]) -> dict[str, bytes]:
        nonlocal taken
        taken += 1
        return look(repositories)

    async def wait(count: int) -> None:
        wanted = taken + count
        await until(lambda: taken >= wanted)

    monkeypatch.setattr(polling_module, "look", counted)
    return wait


async def polling(make: Make) -> Bench:
    """One that looks all the time, started."""
    bench = make(model_control_mode="poll", repository_poll_secs=0.001)
    await bench.repository.start()
    return bench


async def test_models_come_change_and_go(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    write(tmp_path / "a" / "still", 1)
    bench = await polling(make)
    still = bench.repository.get("still")
    assert bench.states == {"m/1": "READY", "still/1": "READY"}
    write(tmp_path / "a" / "new", 1)
    write(tmp_path / "a" / "m", 2)
    await until(lambda: bench.states == {"m/2": "READY", "new/1": "READY", "still/1": "READY"})
    shutil.rmtree(tmp_path / "a" / "m" / "2")
    shutil.rmtree(tmp_path / "a" / "new")
    await until(lambda: bench.states == {"m/1": "READY", "still/1": "READY"})
    with pytest.raises(NotFound):
        bench.repository.get("new")
    assert bench.repository.get("still") is still


async def test_a_new_version_leaves_the_others_alone(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config="version_policy { all {} }")
    bench = await polling(make)
    before = bench.repository.get("m", "1")
    write(tmp_path / "a" / "m", 2)
    await until(lambda: bench.states == {"m/1": "READY", "m/2": "READY"})
    assert bench.repository.get("m", "1") is before


async def test_what_is_broken_leaves_what_is_served(
    make: Make, tmp_path: Path, looks: Looks
) -> None:
    folder = write(tmp_path / "a" / "m", 1)
    bench = await polling(make)
    before = bench.repository.get("m")
    (folder / "config.pbtxt").write_text("max_batch_size: what")
    await until(lambda: "max_batch_size is what" in bench.lines[0][3])
    assert bench.states == {"m/1": "READY"}
    assert bench.repository.get("m") is before
    bench.link.refuse["m/2"] = "no weights"
    (folder / "config.pbtxt").unlink()
    write(folder, 2)
    await until(lambda: ("m", "2", "UNAVAILABLE", "no weights") in bench.lines)
    assert bench.repository.get("m") is before
    tries = bench.link.started.count("m/2#0")
    await looks(5)
    assert bench.link.started.count("m/2#0") == tries == 1
    del bench.link.refuse["m/2"]
    (folder / "2" / "weights").touch()
    await until(lambda: bench.lines == [("m", "2", "READY", "")])


async def test_a_repository_that_is_away_for_a_while(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, looks: Looks
) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await polling(make)
    (tmp_path / "a").rename(tmp_path / "away")
    await until(lambda: "can't be read, nothing changes" in caplog.text)
    await looks(5)
    assert caplog.text.count("can't be read") == 1
    assert bench.repository.is_ready("m")
    (tmp_path / "away").rename(tmp_path / "a")
    write(tmp_path / "a" / "n", 1)
    await until(lambda: bench.repository.is_ready("n"))
    assert bench.link.started == ["m/1#0", "n/1#0"]


async def test_poll_takes_no_orders(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await polling(make)
    with pytest.raises(Unavailable, match="explicit model load / unload is not allowed if polling"):
        bench.repository.check_control_allowed()
