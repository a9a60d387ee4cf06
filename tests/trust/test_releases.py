"""The record of releases that were served."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.errors import Downgraded, ReleasesUnreadable
from penstock.trust.releases import Releases, Served


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "deep" / "state" / "releases.json")


def served(serial: int) -> Served:
    return Served(serial, f"digest of {serial}")


def test_it_only_rises(releases: Releases) -> None:
    for serial in (5, 7, 6):
        releases.record("m", 1, served(serial))
    assert releases.of("m") == {"1": served(7)}
    assert releases.of("n") == {}
    releases.check("m", 1, served(7), [1])
    releases.check("m", 1, served(8), [1])
    releases.check("m", 2, served(1), [1, 2])
    releases.check("n", 1, served(1), [1])
    for problem in (served(6), Served(7, "other")):
        with pytest.raises(Downgraded):
            releases.check("m", 1, problem, [1])
        releases.check("m", 1, problem, [1], rollback=True)


def test_it_is_private(releases: Releases, tmp_path: Path) -> None:
    releases.record("m", 1, served(1))
    folder = tmp_path / "deep" / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_forgetting(releases: Releases) -> None:
    for version in (1, 2):
        releases.record("m", version, served(5))
    assert not releases.reset("n")
    assert not releases.reset("m", 3)
    assert releases.reset("m", 2)
    assert releases.of("m") == {"1": served(5)}
    assert releases.reset("m")
    assert releases.all() == {}


def test_writers_at_the_same_time(releases: Releases) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: releases.record(f"m{number}", 1, served(1)), range(40)))
    assert len(releases.all()) == 40


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"format": 1, "models": {"m": {"x": {"serial": 1, "digest": ""}}}}']
)
def test_what_can_not_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "releases.json"
    path.write_bytes(content)
    for use in (
        lambda: Releases(path).of("m"),
        lambda: Releases(path).record("m", 1, served(1)),
        lambda: Releases(path).reset("m"),
    ):
        with pytest.raises(ReleasesUnreadable) as raised:
            use()
        assert str(tmp_path) not in str(raised.value)
    assert path.read_bytes() == content


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ReleasesUnreadable):
        Releases(tmp_path).of("m")
