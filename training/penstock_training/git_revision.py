"""Which code a run was made with: the commit, and what was changed since."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MAX_DIFF_BYTES: Final = 4 << 20
"""A longer diff is cut: somebody has changed a file of data."""
TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class GitRevision:
    """The state of a working tree. Empty texts: it is in no repository, or git is not there."""

    commit: str = ""
    branch: str = ""
    """Empty: none is checked out."""
    remote: str = ""
    """Where it was cloned from, without credentials."""
    diff: str = ""
    """What was changed since the commit, staged or not; binary files by name only."""
    untracked: tuple[str, ...] = ()
    """Files that are in no commit: names only."""

    @property
    def dirty(self) -> bool:
        """Whether the commit alone does not say which code it was."""
        return bool(self.diff or self.untracked)

    @property
    def tags(self) -> dict[str, str]:
        """As MLflow and Penstock call them."""
        if not self.commit:
            return {"penstock.git.revision": "none: not in a git repository"}
        found = {
            "mlflow.source.git.commit": self.commit,
            "mlflow.source.git.branch": self.branch,
            "mlflow.source.git.repoURL": self.remote,
            "penstock.git.revision": self.commit,
            "penstock.git.dirty": "true" if self.dirty else "false",
        }
        return {name: value for name, value in found.items() if value}

    @property
    def changes(self) -> str:
        """For an artifact; empty: nothing was changed."""
        lines = [f"# untracked: {name}\n" for name in self.untracked]
        return "".join(lines) + self.diff


def git_revision(folder: Path) -> GitRevision:
    """The state of the working tree that the folder lies in, as it is now."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return GitRevision()
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color")
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "--full-name", ":/")
    return GitRevision(
        commit=commit.strip(),
        branch=_git(folder, "branch", "--show-current").strip(),
        remote=_without_credentials(_git(folder, "remote", "get-url", "origin").strip()),
        diff=_cut(diff),
        untracked=tuple(untracked.splitlines()),
    )


def _git(folder: Path, *arguments: str) -> str:
    """What it prints; empty where it fails."""
    # no lock is taken, nobody is asked for a password, and no pager waits for a person
    environment = {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            ["git", "--no-pager", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def _cut(diff: str) -> str:
    content = diff.encode()
    if len(content) <= MAX_DIFF_BYTES:
        return diff
    start = content[:MAX_DIFF_BYTES].decode(errors="ignore")
    return f"{start}\n# cut here: it is {len(content)} bytes long\n"


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
