"""What commands do to what servers go by, in the audit log that those servers write."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import msgspec
import typer

from penstock.audit.event import AuditEvent, Outcome
from penstock.audit.folder import HEAD
from penstock.audit.log import CANT, AuditLog
from penstock.audit.opening import open_log
from penstock.audit_config import AuditSettings
from penstock.config import Settings
from penstock.errors import PenstockError, Unavailable
from penstock.secrets.source import SecretSource

logger = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def command_log(settings: Settings) -> Iterator[AuditLog | None]:
    """The log that the settings ask for. Nothing is read or written before something is recorded."""
    with ExitStack() as open_ones:
        secrets = SecretSource(settings.secrets)
        open_ones.callback(secrets.close)
        log = open_log(settings.audit, secrets)
        if log is not None:
            open_ones.callback(log.close)
        yield log


def never_silently_new(log: AuditLog | None, record: Callable[[T], None]) -> Callable[[T], None]:
    """`record`, which begins no log behind anybody's back: a folder that is gone may have held one, which a running
    server misses. Raises Unavailable then, where the policy is `refuse`; and where the log can't be written, which one
    error says, and no line of a log beside it.
    """
    if log is None:
        return record

    def careful(what: T) -> None:
        _look_for_log(log.settings)
        if log.settings.when_it_cant_be_written == "refuse":
            log.probe()
        record(what)

    return careful


def _look_for_log(settings: AuditSettings) -> None:
    folder = settings.folder
    if folder is None:
        return
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        if settings.when_it_cant_be_written == "refuse":
            raise Unavailable(
                f"{CANT}: {folder}: there is no such folder. There may have been a log in it, so no command makes it:"
                " start the server once, or make the folder"
            ) from None
        names = []
    except OSError:
        # the log itself says what is wrong
        return
    if HEAD not in names and not any(name.startswith("audit-") for name in names):
        typer.echo(f"there is no audit log in {folder}: a new one is begun", err=True)


@contextmanager
def recorded(log: AuditLog | None, about: AuditEvent) -> Iterator[None]:
    """Around something that a command does: that it will be done, and how that ended. It isn't done when it can't be
    recorded; raises Unavailable then.
    """
    if log is None:
        yield
        return

    def durable(event: AuditEvent) -> None:
        log.wait(log.record(event))

    write = never_silently_new(log, durable)
    write(about)

    def end(outcome: Outcome, reason: str = "") -> None:
        try:
            write(msgspec.structs.replace(about, outcome=outcome, reason=reason))
        except PenstockError as error:
            # its beginning is in the log, and it can't be taken back
            logger.warning(
                "%s is %s, which could not be recorded: %s", about.action, outcome, error
            )

    try:
        yield
    except PenstockError as error:
        end("failed", str(error))
        raise
    end("done")


def who() -> str:
    """The user of this command."""
    uid = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"cli:{uid}"
