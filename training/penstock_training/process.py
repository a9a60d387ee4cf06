"""What torchrun starts: `python -m penstock_training.process FOLDER`.

It imports torch only when there is something to do: processes that are started anew for a run that has failed are gone
at once, and its reason is told.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from penstock_training.run_folder import RunFolder
from penstock_training.stopping import StopSignal, stop_with_launcher


def main(path: Path) -> int:
    """Returns the exit code."""
    folder = RunFolder(path)
    signals = StopSignal(folder.stop_wanted)
    signals.listen()
    stop_with_launcher()
    if folder.outcome() is not None:
        return 0
    from penstock_training import rank

    return rank.main(path, signals, sys.stderr)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by way of Python's own end: gloo's group waits there for its threads while it holds the interpreter's lock,
    # and the threads for the lock, to let go of the tensors of their last collective (torch 2.13).
    os._exit(code)
