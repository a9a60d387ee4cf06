"""MLflow's client as Penstock uses it: quiet, impatient, and with errors that say whether trying again helps."""

from __future__ import annotations

import logging
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.errors import Unavailable
from penstock.redaction import redacted
from penstock.registry.reasons import network_reason
from penstock_training.errors import RegistrationError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # whoever calls tries again, after a look at what is there: a request whose answer was lost may have been done
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""What MLflow reads of the environment, where it says nothing else."""
FINAL_CODES: Final = frozenset(
    {
        "BAD_REQUEST",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "MALFORMED_REQUEST",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "ENDPOINT_NOT_FOUND",
    }
)
"""MLflow's codes of errors that come again each time."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 15.0

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def connect(uri: str) -> MlflowClient:
    """A client of a server or store. The first one in a process takes seconds, and so does the first of a new store."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with quiet():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def quiet() -> Iterator[None]:
    """What MLflow and its dependencies say of each other's age is of no use to anybody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def code_of(error: BaseException) -> str:
    """MLflow's code; empty: it is no error of MLflow's."""
    return str(getattr(error, "error_code", ""))


def is_final(error: BaseException) -> bool:
    """Whether the same call would fail again."""
    return code_of(error) in FINAL_CODES


def is_missing(error: BaseException) -> bool:
    """Whether what was asked for is not there."""
    return code_of(error) in ("RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND")


def told(error: BaseException) -> str:
    """An error's text for people: one line, without credentials; of a connection what the network said alone."""
    if network := network_reason(error):
        return network
    return redacted(" ".join(str(error).split()))[:400] or type(error).__name__


def persistently(
    call: Callable[[], Result],
    what: str,
    patience_s: float,
    sleep: Callable[[float], Any] = time.sleep,
) -> Result:
    """The result of a call that looks first at what is done already: again until it works, or patience ends.

    Raises Unavailable where the registry is away for too long, RegistrationError where it refuses.
    """
    until = time.monotonic() + patience_s
    for pause in pauses():
        try:
            return call()
        except OSError as error:
            # a local store's disk, or a connection
            reason: Exception = error
        except Exception as error:
            if not code_of(error):
                raise
            if is_final(error):
                raise RegistrationError(f"the registry refuses to {what}: {told(error)}") from error
            reason = error
        if time.monotonic() + pause > until:
            raise Unavailable(
                f"the registry can't be reached to {what}: {told(reason)}"
            ) from reason
        log.info("waiting for the registry to %s: %s", what, told(reason))
        sleep(pause)
    raise AssertionError("pauses never end")


def pauses() -> Iterator[float]:
    """Seconds to wait between one attempt and the next: longer and longer, and never the same for all."""
    pause = FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, LONGEST_PAUSE_S)


def artifacts_beside(uri: str, experiment: str) -> str | None:
    """Where artifacts of an experiment lie: beside an SQLite store; None: where the server wants them."""
    prefix = "sqlite:///"
    if not uri.startswith(prefix):
        return None
    folder = Path(uri.removeprefix(prefix).partition("?")[0]).absolute().parent / "artifacts"
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in experiment)
    return (folder / safe).as_uri()


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """That of the experiment, which is made where there is none. Raises what MLflow raises."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifacts_beside(uri, name)))
        except Exception as error:
            # somebody else has made it meanwhile
            if code_of(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise RegistrationError(
            f"the experiment {name!a} was deleted; expected another one in tracking.experiment, or restore it"
        )
    return str(found.experiment_id)
