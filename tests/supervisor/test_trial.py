"""Loading models on trial leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from descriptors import open_descriptors
from penstock.config import Settings
from penstock.errors import LoadFailed
from penstock.repository.config_file import read_config
from penstock.secrets_config import SecretRef, SecretsSettings
from penstock.supervisor.trial import Tried, trial
from served_models import XY, write_add_sub, write_model

pytestmark = pytest.mark.extension("check")


async def test_good_and_bad_models_side_by_side(tmp_path: Path) -> None:
    write_add_sub(tmp_path / "add_sub")
    write_model(tmp_path / "broken", "mirror", XY)
    (tmp_path / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights')\n")
    config = await asyncio.to_thread(read_config, tmp_path / "broken")
    assert config is not None
    before, others = open_descriptors(), children()
    async with trial(Settings()) as running:
        good, bad = await asyncio.gather(
            running.load(tmp_path / "add_sub", 1, {"name": "add_sub", "backend": "onnxruntime"}),
            running.load(tmp_path / "broken", 1, config),
            return_exceptions=True,
        )
        assert isinstance(good, Tried)
        assert [tensor["name"] for tensor in good.config["input"]] == ["INPUT0", "INPUT1"]
        assert good.fallbacks == ()
        assert isinstance(bad, LoadFailed)
        assert "no weights" in str(bad)
    assert open_descriptors() == before
    assert children() == others


def children() -> set[str]:
    """Process ids of this process's children."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_secrets_of_the_environment_are_not_for_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_PLACE", "planted")
    monkeypatch.setenv("OTHER_PLACE", "seen")
    write_model(tmp_path / "spy", "mirror", XY)
    (tmp_path / "spy" / "1" / "model.py").write_text(
        'import os\nraise RuntimeError(f\'{os.environ.get("SECRET_PLACE")}'
        ' {os.environ["OTHER_PLACE"]}\')\n'
    )
    config = await asyncio.to_thread(read_config, tmp_path / "spy")
    assert config is not None
    secrets = SecretsSettings(
        vault_address="https://vault:8200", vault_token=SecretRef.parse("env:SECRET_PLACE")
    )
    async with trial(Settings(secrets=secrets)) as running:
        with pytest.raises(LoadFailed, match="None seen"):
            await running.load(tmp_path / "spy", 1, config)
