"""The last good value goes on, and changes are told: with a clock of the test's own, and once with the real thread."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets.source import LONGEST_RETRY_S, SecretSource
from penstock.secrets.stores import EnvironmentStore, Reading, Store
from penstock.secrets_config import SecretRef, SecretsSettings

VAULT = SecretRef.parse("vault:secret/app#key")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class PuppetStore:
    """Says what the test says."""

    def __init__(self) -> None:
        self.value: bytes | None = b"one"
        self.fresh_s = 100.0
        self.reads = 0
        self.closed = False

    def read(self, ref: SecretRef) -> Reading:
        self.reads += 1
        if self.value is None:
            raise ConfigError(f"{ref}: away")
        return Reading(Secret(self.value), self.fresh_s)

    def close(self) -> None:
        self.closed = True


class Quiet(SecretSource):
    """Has no thread: the test looks."""

    def _follow(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> PuppetStore:
    return PuppetStore()


@pytest.fixture
def source(clock: Clock, store: PuppetStore) -> Iterator[SecretSource]:
    variables = EnvironmentStore({"A": "x", "EMPTY": ""})
    stores: dict[str, Store] = {"file": store, "vault": store, "env": variables}
    source = Quiet(stores=stores, clock=clock)
    yield source
    source.close()
    assert store.closed


def test_a_first_read_that_fails_is_an_error(source: SecretSource, store: PuppetStore) -> None:
    store.value = None
    with pytest.raises(ConfigError, match=r"vault:secret/app#key: away"):
        source.get(VAULT)
    assert source.health() == []


def test_variables(source: SecretSource) -> None:
    assert source.get(SecretRef.parse("env:A")).text() == "x"
    with pytest.raises(ConfigError, match="env:B: the variable is not set"):
        source.get(SecretRef.parse("env:B"))
    with pytest.raises(ConfigError, match="env:EMPTY: the variable is empty"):
        source.watch(SecretRef.parse("env:EMPTY"))
    source.watch(SecretRef.parse("env:A"))
    assert math.isinf(source.look())


def test_vault_is_asked_again_when_it_is_due_and_not_by_get(
    source: SecretSource, store: PuppetStore, clock: Clock
) -> None:
    told: list[bytes] = []
    watch = source.watch(VAULT, lambda secret: told.append(secret.reveal()))
    store.value = b"two"
    clock.now += 99
    assert source.look() == 1
    assert source.get(VAULT) == watch.secret == Secret(b"one")
    clock.now += 1
    assert source.get(VAULT) == Secret(b"one")
    assert store.reads == 1
    assert source.look() == 100
    assert source.get(VAULT) == watch.secret == Secret(b"two")
    assert told == [b"two"]
    source.look()
    assert told == [b"two"]


def test_a_file_is_read_at_each_get(source: SecretSource, store: PuppetStore) -> None:
    ref = SecretRef.parse("file:/x")
    assert source.get(ref) == Secret(b"one")
    store.value = b"two"
    assert source.get(ref) == Secret(b"two")
    assert math.isinf(source.look()), "nobody watches it"


def test_what_get_saw_first_is_told_to_watches_all_the_same(
    source: SecretSource, store: PuppetStore
) -> None:
    ref = SecretRef.parse("file:/x")
    told: list[bytes] = []
    source.watch(ref, lambda secret: told.append(secret.reveal()))
    store.value = b"two"
    source.get(ref)
    assert told == []
    source.look()
    assert told == [b"two"]


def test_the_last_good_value_goes_on(
    source: SecretSource, store: PuppetStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    watch = source.watch(VAULT)
    store.value = None
    waits = []
    with caplog.at_level(logging.INFO, "penstock"):
        clock.now += 100
        for _ in range(8):
            waits.append(source.look())
            clock.now += waits[-1]
        assert source.get(VAULT) == watch.secret == Secret(b"one")
        assert [(h.ref, h.failing, h.failures) for h in source.health()] == [(VAULT, True, 8)]
        assert source.health()[0].age_s == clock.now - 1000
        store.value = b"two"
        source.look()
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_RETRY_S, LONGEST_RETRY_S]
    assert watch.secret == Secret(b"two")
    assert [(h.failing, h.failures) for h in source.health()] == [(False, 8)]
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert "The value that was read before goes on" in caplog.text


def test_a_watch_that_fails_keeps_no_other_from_hearing(
    source: SecretSource, store: PuppetStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"bad key {secret.text()}")

    source.watch(VAULT, fail)
    good = source.watch(VAULT)
    store.value = b"planted"
    clock.now += 100
    source.look()
    assert good.secret == Secret(b"planted")
    assert "RuntimeError" in caplog.text
    assert "planted" not in caplog.text


def test_a_closed_watch_hears_nothing(
    source: SecretSource, store: PuppetStore, clock: Clock
) -> None:
    told: list[Secret] = []
    watch = source.watch(VAULT, told.append)
    watch.close()
    watch.close()
    store.value = b"two"
    clock.now += 100
    source.look()
    assert told == []


def test_a_replaced_file_is_told_by_the_sources_own_thread(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one\n")
    path.chmod(0o600)
    source = SecretSource(SecretsSettings())
    try:
        changed = threading.Event()
        before = threading.active_count()
        watch = source.watch(SecretRef.parse(f"file:{path}"), lambda _: changed.set())
        assert threading.active_count() == before + 1
        newer = tmp_path / "newer"
        newer.write_text("two\n")
        newer.chmod(0o600)
        newer.rename(path)
        assert changed.wait(30)
        assert watch.secret == Secret(b"two")
    finally:
        source.close()
    assert threading.active_count() == before
    source.close()


def test_reading_alone_starts_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one")
    path.chmod(0o600)
    source = SecretSource()
    before = threading.active_count()
    assert source.get(SecretRef.parse(f"file:{path}")) == Secret(b"one")
    assert threading.active_count() == before
    source.close()
