"""Ensembles of a repository: loaded after their models, and with an eye on them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ensemble_configs import ensemble, pbtxt, plain, step, tensor
from fake_workers import settle, until
from penstock.errors import LoadFailed, Unavailable
from repository_bench import Bench, Make, explicit, write

CHAIN = (step("a", "X=IN", "X=mid"), step("b", "X=mid", "X=OUT"))


def write_models(folder: Path, *names: str, **changes: Any) -> None:
    """Plain ones."""
    for name in names:
        write(folder / name, 1, config=pbtxt(plain(name, **changes)))


def write_ensemble(folder: Path, *steps: Any, name: str = "e", **changes: Any) -> Path:
    """With the empty folder of its version."""
    config = ensemble(*(steps or CHAIN), name=name, **changes)
    write(folder / name, config=pbtxt(config))
    (folder / name / "1").mkdir(exist_ok=True)
    return folder / name


def reason(bench: Bench, name: str = "e") -> str:
    """Of the model's only line in the index."""
    (line,) = [line for line in bench.lines if line[0] == name]
    return line[3]


async def test_ensembles_are_loaded_after_their_models(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    steps = step("e", "IN=IN", "OUT=mid"), step("b", "X=mid", "X=OUT")
    write_ensemble(tmp_path / "a", *steps, name="d")
    # the first by name needs all others; and one load at a time must do
    bench = make(model_load_thread_count=1)
    bench.link.mute = {"b/1#0"}
    starting = asyncio.create_task(bench.repository.start())
    # which of the two models is first, threads decide that read their files
    await until(lambda: "b/1#0" in bench.link.played and bool(bench.link.played["b/1#0"].loads))
    await settle()
    assert not {"d/1", "e/1"} & bench.states.keys()
    bench.link.played["b/1#0"].answer()
    await starting
    assert bench.states == {"a/1": "READY", "b/1": "READY", "d/1": "READY", "e/1": "READY"}
    assert sorted(bench.link.started) == ["a/1#0", "b/1#0"]
    assert [(r.backend, r.instances) for r in bench.repository.index() if r.name == "e"] == [
        ("ensemble", 0)
    ]
    model = bench.repository.get("e")
    assert (model.config.platform, model.config.backend) == ("ensemble", "")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (
            {"refuse": "no weights"},
            "ensemble 'e' depends on 'b' which has no loaded version. Model 'b' loading failed with"
            " error: no weights",
        ),
        ({"unknown": "b"}, "ensemble 'e' depends on 'b' which has no loaded version"),
        (
            {"version": 7},
            "step 1 ('b'): Request for unknown model: 'b' version 7 is not found",
        ),
        (
            {"dims": [5]},
            "tensor 'mid' has the shape [-1, 1] as output 'X' of step 0 ('a'), but input 'X' of"
            " step 1 ('b') expects [-1, 5]",
        ),
        ({"folder": True}, "no version folder (a number, such as 1/, empty for an ensemble) in"),
        ({"labels": "gone.txt"}, "label_filename can't be used: label file 'gone.txt' is not in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_is_wrong_is_told(
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: dict[str, Any],
    expected: str,
) -> None:
    folder = tmp_path / "a"
    write_models(folder, "a")
    if "unknown" not in broken:
        dims = broken.get("dims", [1])
        write_models(folder, "b", input=[tensor("X", dims=dims)])
    second = step("b", "X=mid", "X=OUT", model_version=broken.get("version", -1))
    output = tensor("OUT", label_filename=broken.get("labels", ""))
    path = write_ensemble(folder, CHAIN[0], second, output=[output])
    if "folder" in broken:
        (path / "1").rmdir()
    bench = make()
    if "refuse" in broken:
        bench.link.refuse["b/1"] = broken["refuse"]
    await bench.repository.start()
    attempts = len(caplog.records)
    assert expected in reason(bench)
    assert not bench.repository.is_ready("e")
    await settle()
    assert len(caplog.records) == attempts


async def test_ensembles_that_contain_each_other(make: Make, tmp_path: Path) -> None:
    around = {"e": "f", "f": "g", "g": "e"}
    for name, inner in around.items():
        write_ensemble(tmp_path / "a", step(inner, "IN=IN", "OUT=OUT"), name=name)
    bench = make()
    await bench.repository.start()
    reasons = [reason(bench, name) for name in around]
    assert reasons[0] == "the models e → f → g → e need each other, in a circle"
    assert all(text.endswith("need each other, in a circle") for text in reasons)


async def test_a_model_that_comes_late_brings_its_ensembles(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    bench = make(model_control_mode="explicit", load_model=("e",))
    bench.link.refuse["b/1"] = "no weights"
    await bench.repository.start()
    assert bench.states == {"a/1": "READY", "b/1": "UNAVAILABLE", "e/": "UNAVAILABLE"}
    bench.link.refuse.clear()
    await bench.repository.load("b")
    await until(lambda: bench.states["e/1"] == "READY")


async def test_a_load_loads_what_is_needed(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b", "other")
    write_ensemble(tmp_path / "a")
    write_ensemble(tmp_path / "a", step("e", "IN=IN", "OUT=OUT"), name="outer")
    bench = await explicit(make)
    await bench.repository.load("outer")
    assert bench.states == {name: "READY" for name in ("a/1", "b/1", "e/1", "outer/1")}
    assert set(bench.repository.wanted()) == {"a", "b", "e", "outer"}
    await bench.repository.load("outer")
    assert sorted(bench.link.started) == ["a/1#0", "b/1#0"]


async def test_a_load_that_fails_names_the_step(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a")
    write_ensemble(tmp_path / "a")
    bench = await explicit(make)
    with pytest.raises(LoadFailed, match="'e' depends on 'b' which has no loaded version"):
        await bench.repository.load("e")


async def test_circles_are_found_by_what_is_there_now(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_models(folder, "a")
    write_ensemble(folder, step("f", "IN=IN", "OUT=OUT"), name="e")
    write_ensemble(folder, step("e", "IN=IN", "OUT=OUT"), name="f")
    bench = await explicit(make)
    with pytest.raises(LoadFailed, match="e → f → e need each other"):
        await bench.repository.load("e")
    write_ensemble(folder, step("a", "X=IN", "X=OUT"), name="f")
    await bench.repository.load("e")
    assert bench.repository.is_ready("e")


async def test_an_unloaded_model_takes_its_ensembles_along(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    write_ensemble(tmp_path / "a", step("e", "IN=IN", "OUT=OUT"), name="outer")
    bench = await explicit(make)
    await bench.repository.load("outer")
    before = bench.repository.get("e")
    await bench.repository.unload("b")
    assert bench.states["e/1"] == bench.states["outer/1"] == "UNAVAILABLE"
    assert reason(bench).endswith("'b' has no available versions: unloaded")
    assert reason(bench, "outer").startswith("step 0 ('e'): ")
    with pytest.raises(Unavailable, match=r"'outer' has no available versions: step 0 \('e'\)"):
        bench.repository.get("outer")
    await bench.repository.load("b")
    assert bench.states["outer/1"] == "READY"
    assert bench.repository.get("e") is before


async def test_a_model_that_is_loaded_with_another_signature(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    bench = await explicit(make)
    await bench.repository.load("e")
    write_models(tmp_path / "a", "b", input=[tensor("X", "TYPE_INT8")])
    await bench.repository.load("b")
    assert "expects TYPE_INT8" in reason(bench)
    assert bench.states["e/1"] == "UNAVAILABLE"
    write_models(tmp_path / "a", "b", input=[tensor("X", dims=[-1])])
    await bench.repository.load("b")
    assert bench.states["e/1"] == "READY"


async def test_an_ensemble_is_loaded_anew(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    bench = await explicit(make)
    await bench.repository.load("e")
    old = bench.repository.get("e")
    write_ensemble(tmp_path / "a", step("a", "X=IN", "X=OUT"))
    await bench.repository.load("e")
    assert bench.repository.get("e") is not old
    await bench.repository.unload("b")
    assert bench.states["e/1"] == "READY"
    write_ensemble(tmp_path / "a", step("gone", "X=IN", "X=OUT"))
    with pytest.raises(LoadFailed, match="'e' depends on 'gone'"):
        await bench.repository.load("e")
    assert bench.states["e/1"] == "READY"


async def test_the_server_can_end_at_any_time(make: Make, tmp_path: Path) -> None:
    write_models(tmp_path / "a", "a", "b")
    write_ensemble(tmp_path / "a")
    bench = make(model_control_mode="explicit", load_model=("e",))
    bench.link.refuse["b/1"] = "no weights"
    await bench.repository.start()
    bench.link.refuse.clear()
    await bench.repository.load("b")
    await bench.repository.close()
    await settle()
    assert all(worker.exited.done() for worker in bench.link.workers.values())
