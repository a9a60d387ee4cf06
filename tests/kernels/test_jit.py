"""What Numba has compiled is kept on disk, and nothing fails because of that."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_kernels.cpu import jit

CODE = """
import numpy as np
from penstock_kernels.activations import sigmoid
from penstock_kernels.cpu.activations import sigmoid as twin
from penstock_kernels.cpu.runner import Cpu
print(sigmoid(np.zeros(2, np.float32), Cpu()), sum(twin.stats.cache_hits.values()))
"""


def said(folder: Path) -> str:
    """A process's result, and how many of its kernels were there already."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _a_folder(path: Path) -> None:
    """Which can neither be read nor written over, as on a disk that fails."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("suffix", "damage", "mended"),
    [
        ("nbi", _cut, True),
        ("nbc", _emptied, True),
        ("nbc", _a_folder, False),
    ],
)
def test_a_damaged_cache_is_as_good_as_none(
    suffix: str, damage: Callable[[Path], None], mended: bool, tmp_path: Path
) -> None:
    assert said(tmp_path) == "[0.5 0.5] 0"
    assert said(tmp_path) == "[0.5 0.5] 1"
    (file,) = tmp_path.rglob(f"*.{suffix}")
    damage(file)
    assert said(tmp_path) == "[0.5 0.5] 0"
    assert said(tmp_path) == f"[0.5 0.5] {int(mended)}"


def test_what_can_not_be_kept_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    class Kept:
        class _cache_file:
            flushed = 0

            @classmethod
            def flush(cls) -> None:
                cls.flushed += 1
                raise OSError("full, too")

    jit._tell_once.cache_clear()
    for _ in range(2):
        with jit._as_if_empty(Kept):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert Kept._cache_file.flushed == 2
    why = "[Errno 28] No space left on device"
    assert caplog.messages == [
        f"kernels are compiled anew at each start, which takes seconds: {why}"
    ]
