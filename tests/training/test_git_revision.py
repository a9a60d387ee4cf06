"""Which code a run was made with."""

import subprocess
from pathlib import Path

import pytest

from penstock_training import git_revision as module
from penstock_training.git_revision import GitRevision, git_revision


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--initial-branch", "work")
    (tmp_path / "train.py").write_text("rate = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "first")
    git(tmp_path, "remote", "add", "origin", "https://me:secret@git.example.org/models.git")
    return tmp_path


def test_a_clean_tree(repository: Path) -> None:
    found = git_revision(repository)
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert found == GitRevision(commit, "work", "https://git.example.org/models.git")
    assert found.tags == {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": "work",
        "mlflow.source.git.repoURL": "https://git.example.org/models.git",
        "penstock.git.revision": commit,
        "penstock.git.dirty": "false",
    }


def test_changes_staged_and_not_and_new_files(repository: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    (repository / "train.py").write_text("rate = 2\n")
    (repository / "staged.py").write_text("staged = True\n")
    git(repository, "add", "staged.py")
    (inner / "new.py").write_text("password = 'x'\n")
    found = git_revision(inner)
    assert found.dirty
    assert found.tags["penstock.git.dirty"] == "true"
    assert "-rate = 1\n+rate = 2\n" in found.changes
    assert "+staged = True\n" in found.changes
    assert found.untracked == ("inner/new.py",)
    assert "password" not in found.changes, "a file that nobody has added may hold anything"


def test_in_no_repository_and_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    expected = {"penstock.git.revision": "none: not in a git repository"}
    assert git_revision(tmp_path).tags == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(Path(__file__).parent).tags == expected


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert git_revision(tmp_path) == GitRevision()


def test_a_long_diff_is_cut(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIFF_BYTES", 1000)
    (repository / "train.py").write_text("rate = 'ü'\n" * 1000)
    found = git_revision(repository)
    assert len(found.diff.encode()) < 1100
    assert "# cut here: it is " in found.diff
