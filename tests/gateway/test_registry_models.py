"""What the registry agent brings, served by a repository whose workers the test plays."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fake_workers import until
from penstock.errors import LoadFailed, NotFound, Unavailable
from penstock.gateway import registry_models
from penstock.gateway.registry_models import RegistryModels
from penstock.registry.link import RegistryLink
from penstock.registry.messages import (
    DeploymentStatus,
    RegistryModel,
    RegistryState,
    RegistryVersion,
)
from penstock.registry_config import RegistrySettings
from repository_bench import Bench, write


class SaidLink(RegistryLink):
    """An agent's words come from the test."""

    def __init__(self, state: RegistryState | None) -> None:
        super().__init__(Path("/nowhere"), state)
        self.released: list[tuple[str, int]] = []
        self.deployments: list[dict[str, dict[int, DeploymentStatus]]] = []
        self.moved: list[tuple[str, str, int | None, int | None]] = []
        self.on_alias = lambda *what: self.moved.append(what)

    def release(self, model: str, version: int) -> None:
        self.released.append((model, version))

    def deployed(self, statuses: Any) -> None:
        self.deployments.append(statuses)

    def start(self) -> None:
        pass


class RegistryBench:
    """A repository `a`, and a view beside it."""

    def __init__(
        self, folder: Path, *refs: str, state: RegistryState | None = None, **settings: Any
    ) -> None:
        registry = RegistrySettings(models=refs, cache_folder=folder / "cache")
        run_dir = folder / "run"
        self.view = registry.view_of(run_dir)
        self.view.mkdir(parents=True, exist_ok=True)
        (folder / "a").mkdir(exist_ok=True)
        self.bench = Bench([folder / "a"], run_dir=run_dir, registry=registry, **settings)
        self.repository = self.bench.repository
        self.link = SaidLink(state)
        self.models = RegistryModels(self.repository._settings, self.link, self.repository)
        self.repository.on_change = self.models.report
        self._revision = 0

    def bring(self, *versions: int, name: str = "m") -> None:
        """They lie in the view, and no others of the model."""
        for old in (self.view / name).glob("*/"):
            if old.name.isdigit() and int(old.name) not in versions:
                shutil.rmtree(old)
        write(self.view / name, *(v for v in versions if not (self.view / name / str(v)).exists()))
        self._revision += 1

    def model(self, default: int | None, *wanted: int, **more: Any) -> RegistryModel:
        """As the view has it."""
        name = more.pop("name", "m")
        there = sorted(int(p.name) for p in (self.view / name).glob("*/") if p.name.isdigit())
        given: dict[str, Any] = {
            "name": name,
            "registered": "r",
            "refs": (f"{name}=models:/r@champion,challenger",),
            "versions": tuple(RegistryVersion(version=v, wanted=v in wanted) for v in there),
            "default": default,
            "settled": True,
            "revision": self._revision,
        }
        return RegistryModel(**{**given, **more})

    async def say(self, *models: RegistryModel) -> None:
        """And wait until all is done."""
        self.link.hear(RegistryState(models=models))
        await until(lambda: all(s.loading is None for s in self.models._served.values()))

    def states(self, name: str = "m") -> dict[str, str]:
        return {line.version: line.state for line in self.repository.lines_of(name)}

    async def close(self) -> None:
        await self.models.close()
        await self.repository.close()
        self.bench.link.close()


Make = Callable[..., RegistryBench]
REF = "m=models:/r@champion,challenger"


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    benches: list[RegistryBench] = []

    def one(*refs: str, **settings: Any) -> RegistryBench:
        benches.append(RegistryBench(tmp_path, *refs, **settings))
        return benches[-1]

    yield one
    for bench in benches:
        await bench.close()


async def test_the_start_waits_for_what_comes(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "folder", 1)
    bench = make(REF)
    starting = asyncio.ensure_future(bench.models.start(bench.repository.start))
    await until(lambda: bench.repository.is_ready("folder"))
    with pytest.raises(Unavailable, match="it comes from the registry, which has not said yet"):
        bench.repository.find("m")
    await bench.say(bench.model(None, settled=False, fetching=(3,)))
    assert bench.repository.why_not("m") == "version 3 is on its way from the registry"
    assert not starting.done()
    bench.bring(3, 4)
    await bench.say(bench.model(3, 3, 4))
    await starting
    assert bench.states() == {"3": "READY", "4": "READY"}
    # not the highest: the first of the aliases
    assert bench.repository.get("m").version == 3
    assert bench.repository.all_ready


