"""Models loaded from what requests give, by many clients at once, and with what they need."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fake_workers import settle, until
from penstock.errors import InvalidRequest, LoadFailed, NotFound, Unavailable
from penstock.repository.overrides import Override
from repository_bench import Make, crash, explicit, write

CODE = {"file:1/model.py": b"code"}


def given(files: dict[str, bytes] | None = None, **config: Any) -> Override:
    """An override."""
    return Override(json.dumps(config), files or {})


def kept(tmp_path: Path) -> list[str]:
    """What lies in the run's folder of overrides."""
    folder = tmp_path / "run" / "overrides"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# ── overrides ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_configuration_alone_takes_the_place_of_the_file(
    make: Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1, config="max_batch_size: 4")
    bench = await explicit(make, load_model=("m",))
    await bench.repository.load("m", given(max_batch_size=8, instance_group=[{"count": 2}]))
    model = bench.repository.get("m")
    assert model.config.max_batch_size == 8
    assert [line.instances for line in bench.repository.index()] == [2]
    assert bench.link.loads[-1].model_dir == str(tmp_path / "a" / "m")
    await bench.repository.load("m")
    assert bench.repository.get("m").config.max_batch_size == 4
    assert kept(tmp_path) == []


async def test_a_configuration_says_which_versions_are_served(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, 2, 3)
    bench = await explicit(make, load_model=("m",))
    assert bench.states == {"m/3": "READY"}
    await bench.repository.load("m", given(version_policy={"specific": {"versions": [1, 2]}}))
    assert bench.states == {"m/1": "READY", "m/2": "READY"}
    with pytest.raises(LoadFailed, match="asks for version 9; the model's folder has 1, 2, 3"):
        await bench.repository.load("m", given(version_policy={"specific": {"versions": [9]}}))
    assert bench.states == {"m/1": "READY", "m/2": "READY"}
    assert len(kept(tmp_path)) == 1


async def test_files_are_the_whole_folder(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, config="max_batch_size: 4")
    bench = await explicit(make, load_model=("m",))
    await bench.repository.load("m", given({"file:5/model.py": b"code"}))
    assert bench.states == {"m/5": "READY"}
    assert bench.repository.get("m").config.max_batch_size == 0
    folder = Path(bench.link.loads[-1].model_dir)
    assert folder.name == "m" and folder.is_relative_to(tmp_path / "run")
    assert (folder / "5" / "model.py").read_bytes() == b"code"
    await bench.repository.load("m")
    assert bench.states == {"m/1": "READY"}
    assert kept(tmp_path) == []


