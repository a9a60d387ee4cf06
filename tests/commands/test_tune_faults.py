"""`penstock models tune` where its server, or the file that it writes, fails: one line, and what was found is shown."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from backend_cases import write_onnx_network
from penstock.cli import main
from penstock.commands import tune
from penstock.errors import Unavailable
from penstock.tuning.candidate import Candidate
from penstock.tuning.model import TunedModel
from penstock.tuning.private_server import private_folder, private_server
from penstock.tuning.search import Found, Gain, Slice, Trial

NOW = Candidate("onnxruntime", max_batch_size=8)
BEST = Candidate("openvino", max_batch_size=8)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`tuned(error, *words)` runs the command on a search that ends with that error, or finds BEST."""
    write_onnx_network(tmp_path / "net")

    def run(error: BaseException | None, *words: str) -> int:
        async def search(model: TunedModel, *_: Any) -> tuple[TunedModel, Found]:
            if error is not None:
                raise error
            trial = Trial("backend", BEST, (Slice(2, 1, 1),), 0.5, chosen=True)
            return model, Found(NOW, BEST, Gain(1.5, 1.4), (trial,), True)

        monkeypatch.setattr(tune, "run", search)
        return main(["models", "tune", "net", f"--model-repository={tmp_path}", *words])

    return run


def test_a_full_disk_is_one_line(
    tuned: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/there")
    assert tuned(full) == 1
    told = "penstock: 'net' can't be tuned: /tmp/there: No space left on device\n"
    assert capsys.readouterr().err.endswith(told)


def test_a_server_that_is_gone_is_one_line(
    tuned: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = grpc.aio.Metadata()
    gone = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata, "Socket closed")
    assert tuned(gone) == 1
    told = "penstock: the server to measure with answers no more: Socket closed\n"
    assert capsys.readouterr().err.endswith(told)


def test_what_was_found_is_shown_where_it_can_not_be_written(
    tuned: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fails(_old: Path, _new: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", fails)
    before = sorted((tmp_path / "net").iterdir())
    assert tuned(None) == 2
    said = capsys.readouterr()
    assert '+backend: "openvino"' in said.out
    assert "config.pbtxt is not changed." in said.out
    assert said.err.endswith("config.pbtxt can't be written: Read-only file system\n")
    assert sorted((tmp_path / "net").iterdir()) == before


async def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of what it has said, and that whole."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with private_folder() as folder:
        missing = tmp_path / "nowhere"
        with pytest.raises(Unavailable) as caught:
            async with private_server(missing, folder, 1):
                pass
    said = f"model repository {missing}: there is no such folder"
    assert str(caught.value) == f"the server to measure with did not start: penstock: {said}"