async def test_a_default_is_chosen_before_others_are_loaded(make: Make) -> None:
    bench = make(REF)
    bench.bench.link.mute.add("m/3#0")
    bench.bring(3, 4)
    saying = asyncio.ensure_future(bench.say(bench.model(3, 3, 4)))
    await until(lambda: bench.states().get("4") == "READY")
    played = bench.bench.link.played
    await until(lambda: "m/3#0" in played and bool(played["m/3#0"].loads))
    with pytest.raises(Unavailable, match="version 3 is not at ready state"):
        bench.repository.find("m")
    played["m/3#0"].answer()
    await saying
    assert bench.repository.find("m").version == 3


async def test_without_a_default_only_who_names_a_version_is_answered(make: Make) -> None:
    bench = make(REF)
    bench.bring(4)
    problem = "registered model 'r' has no alias 'champion'"
    await bench.say(bench.model(None, 4, problem=problem))
    assert bench.repository.find("m", "4").version == 4
    with pytest.raises(Unavailable, match="'m' has no default version"):
        bench.repository.find("m")


async def test_an_alias_that_moves_switches_and_then_gives_back(make: Make) -> None:
    bench = make(REF)
    bench.bring(3)
    await bench.say(bench.model(3, 3, aliases={"champion": 3}))
    first = bench.repository.get("m")
    assert bench.link.moved == [("m", "champion", None, 3)]
    bench.bring(3, 4)
    await bench.say(bench.model(4, 4, aliases={"champion": 4}))
    assert bench.repository.get("m").version == 4
    # nothing was loaded anew
    assert bench.repository.get("m", "3") is first
    assert bench.link.released == [("m", 3)]
    assert bench.link.moved[1:] == [("m", "champion", 3, 4)]
    bench.bring(4)
    await bench.say(bench.model(4, 4, aliases={"champion": 4}))
    assert bench.states() == {"4": "READY"}
    await bench.say(bench.model(4, 4, aliases={}, problem="no alias"))
    assert bench.link.moved[2:] == [("m", "champion", 4, None)]
    assert bench.repository.get("m").version == 4


async def test_a_version_that_can_t_be_loaded_leaves_the_one_before(make: Make) -> None:
    bench = make(REF)
    bench.bring(3)
    await bench.say(bench.model(3, 3, aliases={"champion": 3}))
    bench.bench.link.refuse["m/4"] = "no weights"
    bench.bring(3, 4)
    await bench.say(bench.model(4, 4, aliases={"champion": 4}))
    assert bench.states() == {"3": "READY", "4": "UNAVAILABLE"}
    assert bench.repository.why_not("m") == "no weights"
    assert bench.repository.get("m").version == 3
    assert bench.link.released == []
    # nobody is told of what is not there
    assert bench.link.moved == [("m", "champion", None, 3)]
    bench.bring(3, 4, 5)
    await bench.say(bench.model(5, 5, aliases={"champion": 5}))
    assert bench.repository.get("m").version == 5
    assert bench.link.released == [("m", 3), ("m", 4)]


async def test_a_roll_out_s_choice_stays_until_the_registry_says_something_new(make: Make) -> None:
    bench = make(REF)
    bench.bring(3, 4)
    await bench.say(bench.model(3, 3, 4))
    bench.repository.set_default("m", 4)
    await bench.say(bench.model(3, 3, 4, aliases={"other": 1}))
    assert bench.repository.get("m").version == 4
    # nor is what it has chosen given back
    await bench.say(bench.model(3, 3))
    assert bench.link.released == []
    bench.bring(3, 4, 5)
    await bench.say(bench.model(5, 5))
    assert bench.repository.get("m").version == 5
    assert bench.link.released == [("m", 3), ("m", 4)]


async def test_what_a_roll_out_holds_is_not_given_back(make: Make) -> None:
    bench = make(REF)
    bench.bring(3, 4)
    bench.link._held["m"] = {4}
    await bench.say(bench.model(3, 3))
    assert bench.link.released == []
    await bench.link.loaded("m", 4)
    with pytest.raises(LoadFailed, match="version 9 can't be loaded"):
        await bench.link.loaded("m", 9)
    with pytest.raises(NotFound):
        await bench.link.loaded("other", 1)


