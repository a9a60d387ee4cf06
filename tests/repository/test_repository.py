"""The index of models over real folders; the workers that load them are played by the test."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from fake_workers import settle, until
from penstock.errors import InvalidRequest, LoadFailed, NotFound, PenstockError, Unavailable
from penstock.wording import MAX_REASON
from repository_bench import Make, explicit, write


async def test_all_models_are_served_and_all_failures_listed(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "good", 1)
    write(tmp_path / "a" / "refused", 1)
    write(tmp_path / "a" / "no_versions")
    write(tmp_path / "a" / "bad_config", 1, config="max_batch_size: -1")
    write(tmp_path / "a" / "no_file", 1)
    (tmp_path / "a" / "no_file" / "1" / "model.py").unlink()
    write(tmp_path / "a" / ".hidden", 1)
    write(tmp_path / "a" / "__pycache__", 1)
    (tmp_path / "a" / "README.md").touch()
    bench = make()
    bench.link.refuse["refused/1"] = "no weights"
    await bench.repository.start()
    reasons = {name: reason for name, _, _, reason in bench.lines}
    assert {name: state for name, _, state, _ in bench.lines} == {
        "bad_config": "UNAVAILABLE",
        "good": "READY",
        "no_file": "UNAVAILABLE",
        "no_versions": "UNAVAILABLE",
        "refused": "UNAVAILABLE",
    }
    assert "config.pbtxt:1: max_batch_size is -1" in reasons["bad_config"]
    assert "no version folder (a number, such as 1/)" in reasons["no_versions"]
    assert "no model file to tell it by" in reasons["no_file"]
    assert (reasons["refused"], reasons["good"]) == ("no weights", "")
    assert [(line.name, line.version) for line in bench.repository.index()] == sorted(
        (line.name, line.version) for line in bench.repository.index()
    )
    assert not bench.repository.all_ready
    assert bench.changes == bench.repository.generation > 0


async def test_a_worker_that_ends_right_after_its_load_leaves_nothing(
    make: Make, tmp_path: Path
) -> None:
    """The load fails, and no other worker is started for what nobody has."""
    write(tmp_path / "a" / "m", 1)
    bench = make(model_control_mode="explicit", load_model=("m",))
    bench.link.mute.add("m/1#0")
    starting = asyncio.ensure_future(bench.repository.start())
    await until(lambda: bool(bench.link.loads))
    bench.link.played["m/1#0"].answer()
    bench.link.workers["m/1#0"].exited.set_result("killed by SIGKILL")
    await starting
    reason = "the worker process ended right after loading: a worker ended: killed by SIGKILL"
    assert bench.lines == [("m", "1", "UNAVAILABLE", reason)]
    await settle()
    restarts = [task for task in asyncio.all_tasks() if "Restarts" in str(task.get_coro())]
    assert (restarts, bench.link.started) == ([], ["m/1#0"])


async def test_reasons_of_many_pages_are_shortened_and_whole_in_the_log(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = f"torch can't load it: {'frame, ' * 2000}KeyError: 'w'"
    write(tmp_path / "a" / "refused", 1)
    write(tmp_path / "a" / "bad_config", 1, config=f'backend: "{"b" * 9000}"')
    write(tmp_path / "a" / "bad_key", 1, config=f"{'k' * 9000}: 1")
    bench = make()
    bench.link.refuse["refused/1"] = long
    await bench.repository.start()
    reasons = {name: reason for name, _, _, reason in bench.lines}
    assert max(map(len, reasons.values())) <= MAX_REASON
    assert reasons["refused"].startswith("torch can't load it: frame, ")
    assert reasons["refused"].endswith("frame, KeyError: 'w'")
    assert long in caplog.text
    assert f"unknown key '{'k' * 9000}'" in caplog.text


async def test_an_empty_repository_is_ready(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = make()
    await bench.repository.start()
    assert (bench.lines, bench.repository.all_ready) == ([], True)


async def test_a_repository_that_is_not_there(make: Make) -> None:
    with pytest.raises(FileNotFoundError):
        await make("gone").repository.start()


async def test_the_highest_version_is_the_one_that_is_meant(make: Make, tmp_path: Path) -> None:
    policy = "version_policy { all {} }"
    write(tmp_path / "a" / "m", 2, 10, 9, "x", "0", "-1", "notes", config=policy)
    bench = make()
    await bench.repository.start()
    assert list(bench.states) == ["m/2", "m/9", "m/10"]
    assert bench.repository.versions("m") == [2, 9, 10]
    assert bench.repository.get("m").version == 10
    assert bench.repository.get("m", "9").version == 9
    assert [m.version for m in bench.repository.matching("m")] == [2, 9, 10]
    assert [m.version for m in bench.repository.matching("m", "2")] == [2]
    assert len(bench.repository.matching()) == 3


async def test_a_default_version_is_meant_for_as_long_as_there_is_one(
    make: Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1, 2, config="version_policy { all {} }")
    bench = make(model_control_mode="explicit", load_model=("m",))
    repository = bench.repository
    await repository.start()
    generation = repository.generation
    repository.set_default("m", 1)
    assert (repository.get("m").version, repository.get("m", "2").version) == (1, 2)
    assert repository.default_version("m") == 1
    assert repository.generation > generation
    shutil.rmtree(tmp_path / "a" / "m" / "1")
    await repository.load("m")
    assert repository.get("m").version == 2
    write(tmp_path / "a" / "m", 1, config="version_policy { all {} }")
    await repository.load("m")
    assert repository.get("m").version == 1
    repository.set_default("m", None)
    assert repository.get("m").version == 2


async def test_no_other_version_stands_in_for_a_default_one(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, 2, config="version_policy { all {} }")
    bench = make()
    await bench.repository.start()
    with pytest.raises(NotFound, match="version 3 is not found"):
        bench.repository.set_default("m", 3)
    with pytest.raises(NotFound, match="'other' is not found"):
        bench.repository.set_default("other", 1)
    bench.repository.set_default("m", 1)
    await bench.repository.unload("m")
    with pytest.raises(Unavailable, match="version 1 is not at ready state"):
        bench.repository.get("m")


async def test_a_version_that_fails_leaves_the_others(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1, 2, config="version_policy { all {} }")
    bench = make()
    bench.link.refuse["m/2"] = "broken"
    await bench.repository.start()
    assert bench.lines == [("m", "1", "READY", ""), ("m", "2", "UNAVAILABLE", "broken")]
    assert bench.repository.get("m").version == 1
    with pytest.raises(Unavailable, match="'m' version 2 is not at ready state"):
        bench.repository.get("m", "2")


@pytest.mark.parametrize(
    ("name", "version", "error", "text"),
    [
        ("x", "", NotFound, "Request for unknown model: 'x' is not found"),
        ("x", "1", NotFound, "Request for unknown model: 'x' is not found"),
        ("m", "7", NotFound, "Request for unknown model: 'm' version 7 is not found"),
        ("m", "0", NotFound, "Request for unknown model: 'm' version 0 is not found"),
        ("bad", "", NotFound, "Request for unknown model: 'bad' has no available versions"),
        ("m", "one", InvalidRequest, "version string 'one', expected a number"),
        ("m", "-1", InvalidRequest, "version string '-1', expected a number"),
        ("m", "1.0", InvalidRequest, "version string '1.0', expected a number"),
        ("m", "٣", InvalidRequest, "version string '٣', expected a number"),
        ("m", str(2**63), InvalidRequest, "expected a number"),
        ("m", "0" * 20 + "1" * 9000, InvalidRequest, "expected a number"),
    ],
)
async def test_what_can_not_be_looked_up(
    make: Make, tmp_path: Path, name: str, version: str, error: type[PenstockError], text: str
) -> None:
    write(tmp_path / "a" / "m", 1)
    write(tmp_path / "a" / "bad")
    bench = make()
    await bench.repository.start()
    with pytest.raises(error) as raised:
        bench.repository.get(name, version)
    assert type(raised.value) is error
    assert text in str(raised.value)
    if error is InvalidRequest:
        with pytest.raises(InvalidRequest):
            bench.repository.is_ready(name, version)
    else:
        assert not bench.repository.is_ready(name, version)
    assert bench.repository.knows("m") and bench.repository.knows("bad")
    assert not bench.repository.knows("x")
    assert bench.repository.versions("x") == []


async def test_one_name_in_two_repositories(make: Make, tmp_path: Path) -> None:
    for repository in "ab":
        write(tmp_path / repository / "twice", 1)
        write(tmp_path / repository / f"only_{repository}", 1)
    bench = make("a", "b")
    await bench.repository.start()
    assert bench.states == {"only_a/1": "READY", "only_b/1": "READY", "twice/": "UNAVAILABLE"}
    (reason,) = [reason for name, _, _, reason in bench.lines if name == "twice"]
    places = f"{tmp_path / 'a' / 'twice'}, {tmp_path / 'b' / 'twice'}"
    assert reason == f"'twice' is in more than one repository: {places}"


async def test_a_folder_that_can_not_be_listed_is_one_models_failure(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a" / "m", 1)
    locked = write(tmp_path / "a" / "locked", 1)
    iterdir = Path.iterdir

    def refuse(path: Path) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    bench = make()
    await bench.repository.start()
    assert bench.states == {"m/1": "READY", "locked/": "UNAVAILABLE"}
    assert "Permission denied" in bench.lines[0][3]


async def test_instances_share_the_threads(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 3, config="instance_group { count: 2 kind: KIND_CPU }")
    bench = make()
    await bench.repository.start()
    assert bench.link.started == ["m/3#0", "m/3#1"]
    assert {load.threads for load in bench.link.loads} == {2}
    assert [environment["OMP_NUM_THREADS"] for environment in bench.link.environments] == ["2"] * 2
    assert [line.instances for line in bench.repository.index()] == [2]
    assert [load.instance_name for load in bench.link.loads] == ["m_0", "m_1"]


async def test_a_load_is_tried_again(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = make(model_load_retry_count=2)
    bench.link.refuse["m/1"] = "not yet"
    await bench.repository.start()
    assert bench.link.started == ["m/1#0"] * 3
    assert bench.lines == [("m", "1", "UNAVAILABLE", "not yet")]


async def test_a_model_whose_workers_are_gone_is_not_ready(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = make()
    await bench.repository.start()
    before = bench.changes
    bench.link.refuse["m/1"] = "no more"
    bench.link.workers["m/1#0"].exited.set_result("killed by SIGKILL")
    await until(lambda: bench.lines == [("m", "1", "UNAVAILABLE", "no more")])
    assert not bench.repository.is_ready("m")
    assert bench.changes > before
    with pytest.raises(Unavailable, match="has no available versions"):
        bench.repository.get("m")


# ── loading and unloading on request ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("names", "served"), [((), []), (("n",), ["n/1"]), (("*",), ["m/1", "n/1"])]
)
async def test_what_explicit_mode_loads_at_start(
    make: Make, tmp_path: Path, names: tuple[str, ...], served: list[str]
) -> None:
    for name in "mn":
        write(tmp_path / "a" / name, 1)
    bench = await explicit(make, load_model=names)
    assert sorted(bench.states) == served
    bench.repository.check_control_allowed()


async def test_a_model_to_load_at_start_that_is_not_there(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await explicit(make, load_model=("ghost",))
    reason = f"no folder named 'ghost' in {tmp_path / 'a'}"
    assert bench.lines == [("ghost", "", "UNAVAILABLE", reason)]
    assert not bench.repository.all_ready


async def test_only_explicit_mode_takes_orders(make: Make) -> None:
    with pytest.raises(Unavailable, match="--model-control-mode=explicit"):
        make().repository.check_control_allowed()


async def test_load_and_unload(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await explicit(make)
    await bench.repository.load("m")
    assert bench.states == {"m/1": "READY"}
    await bench.repository.unload("m")
    assert bench.lines == [("m", "1", "UNAVAILABLE", "unloaded")]
    assert bench.repository.all_ready
    assert bench.link.workers["m/1#0"].exited.done()
    assert list(bench.repository.served()) == []
    await bench.repository.load("m")
    assert bench.lines == [("m", "1", "READY", "")]


async def test_unloading_what_is_not_known(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidRequest, match="failed to unload 'x', model is not loaded"):
        await make().repository.unload("x")


async def test_a_made_up_name_leaves_no_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bench = await explicit(make)
    with pytest.raises(LoadFailed, match="failed to load 'x', no folder named 'x' in "):
        await bench.repository.load("x")
    assert bench.lines == []
    assert bench.repository.all_ready


async def test_loading_anew_takes_the_place_of_the_old(make: Make, tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "m", 1)
    bench = await explicit(make, load_model=("m",))
    old = bench.repository.get("m")
    await bench.repository.load("m")
    new = bench.repository.get("m")
    assert new is not old and new.version == 1
    assert not old.ready and new.ready
    write(folder, 2)
    await bench.repository.load("m")
    assert bench.states == {"m/2": "READY"}
    assert not new.ready


async def test_a_load_that_fails_leaves_what_is_served(make: Make, tmp_path: Path) -> None:
    folder = write(tmp_path / "a" / "m", 1)
    bench = await explicit(make, load_model=("m",))
    bench.link.refuse["m/1"] = "no weights"
    with pytest.raises(LoadFailed, match="failed to load 'm', version 1: no weights"):
        await bench.repository.load("m")
    assert bench.repository.is_ready("m")
    (folder / "config.pbtxt").write_text("max_batch_size: what")
    with pytest.raises(LoadFailed, match=r"failed to load 'm', .*config.pbtxt:1: "):
        await bench.repository.load("m")
    assert bench.repository.is_ready("m")
    assert bench.states == {"m/1": "READY"}


async def test_loads_and_unloads_of_one_model_come_one_after_the_other(
    make: Make, tmp_path: Path
) -> None:
    write(tmp_path / "a" / "m", 1)
    bench = await explicit(make)
    repository = bench.repository
    await asyncio.gather(
        repository.load("m"), repository.load("m"), repository.unload("m"), repository.load("m")
    )
    assert bench.states == {"m/1": "READY"}
    alive = [name for name, worker in bench.link.workers.items() if not worker.exited.done()]
    assert alive == ["m/1#0"]


async def test_closing_ends_all_workers(make: Make, tmp_path: Path) -> None:
    for name in "mn":
        write(tmp_path / "a" / name, 1)
    bench = make()
    await bench.repository.start()
    await bench.repository.close()
    assert all(worker.exited.done() for worker in bench.link.workers.values())
