"""Models that need others: loaded after them, with them, and unloaded with them.

What an ensemble is does not matter here: a model's parameter `needs` says what it needs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict
from penstock.repository import dependencies
from repository_bench import Bench, Make, crash, explicit, write


@pytest.fixture(autouse=True)
def by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs are told by a parameter."""

    def needs_of(config: ConfigDict | None) -> tuple[str, ...]:
        parameters = (config or {}).get("parameters", {})
        return tuple(parameters.get("needs", {}).get("string_value", "").split())

    monkeypatch.setattr(dependencies, "needs_of", needs_of)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`top` needs `middle` and `leaf`; `middle` needs `leaf` and `other`."""
    folder = tmp_path / "a"
    needing(folder, "top", "middle leaf")
    needing(folder, "middle", "leaf other")
    for name in ("leaf", "other", "aside"):
        write(folder / name, 1)
    return folder


def needing(folder: Path, name: str, needs: str) -> None:
    """A model that needs those."""
    write(
        folder / name,
        1,
        config=f'parameters {{ key: "needs" value {{ string_value: "{needs}" }} }}',
    )


def order(bench: Bench) -> list[str]:
    """The models in the order of their loads."""
    return [load.model_name for load in bench.link.loads]


def ready(bench: Bench) -> set[str]:
    """All that is served."""
    return {model.name for model in bench.repository.served()}


def reason(bench: Bench, name: str) -> str:
    """Of the index."""
    (line,) = [line for line in bench.repository.index() if line.name == name]
    return line.reason


@pytest.mark.usefixtures("models")
async def test_what_is_needed_is_loaded_first(make: Make) -> None:
    for bench in (make(), await explicit(make, load_model=("top",))):
        await bench.repository.start()
        loads = order(bench)
        assert loads.index("top") > loads.index("middle") > max(map(loads.index, ("leaf", "other")))
        assert ready(bench) >= {"top", "middle", "leaf", "other"}


@pytest.mark.usefixtures("models")
async def test_a_load_by_request_loads_what_is_missing(make: Make) -> None:
    bench = await explicit(make, load_model=("leaf",))
    await bench.repository.load("top")
    assert sorted(order(bench)) == ["leaf", "middle", "other", "top"]
    assert ready(bench) == {"top", "middle", "leaf", "other"}
    await bench.repository.load("top")
    assert sorted(order(bench)) == ["leaf", "middle", "other", "top", "top"]


@pytest.mark.usefixtures("models")
async def test_unloading_with_dependents(make: Make) -> None:
    """What was asked for by its name stays, and so does what others need."""
    bench = await explicit(make, load_model=("leaf",))
    await bench.repository.load("top")
    await bench.repository.unload("top", dependents=True)
    assert ready(bench) == {"leaf"}
    await bench.repository.load("top")
    await bench.repository.load("middle")
    await bench.repository.unload("top", dependents=True)
    assert ready(bench) == {"leaf", "middle", "other"}
    await bench.repository.unload("middle")
    assert ready(bench) == {"leaf", "other"}


@pytest.mark.usefixtures("models")
async def test_unloading_without_dependents(make: Make) -> None:
    bench = await explicit(make)
    await bench.repository.load("top")
    await bench.repository.unload("top")
    assert ready(bench) == {"middle", "leaf", "other"}
    await bench.repository.load("aside")
    await bench.repository.unload("aside", dependents=True)
    assert ready(bench) == {"middle", "leaf", "other"}


@pytest.mark.usefixtures("models")
async def test_the_next_gateway_knows_who_was_asked_for(make: Make) -> None:
    before = await explicit(make, load_model=("other",))
    await before.repository.load("top")
    after = crash(make, before, model_control_mode="explicit")
    await after.repository.start()
    assert after.link.loads == []
    await after.repository.unload("top", dependents=True)
    assert ready(after) == {"other"}


async def test_what_needs_something_broken(make: Make, models: Path) -> None:
    bench = await explicit(make)
    bench.link.refuse["leaf/1"] = "no weights"
    with pytest.raises(LoadFailed) as raised:
        await bench.repository.load("top")
    assert str(raised.value).startswith(
        "failed to load 'top', ensemble 'top' depends on 'middle' which has no loaded version"
    )
    assert reason(bench, "middle") == (
        "ensemble 'middle' depends on 'leaf' which has no loaded version. "
        "Model 'leaf' loading failed with error: no weights"
    )
    assert ready(bench) == {"other"}
    del bench.link.refuse["leaf/1"]
    await bench.repository.load("leaf")
    assert ready(bench) == {"other", "leaf", "middle", "top"}
    needing(models, "wanting", "nobody")
    with pytest.raises(LoadFailed, match="ensemble 'wanting' depends on 'nobody' which has no"):
        await bench.repository.load("wanting")


@pytest.mark.parametrize("mode", ["none", "explicit", "poll"])
async def test_models_that_need_each_other(make: Make, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "a"
    for name, need in (("x", "y"), ("y", "z"), ("z", "x"), ("self", "self"), ("user", "x leaf")):
        needing(folder, name, need)
    write(folder / "leaf", 1)
    names = ("*",) if mode == "explicit" else ()
    bench = make(model_control_mode=mode, load_model=names)
    await bench.repository.start()
    assert ready(bench) == {"leaf"}
    assert reason(bench, "x") == "the models x → y → z → x need each other, in a circle"
    assert reason(bench, "self") == "the models self → self need each other, in a circle"
    assert "ensemble 'user' depends on 'x'" in reason(bench, "user")
