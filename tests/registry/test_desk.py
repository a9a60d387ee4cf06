"""The agent's work over a registry in memory: what references mean, what is brought, what stays when all goes wrong."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_registry import DeskBench, FakeRegistry
from fake_workers import until
from penstock.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from penstock.registry import entries
from penstock.registry.messages import RegistryModel

MakeDesk = Callable[..., DeskBench]


def versions(model: RegistryModel) -> list[tuple[int, bool]]:
    return [(each.version, each.wanted) for each in model.versions]


async def test_aliases_a_version_and_the_latest_side_by_side(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    for version in (1, 2, 3, 4):
        registry.add("m", version)
    registry.set_status("m", 4, "PENDING_REGISTRATION")
    registry.aliases["m"] = {"champion": 2, "other": 1}
    bench = desk("models:/m@champion", "models:/m/1", "models:/m", "own=models:/m")
    bench.start()
    model = await bench.settled()
    assert versions(model) == [(1, True), (2, True), (3, True)]
    assert (model.default, model.problem, model.fetching) == (2, "", ())
    assert model.aliases == {"champion": 2, "other": 1}
    assert model.versions[1].run_id == "run2"
    assert (await bench.settled("own")).default == 3
    assert (bench.there(), bench.there("own")) == ([1, 2, 3], [3])
    # each once, though two are served under two names
    assert len(registry.copied) == 3
    assert [note.outcome for note in bench.notes] == ["done"] * 3
    assert bench.desk.state is not None
    assert bench.desk.state.counts.reachable
    assert bench.desk.state.counts.fetches == 3


async def test_an_alias_that_moves_is_followed_and_the_one_before_goes_when_it_is_released(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    registry.add("m", 1)
    registry.add("m", 2)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.start()
    first = await bench.settled()
    registry.gate = threading.Event()
    registry.aliases["m"] = {"champion": 2}
    bench.desk.look()
    model = await bench.until(lambda m: m.fetching == (2,))
    # until it is there, what is there goes on
    assert (versions(model), model.default, model.aliases) == ([(1, True)], 1, {"champion": 2})
    await bench.desk.release("m", 1)
    assert bench.there() == [1]
    registry.gate.set()
    model = await bench.until(lambda m: m.default == 2)
    assert versions(model) == [(1, False), (2, True)]
    assert model.revision > first.revision
    await bench.desk.release("m", 1)
    await bench.desk.release("m", 2)
    assert bench.there() == [2]
    assert versions(await bench.settled()) == [(2, True)]


async def test_what_the_gateway_holds_stays(desk: MakeDesk, registry: FakeRegistry) -> None:
    registry.add("m", 1)
    registry.add("m", 2)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.start()
    await bench.settled()
    with pytest.raises(NotFound, match="has no version 7"):
        await bench.desk.bring("m", 7)
    with pytest.raises(NotFound, match="'x' does not come from the registry"):
        await bench.desk.bring("x", 7)
    bench.desk.hold({"m": (2,), "unknown": (1,)})
    await bench.desk.bring("m", 2)
    assert versions(await bench.until(lambda m: len(m.versions) == 2)) == [(1, True), (2, True)]
    await bench.desk.release("m", 2)
    bench.desk.hold({})
    assert versions(await bench.until(lambda m: not m.versions[1].wanted))[1] == (2, False)
    await bench.desk.release("m", 2)
    assert bench.there() == [1]


async def test_what_means_nothing_is_said_and_asked_again(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    registry.add("m", 1)
    bench = desk("models:/m@champion", "models:/gone@a", "models:/e", poll_s=0.02)
    registry.aliases["e"] = {}
    bench.start()
    model = await bench.settled()
    assert model.problem == "registered model 'm' has no alias 'champion'"
    assert (model.default, versions(model)) == (None, [])
    assert (await bench.settled("gone")).problem == "no registered model 'gone' in fake:"
    problem = "registered model 'e' has no version that is ready"
    assert (await bench.settled("e")).problem == problem
    registry.aliases["m"] = {"champion": 1}
    assert (await bench.until(lambda m: m.default == 1)).problem == ""


async def test_a_deleted_alias_or_version_leaves_what_is_served(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    registry.add("m", 1)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.start()
    await bench.settled()
    registry.aliases["m"] = {}
    del registry.versions["m", 1]
    bench.desk.look()
    model = await bench.until(lambda m: m.problem != "")
    assert (versions(model), model.default, model.aliases) == ([(1, True)], 1, {})
    await bench.desk.release("m", 1)
    assert bench.there() == [1]
    # a restart too, for it was served
    other = desk("models:/m@champion", view="other")
    other.start()
    model = await other.settled()
    assert (versions(model), model.default) == ([(1, True)], 1)
    assert model.problem == "registered model 'm' has no alias 'champion'"


async def test_away_at_the_start_what_was_fetched_is_served(
    desk: MakeDesk, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2):
        registry.add("m", version)
    registry.aliases["m"] = {"champion": 2}
    registry.add("new", 1)
    bench = desk("models:/m@champion")
    bench.start()
    await bench.settled()
    registry.away = True
    other = desk("models:/m@champion", "models:/m/1", "models:/new/1", view="other", poll_s=0.05)
    other.start()
    model = await other.settled()
    assert (versions(model), model.default) == ([(2, True)], 2)
    assert model.aliases == {"champion": 2}
    assert "the registry can't be asked: it is away; version 1: " in model.problem
    assert versions(await other.settled("new")) == []
    assert other.desk.state is not None
    assert not other.desk.state.counts.reachable
    assert "it is away" in other.desk.state.problem
    where = "(the registry is fake: now, and is set by --registry-uri)"
    assert f"it is away; nothing of it is served yet {where}, and it is asked again" in caplog.text
    registry.away = False
    other.desk.look()
    await other.until(lambda m: versions(m) == [(1, True), (2, True)] and not m.problem)
    await other.until(lambda m: versions(m) == [(1, True)], "new")
    registry.away = True
    other.desk.look()
    await until(lambda: "it is away; what was fetched goes on" in caplog.text)


async def test_a_registry_that_says_nothing_is_not_waited_for(
    desk: MakeDesk, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("m", 1)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.start()
    await bench.settled()
    silence = threading.Event()

    def silent(*_: object, **__: object) -> Any:
        assert silence.wait(30)
        raise Unavailable("nothing came")

    monkeypatch.setattr(registry, "model", silent)
    monkeypatch.setattr(registry, "version", silent)
    other = desk("models:/m@champion", view="other", fallback_s=0.01)
    monkeypatch.setattr(other.desk._ask, "_connect", silent)
    other.start()
    assert (await other.until(lambda m: m.default == 1)).settled
    silence.set()


async def test_a_damaged_cache_is_mended_or_said(
    desk: MakeDesk, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add("m", 1)
    bench = desk("models:/m/1")
    bench.start()
    model = await bench.settled()
    manifest = bench.cache.manifest("m", 1)
    assert manifest is not None
    blob = bench.cache.blob(manifest.files["weights"].sha256)
    for away in (True, False):
        if blob.exists():
            # also those who run servers can't write to it by mistake
            blob.chmod(0o600)
            blob.write_text("M 1")
        registry.away = away
        other = desk("models:/m/1", view=f"other{away}")
        other.start()
        again = await other.settled()
        if away:
            assert "'weights' in the cache is missing or damaged" in again.problem
            assert versions(again) == []
        else:
            assert again.versions == model.versions
            assert (other.view.folder / "m" / "1" / "weights").read_text() == "m 1"
            assert other.bringing.damaged == 1
    assert "1 files of the cache are missing or damaged, as 'weights'" in caplog.text


async def test_a_number_that_was_given_again_is_another_version(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add("m", 1)
    bench = desk("models:/m/1")
    bench.start()
    await bench.settled()
    registry.folder = tmp_path / "anew"
    registry.add("m", 1, {"weights": "another"})
    other = desk("models:/m/1", view="other")
    other.start()
    await other.settled()
    assert (other.view.folder / "m" / "1" / "weights").read_text() == "another"


async def test_a_fetch_that_fails_is_tried_again_and_stops_nothing(
    desk: MakeDesk,
    registry: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("penstock.registry.followed.FIRST_RETRY_S", 0.01)
    registry.add("m", 1)
    bad = registry.add("m", 2)
    (bad / "link").symlink_to("/etc/passwd")
    registry.aliases["m"] = {"champion": 2, "good": 1}
    bench = desk("models:/m@champion,good")
    bench.start()
    model = await bench.settled()
    assert (versions(model), model.default) == ([(1, True)], None)
    assert model.problem.startswith("version 2: LinkOutside: 'link' is a symbolic link")
    assert ("refused", "2") in [(note.outcome, note.details["version"]) for note in bench.notes]
    (bad / "link").unlink()
    model = await bench.until(lambda m: m.default == 2)
    assert model.problem == ""
    assert "model 'm' version 2 can't be fetched: LinkOutside" in caplog.text


async def test_another_agent_goes_on_where_one_was_killed(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    for version in (1, 2):
        registry.add("m", version)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.desk.hold({"m": (2,)})
    bench.start()
    await bench.until(lambda m: len(m.versions) == 2)
    await bench.close()
    registry.away = True
    shutil.rmtree(bench.cache.folder / "known")
    (bench.cache.folder / "known").mkdir()
    other = desk("models:/m@champion")
    other.start()
    model = await other.settled()
    # nobody knows what is wanted: nothing goes
    assert versions(model) == [(1, True), (2, True)]
    assert model.default == 1
    for version in (1, 2):
        await other.desk.release("m", version)
    assert other.there() == [1, 2]
    registry.away = False
    other.desk.look()
    await other.until(lambda m: versions(m) == [(1, True), (2, False)])


async def test_a_cache_without_its_own_records_is_no_obstacle(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    registry.add("m", 1)
    bench = desk("models:/m/1")
    bench.start()
    await bench.settled()
    await bench.close()
    for path in bench.cache.folder.rglob("*.json"):
        path.write_text("{")
    other = desk("models:/m/1")
    other.start()
    assert versions(await other.settled()) == [(1, True)]


async def test_what_is_asked_directly(desk: MakeDesk, registry: FakeRegistry) -> None:
    for version in (1, 2):
        registry.add("m", version)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("own=models:/m@champion")
    bench.start()
    await bench.settled("own")
    resolve = bench.desk.answers.resolve
    one = await resolve("own", "@champion")
    assert (one.name, one.version, one.run_id, one.aliases) == ("m", 1, "run1", ("champion",))
    assert one.digest.startswith("sha256:")
    assert [(await resolve("own", ref)).version for ref in ("2", "", "latest")] == [2, 2, 2]
    assert (await resolve("own", "2")).digest == ""
    with pytest.raises(NotFound, match="has no alias 'x'"):
        await resolve("own", "@x")
    with pytest.raises(NotFound, match="has no version 9"):
        await resolve("own", "9")
    with pytest.raises(InvalidRequest):
        await resolve("own", "champion")
    assert (await bench.desk.answers.lineage("own", 1)).digest == one.digest
    await bench.desk.answers.set_alias("own", "champion", 2)
    await bench.until(lambda m: m.default == 2, "own")
    registry.refuse = Forbidden("the registry refuses")
    with pytest.raises(Forbidden):
        await bench.desk.answers.set_alias("own", "champion", 1)
    registry.away = True
    with pytest.raises(Unavailable):
        await resolve("own", "@champion")


async def test_entries_of_repositories_come_and_go(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add("m", 1)
    registry.aliases["m"] = {"champion": 1}
    repository = tmp_path / "repository"
    folder = repository / "served"
    folder.mkdir(parents=True)
    (folder / "registry.toml").write_text('uri = "models:/m@champion"')
    (folder / "config.pbtxt").write_text("max_batch_size: 4")
    (repository / "bad").mkdir()
    (repository / "bad" / "registry.toml").write_text("url = 1")
    bench = desk(entries=lambda: entries.find_entries([repository]), poll_s=0.02)
    bench.start()
    model = await bench.settled("served")
    assert (versions(model), model.refs) == ([(1, True)], ("served=models:/m@champion",))
    assert (bench.view.folder / "served" / "config.pbtxt").read_text() == "max_batch_size: 4"
    bad = await bench.settled("bad")
    assert "bad/registry.toml: url: no such setting, expected uri" in bad.problem
    (folder / "config.pbtxt").write_text("max_batch_size: 8")
    await bench.until(lambda m: m.revision > model.revision, "served")
    assert (bench.view.folder / "served" / "config.pbtxt").read_text() == "max_batch_size: 8"
    shutil.rmtree(folder)
    gone = await bench.until(lambda m: m.gone, "served")
    assert versions(gone) == [(1, False)]
    await bench.desk.release("served", 1)
    assert bench.model("served") is None
    assert not (bench.view.folder / "served").exists()


async def test_an_entry_that_went_is_forgotten_also_where_nothing_of_it_was_there(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.registry.followed.FIRST_RETRY_S", 0.01)
    bad = registry.add("m", 1)
    (bad / "link").symlink_to("/etc/passwd")
    repository = tmp_path / "repository"
    folder = repository / "served"
    folder.mkdir(parents=True)
    (folder / "registry.toml").write_text('uri = "models:/m/1"')
    (folder / "config.pbtxt").write_text("max_batch_size: 4")
    bench = desk(entries=lambda: entries.find_entries([repository]), poll_s=0.02)
    bench.start()
    await bench.until(lambda m: "LinkOutside" in m.problem, "served")
    shutil.rmtree(folder)
    await until(lambda: bench.model("served") is None)
    assert not (bench.view.folder / "served").exists()
    asked = registry.questions
    await asyncio.sleep(0.3)
    assert registry.questions == asked


def an_entry(folder: Path) -> Callable[[str], None]:
    """A repository's; the function names what it is taken from."""
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text("max_batch_size: 4")

    def name_it(reference: str) -> None:
        (folder / "registry.toml").write_text(f'uri = "{reference}"')

    return name_it