async def test_in_mode_explicit_nothing_is_loaded_that_nobody_asked_for(make: Make) -> None:
    bench = make(
        REF, "n=models:/r@champion", model_control_mode="explicit", load_model=("n", "late")
    )
    starting = asyncio.ensure_future(bench.models.start(bench.repository.start))
    bench.bring(3)
    bench.bring(3, name="n")
    said = (bench.model(3, 3), bench.model(3, 3, name="n"))
    await bench.say(*said)
    await starting
    assert (bench.states(), bench.states("n")) == ({}, {"3": "READY"})
    reasons = {line.name: line.reason for line in bench.repository.index()}
    assert reasons["m"] == "unloaded"
    assert "no folder named 'late'" in reasons["late"]
    await bench.repository.load("m")
    assert bench.repository.get("m").version == 3
    await bench.repository.unload("n")
    bench.bring(3, 4)
    bench.bring(3, 4, name="n")
    await bench.say(bench.model(4, 4), bench.model(4, 4, name="n"))
    # one is followed, the other was unloaded
    assert bench.repository.get("m").version == 4
    assert bench.states("n") == {"3": "UNAVAILABLE"}
    assert ("m", 3) in bench.link.released


async def test_a_gateway_takes_over_without_an_agent(make: Make) -> None:
    first = make(REF)
    first.bring(3, 4)
    said = first.model(3, 3, 4, aliases={"champion": 3})
    await first.say(said)
    again = make(REF, state=RegistryState(models=(said,)))
    again.bench.link.inherit(first.bench.link)
    await again.models.start(again.repository.start)
    assert again.states() == {"3": "READY", "4": "READY"}
    assert again.repository.get("m").version == 3
    # what was loaded goes on
    assert again.bench.link.started == []
    assert again.link.moved == [("m", "champion", None, 3)]


async def test_what_lies_in_the_view_and_nobody_was_told_of_is_not_loaded_yet(
    make: Make,
) -> None:
    bench = make(REF)
    bench.bring(3, 4)
    bench.bring(1, name="stranger")
    await bench.repository.start()
    assert bench.bench.link.started == []
    await bench.say(bench.model(3, 3, 4), bench.model(1, 1, name="stranger"))
    assert bench.repository.get("stranger").version == 1


async def test_a_model_that_nothing_names_any_more_goes(make: Make) -> None:
    bench = make(model_control_mode="poll")
    starting = asyncio.ensure_future(bench.models.start(bench.repository.start))
    bench.bring(3)
    await bench.say(bench.model(3, 3))
    await starting
    assert bench.repository.get("m").version == 3
    await bench.say(bench.model(3, gone=True))
    assert bench.states() == {"3": "UNAVAILABLE"}
    assert bench.link.released == [("m", 3)]
    shutil.rmtree(bench.view / "m")
    await bench.say()
    assert not bench.repository.knows("m")


async def test_an_agent_that_says_nothing_does_not_stop_the_start(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry_models, "START_PATIENCE_S", 0.01)
    bench = make(REF)
    await bench.models.start(bench.repository.start)
    assert "there is no registry agent: the server starts without its models" in caplog.text
    assert not bench.repository.all_ready


async def test_a_model_in_two_places_is_refused(make: Make, tmp_path: Path) -> None:
    bench = make(REF)
    write(tmp_path / "a" / "m", 1)
    bench.bring(3)
    await bench.say(bench.model(3, 3))
    assert "'m' is in more than one repository" in bench.repository.why_not("m")


async def test_folders_with_an_entry_are_no_models_themselves(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a" / "m", config="max_batch_size: 4")
    (tmp_path / "a" / "m" / "registry.toml").write_text("")
    bench = make(REF)
    bench.bring(3)
    await bench.say(bench.model(3, 3))
    await bench.repository.start()
    assert bench.states() == {"3": "READY"}
    assert [line.name for line in await bench.repository.listing()] == ["m"]


async def test_how_versions_are_served_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_models, "REPORT_S", 0.0)
    bench = make(REF)
    bench.bench.link.refuse["m/4"] = "no weights"
    bench.bring(3, 4)
    await bench.say(bench.model(3, 3, 4))

    def told() -> dict[int, tuple[str, float, bool]]:
        last = bench.link.deployments[-1]["m"] if bench.link.deployments else {}
        return {v: (each.state, each.share, each.healthy) for v, each in last.items()}

    ready, failed = ("READY", 100.0, True), ("UNAVAILABLE", 0.0, False)
    await until(lambda: told() == {3: ready, 4: failed})
    count = len(bench.link.deployments)
    bench.models.report()
    bench.link.share_of = lambda _, version: 25.0 if version == 3 else None
    bench.link.statuses_changed()
    await until(lambda: told() == {3: ("READY", 25.0, True), 4: failed})
    assert len(bench.link.deployments) == count + 1
    since = bench.link.deployments[-1]["m"][3].since
    assert since.endswith("Z")
    assert bench.link.deployments[0]["m"].get(3, bench.link.deployments[-1]["m"][3]).since == since
