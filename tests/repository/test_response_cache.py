"""Which models' answers are cached, from configuration and settings to the pool."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fake_workers import settle, until
from penstock.caching.answer import NOTHING
from penstock.config import Settings
from penstock.repository.cached_pool import CachedPool
from penstock.repository.pool import Pool
from penstock.repository.repository import ModelRepository
from penstock.repository.response_cache import cache_for, response_cache
from repository_bench import LoadingLink, write

pytestmark = pytest.mark.extension("response_cache")

WITH = "response_cache { enable: true }"
ON = response_cache(Settings(cache_config=("local,size=1000",)))


def test_the_flag_decides_whether_there_is_one() -> None:
    assert response_cache(Settings()) is None
    assert ON is not None
    assert ON.budget_bytes == 1000


@pytest.mark.parametrize(
    ("more", "cache", "why"),
    [
        ({}, None, "start the server with --cache-config=local,size=BYTES"),
        ({"sequence_batching": {"direct": {}}}, ON, "the answers of stateful models differ"),
        (
            {"model_transaction_policy": {"decoupled": True}},
            ON,
            "the responses of decoupled models are not cached",
        ),
    ],
)
def test_where_it_has_no_effect_it_is_said_why(
    more: dict[str, object], cache: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"name": "m", "response_cache": {"enable": True}, **more}
    assert cache_for(config, cache) is None  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"model 'm': response_cache has no effect: {why}")


def test_models_that_don_t_ask_get_none_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    for config in ({"name": "m"}, {"name": "m", "response_cache": {"enable": False}}):
        assert cache_for(config, ON) is None
        assert cache_for(config, None) is None
    assert not caplog.records


async def test_models_that_ask_for_it_have_it(tmp_path: Path) -> None:
    write(tmp_path / "asks", 1, config=f"{WITH}\ninstance_group [ {{ kind: KIND_CPU count: 2 }} ]")
    write(tmp_path / "does_not", 1)
    link = LoadingLink()
    settings = Settings(model_repository=(tmp_path,), default_threads=4)
    cache: Any = response_cache(Settings(cache_config=("local,size=9",)))
    repository = ModelRepository(settings, link, None, cache)  # type: ignore[arg-type]
    try:
        await repository.start()
        asks, does_not = repository.get("asks"), repository.get("does_not")
        assert isinstance(asks.pool, CachedPool)
        assert isinstance(does_not.pool, Pool)
        assert asks.statistics.cache is not None
        assert does_not.statistics.cache is None
        assert len(asks.pool.instances) == 2
        assert asks.ready
        assert asks.accepts
    finally:
        await repository.close()
        link.close()


async def test_a_worker_that_is_started_on_other_files_empties_the_cache(tmp_path: Path) -> None:
    model = write(tmp_path / "m", 1, config=WITH)
    link = LoadingLink()
    settings = Settings(model_repository=(tmp_path,), default_threads=4)
    cache = response_cache(Settings(cache_config=("local,size=5000",)))
    assert cache is not None
    repository = ModelRepository(settings, link, None, cache)  # type: ignore[arg-type]
    try:
        await repository.start()
        served = repository.get("m")
        counts = served.statistics.cache
        assert counts is not None
        for changed in (False, True):
            cache.put(b"key", NOTHING, 10, counts)
            if changed:
                (model / "1" / "model.py").write_text("# changed\n")
            started = len(link.started)
            link.workers["m/1#0"].exited.set_result("killed")
            await until(lambda: len(link.started) > started)  # noqa: B023 - awaited here
            await until(lambda: served.ready)
            await settle()
            assert counts.entries == (0 if changed else 1)
    finally:
        await repository.close()
        link.close()