async def test_an_entry_that_names_another_model_serves_that_one(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    for name in ("m", "n"):
        registry.add(name, 1)
    registry.add("m", 2)
    folder = tmp_path / "repository" / "served"
    name_it = an_entry(folder)
    name_it("models:/m/1")
    bench = desk(entries=lambda: entries.find_entries([folder.parent]), poll_s=0.02)
    bench.desk.hold({"served": (2,)})
    bench.start()
    before = await bench.until(lambda m: len(m.versions) == 2, "served")
    bench.desk.hold({})
    name_it("models:/n/1")
    model = await bench.until(lambda m: m.registered == "n" and m.settled, "served")
    assert versions(model) == [(1, True)]
    assert model.revision > before.revision
    assert bench.there("served") == [1]
    assert (bench.view.folder / "served" / "1" / "weights").read_text() == "n 1"
    assert (bench.view.folder / "served" / "config.pbtxt").exists()


async def test_what_comes_for_a_model_that_is_not_served_any_more_is_not_taken_for_another_one(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    for name in ("m", "n"):
        registry.add(name, 1)
    folder = tmp_path / "repository" / "served"
    name_it = an_entry(folder)
    name_it("models:/m/1")
    registry.gate = threading.Event()
    bench = desk(entries=lambda: entries.find_entries([folder.parent]), poll_s=0.02)
    bench.start()
    await bench.until(lambda m: m.fetching == (1,), "served")
    name_it("models:/n/1")
    await bench.until(lambda m: m.registered == "n", "served")
    registry.gate.set()
    await bench.until(lambda m: m.default == 1, "served")
    assert (bench.view.folder / "served" / "1" / "weights").read_text() == "n 1"


async def test_an_entry_that_named_another_model_while_no_agent_was_there(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    for name in ("m", "n"):
        registry.add(name, 1)
    folder = tmp_path / "repository" / "served"
    name_it = an_entry(folder)
    name_it("models:/m/1")

    def find() -> list[entries.RepositoryEntry]:
        return entries.find_entries([folder.parent])

    bench = desk(entries=find)
    bench.start()
    before = await bench.settled("served")
    await bench.close()
    name_it("models:/n/1")
    other = desk(entries=find)
    other.start()
    model = await other.settled("served")
    assert model.revision > before.revision
    assert (other.view.folder / "served" / "1" / "weights").read_text() == "n 1"


async def test_an_entry_that_went_while_no_agent_was_there_is_given_back(
    desk: MakeDesk, registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add("m", 1)
    folder = tmp_path / "repository" / "served"
    an_entry(folder)("models:/m/1")

    def find() -> list[entries.RepositoryEntry]:
        return entries.find_entries([folder.parent])

    bench = desk(entries=find)
    bench.start()
    await bench.settled("served")
    await bench.close()
    shutil.rmtree(folder)
    other = desk(entries=find)
    other.start()
    model = await other.until(lambda m: m.gone, "served")
    assert versions(model) == [(1, False)]
    await other.desk.release("served", 1)
    assert other.model("served") is None
    assert not (other.view.folder / "served").exists()


async def test_two_names_of_one_model_are_both_remembered(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    registry.add("m", 1)
    registry.add("m", 2)
    registry.aliases["m"] = {"champion": 1, "challenger": 2}
    references = "models:/m@champion", "own=models:/m@challenger"
    bench = desk(*references)
    bench.start()
    await bench.settled()
    await bench.settled("own")
    await until(lambda: len(bench.cache.known("m").meant) == 2)
    registry.away = True
    other = desk(*references, view="other")
    other.start()
    assert (await other.settled()).default == 1
    assert (await other.settled("own")).default == 2


async def test_an_alias_that_moves_to_what_is_there_already_is_remembered(
    desk: MakeDesk, registry: FakeRegistry
) -> None:
    for version in (1, 2):
        registry.add("m", version)
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion")
    bench.desk.hold({"m": (2,)})
    bench.start()
    await bench.until(lambda m: len(m.versions) == 2 and m.default == 1)
    registry.aliases["m"] = {"champion": 2}
    bench.desk.look()
    await until(lambda: bench.cache.known("m").meant == {"@champion": 2})
    registry.away = True
    other = desk("models:/m@champion", view="other")
    other.start()
    assert (await other.settled()).default == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'uri: expected a reference, as uri = "models:/digits@champion"'),
        ("uri = 1", "uri: expected a reference"),
        ('uri = "models:/m@"', "is no alias"),
        ("uri = ", "not TOML"),
        ('uri = "models:/m"\nalias = "a"', "alias: no such setting, expected uri"),
    ],
)
def test_entries_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "registry.toml").write_text(text)
    (entry,) = entries.find_entries([tmp_path, tmp_path / "none"])
    assert entry.ref is None
    assert f"{folder}/registry.toml: " in entry.problem
    assert said in entry.problem
    assert entries.has_entries([tmp_path])
    assert not entries.has_entries([tmp_path / "none", tmp_path / "m"])


def test_an_entry_has_no_versions_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "m" / "3").mkdir(parents=True)
    (tmp_path / "m" / "registry.toml").write_text('uri = "models:/m"')
    (entry,) = entries.find_entries([tmp_path])
    assert "its folder has version 3: expected only one of them" in entry.problem


