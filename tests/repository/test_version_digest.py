"""The digest of a version, computed aside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pending import joined, pending
from penstock.errors import Unavailable
from penstock.gateway.told_digest import TellingDigest
from penstock.model_digest import folder_digest
from penstock.repository.version_digest import VersionDigest
from penstock.types import OutputTensor


async def test_it_is_known_when_it_is_computed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    digest = VersionDigest(tmp_path)
    with pytest.raises(Unavailable, match="not known yet") as caught:
        digest.now()
    assert caught.value.retry_after_s
    digest.start()
    assert await digest.known() == digest.now() == digest.text == folder_digest(tmp_path)
    assert list(digest.files) == ["model.onnx"]


async def test_who_waits_may_give_up(tmp_path: Path) -> None:
    digest = VersionDigest(tmp_path)
    digest.start()
    waiting = asyncio.create_task(digest.known())
    await asyncio.sleep(0)
    waiting.cancel()
    assert await digest.known() == folder_digest(tmp_path)


async def test_files_that_cant_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = VersionDigest(tmp_path / "gone")
    digest.start()
    with pytest.raises(Unavailable, match="No such file or directory"):
        await digest.known()
    assert digest.text == "" and "no digest of it can be computed" in caplog.text


async def test_a_response_that_is_to_tell_it(tmp_path: Path) -> None:
    model: Any = SimpleNamespace(name="m", digest=VersionDigest(tmp_path))
    with pytest.raises(Unavailable):
        TellingDigest(joined, model)
    model.digest.start()
    told = await model.digest.known()
    request = pending({"X": np.zeros(1, np.float32)})
    request.response_parameters = {"own": 1}
    data = OutputTensor("Y", "FP32", (1,), b"1234")
    assert TellingDigest(joined, model)(request, [data]) == b"1234"
    assert request.response_parameters == {"own": 1, "model_digest": told}
    model.digest = None
    with pytest.raises(Unavailable, match="'m' has no digest"):
        TellingDigest(joined, model)
