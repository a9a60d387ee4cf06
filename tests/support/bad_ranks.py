"""Processes of a run that end badly. Here, and not beside the tests that start them: other processes import them."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from penstock_training import checkpoint_folder
from penstock_training.rank import main
from penstock_training.stopping import StopSignal


def killed_at(folder: Path, place: str) -> None:
    """Dies the third time that it comes to that function of checkpoint_folder.py."""
    calls: list[tuple[object, ...]] = []
    owner, _, name = place.rpartition(".")
    holder = getattr(checkpoint_folder, owner) if owner else checkpoint_folder
    original = getattr(holder, name)

    def kill(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            if name == "_delete":
                # half of it is done
                (Path(str(arguments[1])) / checkpoint_folder.MARK).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(holder, name, kill)
    _main(folder)


def with_little_room(folder: Path) -> None:
    """The second process may write small files only: as on a full disk, but for the error's name."""
    if os.environ["RANK"] == "1":
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
    _main(folder)


def _main(folder: Path) -> None:
    with open(os.devnull, "w") as out:
        os._exit(main(folder, StopSignal(), out, last_words_s=0))