async def test_a_registry_is_asked_now_and_then_with_jitter(
    desk: MakeDesk, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.aliases["m"] = {}
    waits: list[float] = []

    async def wait_for(waiting: object, timeout: float | None) -> None:  # noqa: ASYNC109
        assert asyncio.iscoroutine(waiting)
        waiting.close()
        assert timeout is not None
        waits.append(timeout)
        if len(waits) == 20:
            await asyncio.Event().wait()
        raise TimeoutError

    monkeypatch.setattr("penstock.registry.desk.asyncio.wait_for", wait_for)
    bench = desk("models:/m@a", poll_s=10.0)
    bench.start()
    await until(lambda: len(waits) == 20)
    assert all(7.9 <= wait <= 12.1 for wait in waits)
    assert len({round(wait, 2) for wait in waits}) > 10
    assert registry.questions == 20


async def test_a_limit_of_the_cache_is_kept(desk: MakeDesk, registry: FakeRegistry) -> None:
    for version in (1, 2, 3):
        registry.add("m", version, {"weights": "x" * 100 + str(version)})
    registry.aliases["m"] = {"champion": 1}
    bench = desk("models:/m@champion", limit=150)
    bench.start()
    await bench.settled()
    for version in (2, 3):
        registry.aliases["m"] = {"champion": version}
        bench.desk.look()
        await bench.until(lambda m, version=version: m.default == version)  # type: ignore[misc]
        await bench.desk.release("m", version - 1)
    await bench.close()
    other = desk("models:/m@champion", limit=150)
    other.start()
    await other.settled()
    assert other.bringing.cache_bytes == 101
    assert [v for v in (1, 2, 3) if other.cache.manifest("m", v)] == [3]


async def test_what_can_t_be_kept_for_a_restart_is_said(
    desk: MakeDesk, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add("m", 1)
    bench = desk("models:/m/1")
    shutil.rmtree(bench.cache.folder / "known")
    (bench.cache.folder / "known").write_text("")
    with caplog.at_level(logging.WARNING):
        bench.start()
        assert versions(await bench.settled()) == [(1, True)]
        await until(lambda: "can't be kept for a restart" in caplog.text)


async def test_while_a_fetch_is_tried_again_the_registry_is_left_alone(
    desk: MakeDesk, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.registry.followed.FIRST_RETRY_S", 0.01)
    bad = registry.add("m", 1)
    (bad / "link").symlink_to("/etc/passwd")
    bench = desk("models:/m/1")
    bench.start()
    await bench.until(lambda m: "LinkOutside" in m.problem)
    (bad / "link").unlink()
    registry.gate = threading.Event()
    await bench.until(lambda m: m.fetching == (1,))
    asked = registry.questions
    await asyncio.sleep(0.3)
    assert registry.questions <= asked + 3
    registry.gate.set()
    await bench.until(lambda m: m.default == 1)
