"""`python -m penstock.workers.main --fd N`: the worker process, started by the supervisor."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys

from penstock.backends import registry
from penstock.backends.device_lost import EXIT_CODE, DeviceLost
from penstock.logs import LogSettings, configure_logging
from penstock.quiet import keep_quiet
from penstock.workers.channel import Channel, ChannelClosed
from penstock.workers.worker import Worker

PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


def main() -> int:
    """Run until the channel is closed or a signal ends the process."""
    parser = argparse.ArgumentParser(prog="penstock worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="ends when this process does")
    parser.add_argument("--name", default="worker", help="shown by ps, and in logs")
    arguments = parser.parse_args()
    _end_with(arguments.parent)
    keep_quiet()
    # Ctrl-C reaches the whole foreground group: only the supervisor may act on it, or a drain would lose requests
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # until the gateway says more
    configure_logging(LogSettings(), sys.stderr, arguments.name)
    worker = Worker(Channel.from_fd(arguments.fd), registry.load, arguments.name)
    try:
        while True:
            worker.step()
    except ChannelClosed:
        return 0
    except DeviceLost:
        log.exception("the GPU is lost to this process, which ends")
        # at once, and nothing closed: that would ask the GPU, which may hang or abort
        os._exit(EXIT_CODE)
    finally:
        worker.close()


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # it died before the call above could see it
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
