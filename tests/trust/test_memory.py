"""Where decrypted files lie: a folder of the run, gone with it, or with the next start."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.artifacts_config import ArtifactsSettings
from penstock.errors import Unavailable
from penstock.secrets_config import SecretRef
from penstock.trust.memory import SHARED_MEMORY, memory_folder, memory_path

KEK = SecretRef("env", "KEK")

HOLD = """
import sys
from pathlib import Path
from penstock.artifacts_config import ArtifactsSettings
from penstock.secrets_config import SecretRef
from penstock.trust.memory import memory_folder
settings = ArtifactsSettings(key_encryption_key=SecretRef("env", "KEK"), memory_folder=Path(sys.argv[1]))
with memory_folder(settings, Path("run-of-another")):
    print("made", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> ArtifactsSettings:
    return ArtifactsSettings(key_encryption_key=KEK, memory_folder=tmp_path)


def test_it_is_there_for_as_long_as_the_run(settings: ArtifactsSettings, tmp_path: Path) -> None:
    folder = memory_path(settings, Path("/tmp/run"))
    with memory_folder(settings, Path("/tmp/run")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "1").mkdir()
        (folder / "1" / "secret").touch()
    assert list(tmp_path.iterdir()) == []


def test_there_is_none_without_a_key(tmp_path: Path) -> None:
    with memory_folder(ArtifactsSettings(memory_folder=tmp_path), Path("/tmp/run")):
        assert list(tmp_path.iterdir()) == []


def test_by_default_it_is_in_memory() -> None:
    path = memory_path(ArtifactsSettings(key_encryption_key=KEK), Path("/tmp/run"))
    assert path.parent == SHARED_MEMORY


def test_that_of_a_run_that_was_killed_goes_with_the_next_start(
    settings: ArtifactsSettings, tmp_path: Path
) -> None:
    other = memory_path(settings, Path("run-of-another"))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        (other / "secret").touch()
        with memory_folder(settings, Path("/tmp/run")):
            # its server runs
            assert (other / "secret").exists()
        process.kill()
    assert (other / "secret").exists()
    with memory_folder(settings, Path("/tmp/run")):
        assert not other.exists()


def test_what_is_not_ours_is_left(settings: ArtifactsSettings, tmp_path: Path) -> None:
    own = memory_path(settings, Path("own")).name
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".lock").touch()
    (tmp_path / f"{own}-link").symlink_to(outside)
    (tmp_path / f"{own}-without-lock").mkdir()
    (tmp_path / f"{own}-file").touch()
    before = sorted(tmp_path.iterdir())
    with memory_folder(settings, Path("/tmp/run")):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_no_room_for_it(settings: ArtifactsSettings, tmp_path: Path) -> None:
    missing = settings.model_copy(update={"memory_folder": tmp_path / "missing"})
    with (
        pytest.raises(Unavailable, match=r"artifacts\.memory_folder"),
        memory_folder(missing, Path("/tmp/run")),
    ):
        pass