async def test_a_model_of_which_nothing_is_on_disk(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await explicit(make)
    await bench.repository.load("m", given(CODE))
    assert bench.states == {"m/1": "READY"}
    with pytest.raises(LoadFailed, match="no folder named 'm'"):
        await bench.repository.load("m")
    assert bench.repository.is_ready("m")
    await bench.repository.unload("m")
    assert (bench.lines, kept(tmp_path)) == ([], [])
    with pytest.raises(NotFound):
        bench.repository.get("m")
    with pytest.raises(InvalidRequest, match="failed to unload 'm', model is not loaded"):
        await bench.repository.unload("m")


async def test_what_can_not_be_loaded_leaves_nothing(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await explicit(make)
    bench.link.refuse["m/1"] = "no weights"
    for override, why in (
        (given(CODE), "version 1: no weights"),
        (given({"file:model.py": b""}), "no version folder .* in the files given"),
        (given(CODE, name="other"), "Invalid config override: name is 'other'"),
        (given(CODE, name="\ud800"), r"name is \\ud800; expected text that UTF-8 can hold"),
        (given(max_batch_size=1), "no folder named 'm'"),
    ):
        with pytest.raises(LoadFailed, match=f"failed to load 'm', .*{why}"):
            await bench.repository.load("m", override)
        assert (bench.lines, kept(tmp_path)) == ([], [])
        assert bench.repository.wanted() == {}
    for override in (given({"file:../x": b""}), given({"file:1": b"", "file:1/x": b""})):
        with pytest.raises(InvalidRequest):
            await bench.repository.load("m", override)
        assert (bench.lines, kept(tmp_path)) == ([], [])


async def test_a_failed_override_leaves_the_one_in_force(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await explicit(make)
    await bench.repository.load("m", given(CODE))
    before = bench.repository.get("m")
    bench.link.refuse["m/1"] = "no weights"
    with pytest.raises(LoadFailed, match="no weights"):
        await bench.repository.load("m", given(CODE, max_batch_size=2))
    assert bench.repository.get("m") is before and before.ready
    assert bench.lines == [("m", "1", "READY", "no weights")]
    assert kept(tmp_path) == ["1"]


async def test_versions_are_replaced_together(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, 2, config="version_policy { all {} }")
    bench = await explicit(make, load_model=("m",))
    before = [bench.repository.get("m", version) for version in "12"]
    write(tmp_path / "a" / "m", 3)
    bench.link.refuse["m/2"] = "broken"
    with pytest.raises(LoadFailed, match="failed to load 'm', version 2: broken"):
        await bench.repository.load("m")
    assert [bench.repository.get("m", version) for version in "12"] == before
    assert bench.lines == [
        ("m", "1", "READY", ""),
        ("m", "2", "READY", "broken"),
        ("m", "3", "UNAVAILABLE", "not served: version 2 can't be loaded"),
    ]
    alive = {name for name, worker in bench.link.workers.items() if not worker.exited.done()}
    assert len(list(bench.repository.served())) == 2 and "m/3#0" not in alive
    del bench.link.refuse["m/2"]
    await bench.repository.load("m")
    assert bench.states == {"m/1": "READY", "m/2": "READY", "m/3": "READY"}


async def test_the_next_gateway_goes_on_with_what_was_given(make: Make, tmp_path: Path) -> None:
    for name in ("config_only", "plain", "reverted"):
        write(tmp_path / "a" / name, 1)
    before = await explicit(make, load_model=("plain",))
    for name, override in (
        ("nowhere", given(CODE, max_batch_size=3)),
        ("config_only", given(max_batch_size=5)),
        ("reverted", given(CODE)),
        ("unloaded", given(CODE)),
    ):
        await before.repository.load(name, override)
    await before.repository.load("reverted")
    await before.repository.unload("unloaded")
    after = crash(make, before, model_control_mode="explicit")
    await after.repository.start()
    assert after.lines == before.lines
    assert after.link.loads == []
    sizes = {model.name: model.config.max_batch_size for model in after.repository.served()}
    assert sizes == {"nowhere": 3, "config_only": 5, "plain": 0, "reverted": 0}
    assert len(kept(tmp_path)) == 2
    await after.repository.load("config_only")
    await after.repository.unload("nowhere")
    assert kept(tmp_path) == []


async def test_a_load_in_which_the_gateway_crashed_is_as_if_it_had_not_been(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    before = await explicit(make)
    await before.repository.load("m", given(CODE, max_batch_size=3))
    before.link.mute.add("m/1#0")
    before.link.mute.add("n/1#0")
    count = len(before.link.loads)
    loads = [
        asyncio.ensure_future(before.repository.load(name, given(CODE, max_batch_size=9)))
        for name in "mn"
    ]
    await until(lambda: len(before.link.loads) == count + 2)
    after = crash(make, before, model_control_mode="explicit")
    after.link.wanted = before.repository.wanted()
    await after.repository.start()
    assert after.states == {"m/1": "READY"}
    assert after.repository.get("m").config.max_batch_size == 3
    assert len(kept(tmp_path)) == 1
    for load in loads:
        load.cancel()
    await asyncio.gather(*loads, return_exceptions=True)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a/m", "m/1", "m/", "/", ".m", "__m", "m\0", "\ud800", "m" * 256]
)
async def test_names_that_are_no_models(make: Make, tmp_path: Path, name: str) -> None:
    write(tmp_path / "a" / "m", 1)
    write(tmp_path / "a" / ".m", 1)
    bench = await explicit(make)
    with pytest.raises(LoadFailed, match="no folder named"):
        await bench.repository.load(name)
    with pytest.raises(InvalidRequest, match="model is not loaded"):
        await bench.repository.unload(name)
    assert bench.link.started == []


# ── many clients ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_load_goes_on_without_its_client(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await explicit(make)
    bench.link.mute.add("m/1#0")
    load = asyncio.ensure_future(bench.repository.load("m"))
    await until(lambda: bool(bench.link.loads))
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    bench.link.played["m/1#0"].answer()
    await until(lambda: bench.repository.is_ready("m"))


async def test_a_load_that_fails_without_its_client(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await explicit(make)
    bench.link.refuse["m/1"] = "no weights"
    load = asyncio.ensure_future(bench.repository.load("m"))
    await settle()
    load.cancel()
    await until(lambda: bench.lines == [("m", "1", "UNAVAILABLE", "no weights")])


async def test_loads_and_unloads_from_many_clients_come_in_turn(make: Make, tmp_path: Path) -> None:
    """The last one asked for is what is there at the end, and nothing else is left."""
    (tmp_path / "a").mkdir()
    bench = await explicit(make)
    await bench.repository.load("m", given(CODE, max_batch_size=1))
    work = []
    for size in range(2, 12):
        work.append(bench.repository.load("m", given(CODE, max_batch_size=size)))
        if size % 3 == 0:
            work.append(bench.repository.unload("m"))
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert not [error for error in outcomes if error and not isinstance(error, InvalidRequest)]
    alive = [name for name, worker in bench.link.workers.items() if not worker.exited.done()]
    assert alive == ([f"{name}#0" for name in bench.states])
    assert len(kept(tmp_path)) == len(alive)


async def test_loads_and_unloads_while_the_server_stops(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await explicit(make)
    bench.link.mute.add("m/1#0")
    load = asyncio.ensure_future(bench.repository.load("m"))
    await until(lambda: bool(bench.link.loads))
    bench.repository.drain()
    with pytest.raises(Unavailable, match="the server is shutting down"):
        bench.repository.check_control_allowed()
    await bench.repository.close()
    assert load.done() or load.cancelling() or ((await asyncio.wait([load])) and load.cancelled())


# ── several repositories ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_repository_by_its_name(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    write(tmp_path / "b" / "n", 1)
    repository = (await explicit(make, "a", "b")).repository
    await repository.load("m", repository="a")
    await repository.load("n", repository=str(tmp_path / "b"))
    assert [line.name for line in await repository.listing("a")] == ["m"]
    assert [line.name for line in await repository.listing(str(tmp_path / "b"))] == ["n"]
    assert [line.name for line in await repository.listing()] == ["m", "n"]
    with pytest.raises(LoadFailed, match=f"no folder named 'm' in {tmp_path / 'b'}$"):
        await repository.load("m", repository="b")
    with pytest.raises(InvalidRequest, match="failed to unload 'm', model is not loaded"):
        await repository.unload("m", repository="b")
    with pytest.raises(NotFound, match=r"model repository 'c' is not found; this server has a, b$"):
        await repository.listing("c")
    await repository.unload("m", repository="a")
    assert not repository.is_ready("m")


async def test_two_repositories_of_one_name(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "x" / "a" / "m", 1)
    write(tmp_path / "y" / "a" / "n", 1)
    bench = await explicit(make, "x/a", "y/a")
    with pytest.raises(InvalidRequest, match="more than one model repository is named 'a'"):
        await bench.repository.listing("a")
    assert [line.name for line in await bench.repository.listing(str(tmp_path / "x" / "a"))] == [
        "m"
    ]
