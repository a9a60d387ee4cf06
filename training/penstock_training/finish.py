"""The end of a run: exported, evaluated, compared with the champion, registered, reported. Reads top to bottom.

Whoever is killed in between is followed by another one that does it again: what is in the registry already is found
there, and no second version is made.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from torch import nn

from penstock.errors import Unavailable
from penstock.trust.signing import write_whole
from penstock_training.champion import champion_of, predictor
from penstock_training.errors import RegistrationError
from penstock_training.export import (
    Difference,
    add_metadata,
    check_signature,
    compare,
    export_onnx,
    torch_outputs,
)
from penstock_training.finished import FinishedRun
from penstock_training.gates import Champion, Verdict, judge
from penstock_training.held_out import HeldOut, evaluate
from penstock_training.mlflow_link import persistently
from penstock_training.mlflow_run import MlflowRun
from penstock_training.mlflow_tracker import TRAINED, MlflowTracker
from penstock_training.register import MODEL_DIGEST, SIGNED_BY, Registered, Registration
from penstock_training.register_config import RegisterSettings
from penstock_training.registry import Registry
from penstock_training.report.axes import shown
from penstock_training.report.curves import losses, read_series, validation_metrics
from penstock_training.report.page import Report, render
from penstock_training.run_facts import CONFIG_DIGEST, data_tags, flattened
from penstock_training.run_facts import FOLDER as FOLDER_TAG
from penstock_training.run_facts import HOST as HOST_TAG
from penstock_training.signing import signer_of

FOLDER: Final = "registration"
"""In the run's folder: what is on its way to the registry."""
REPORT: Final = "report.html"
"""In the run's folder, and among the run's artifacts in `report/`."""
LINEAGE: Final = ("penstock.data.", "penstock.git.", "penstock.config.", FOLDER_TAG, HOST_TAG)
"""Tags of a run that its version has too."""

log = logging.getLogger(__name__)


def finish_run(done: FinishedRun) -> Registered | None:
    """Do all of it. None: the configuration has no `[register]`, and there is a report only.

    Raises RegistrationError where nothing can be registered, Unavailable where the registry is away for too long: the
    same call goes on from there.
    """
    with _alone(done.folder):
        serving = done.recipe.serving_model(done.model).eval()
        if done.config.register_as is not None:
            try:
                return _register(done, serving, done.config.register_as)
            except Unavailable as error:
                raise Unavailable(
                    f"{error}; the model is trained: `penstock-train register {done.folder}` goes on from here"
                ) from error
        found = evaluate(
            done.recipe,
            lambda batch: torch_outputs(done.recipe, serving, batch),
            done.splits.test,
        )
        _publish(done, _report(done, found, _origin(done)))
        return None


def _register(done: FinishedRun, serving: nn.Module, settings: RegisterSettings) -> Registered:
    run = _run_of(done)
    registry = Registry(run.client, done.config.tracking.uri, settings.name, run.run_id)
    patience_s = done.config.tracking.finish_secs
    registration = Registration(
        registry, settings, signer_of(settings), done.folder / FOLDER, patience_s
    )
    origin = persistently(lambda: _origin_of(run), "read the run", patience_s)

    file = _exported(done, serving, settings, registration, origin)
    difference = compare(done.recipe, serving, file, done.splits.test)
    found = evaluate(done.recipe, predictor(done.recipe, file), done.splits.test)
    champion = persistently(
        lambda: champion_of(
            registry,
            settings.gates.champion,
            done.recipe,
            done.splits.test,
            done.folder / FOLDER / "champion",
        ),
        "fetch the champion",
        patience_s,
    )
    verdict = judge(settings.gates, found, difference.largest, champion)
    _check_same_model(done, settings, difference, _report(done, found, origin, verdict, difference))

    version = registration.make_version(done.recipe, done.best_step, origin)
    signed_by = registration.sign(version)
    registration.check(version)

    told = {
        **origin,
        MODEL_DIGEST: registration.digest,
        SIGNED_BY: signed_by,
        "penstock.onnx.max_error": f"{difference.largest:.3g}",
    }
    report = _report(done, found, told, verdict, difference, champion, version)
    told["penstock.report"] = _publish(done, report)
    registered = registration.conclude(version, verdict, signed_by, told)
    log.info("%s", registered)
    return registered


def _exported(
    done: FinishedRun,
    serving: nn.Module,
    settings: RegisterSettings,
    registration: Registration,
    origin: Mapping[str, str],
) -> Path:
    """The ONNX file, made once."""
    registration.take_up()
    file = registration.onnx_file
    if not file.exists():
        draft = file.with_name("draft.onnx")
        export_onnx(done.recipe, serving, settings.opset, draft)
        add_metadata(draft, {"penstock.model": settings.name, **origin})
        os.replace(draft, file)
    check_signature(file, done.recipe)
    return file


def _check_same_model(
    done: FinishedRun, settings: RegisterSettings, difference: Difference, report: Report
) -> None:
    """An export that is another model is no version of this one. There is a report of it all the same."""
    # infinite where one of them is no number
    if difference.largest <= settings.max_onnx_error:
        return
    _publish(done, report)
    worst = max(difference.by_output, key=lambda name: difference.by_output[name])
    raise RegistrationError(
        f"the output {worst!a} of the ONNX file differs from the trained model's by {shown(difference.largest)}; "
        f"expected at most {shown(settings.max_onnx_error)} (register.max_onnx_error): nothing is registered"
    )


def _report(
    done: FinishedRun,
    found: HeldOut,
    origin: Mapping[str, str],
    verdict: Verdict | None = None,
    difference: Difference | None = None,
    champion: Champion | None = None,
    version: int | None = None,
) -> Report:
    series = read_series(done.folder / "metrics.jsonl")
    settings = done.config.register_as
    return Report(
        model=settings.name if settings else done.config.recipe.name,
        version=version,
        held_out=found,
        losses=losses(series),
        metrics=validation_metrics(series),
        best_step=done.best_step,
        verdict=verdict,
        onnx=difference,
        champion=champion,
        lineage=origin,
        config=dict(flattened(done.config.model_dump(mode="json", by_alias=True))),
    )


def _publish(done: FinishedRun, report: Report) -> str:
    """Write the report, and give it and its numbers to MLflow. Returns its URI."""
    path = done.folder / REPORT
    write_whole(path, render(report).encode())
    log.info("report: %s", path)
    numbers = {f"test/{name}": value for name, value in report.held_out.metrics.items()}
    if report.onnx is not None:
        numbers["test/onnx_max_error"] = report.onnx.largest
        numbers["test/onnx_max_relative_error"] = report.onnx.relative
    done.tracker.log_metrics(done.best_step, numbers)
    if not isinstance(done.tracker, MlflowTracker):
        return path.as_uri()
    run = done.tracker.settled()
    persistently(
        lambda: run.upload(path, "report"),
        "upload the report",
        done.config.tracking.finish_secs,
    )
    return f"runs:/{run.run_id}/report/{REPORT}"


def _run_of(done: FinishedRun) -> MlflowRun:
    if not isinstance(done.tracker, MlflowTracker):
        raise RegistrationError("[register] needs tracking.uri: an MLflow server or store")
    return done.tracker.settled()


def _origin(done: FinishedRun) -> dict[str, str]:
    """What is known of where a model comes from without MLflow."""
    return {CONFIG_DIGEST: done.config.digest(), **data_tags(done.config.data.tables)}


def _origin_of(run: MlflowRun) -> dict[str, str]:
    """Where a model comes from, as it was noted when its training began."""
    tags = run.client.get_run(run.run_id).data.tags
    found = {name: str(value) for name, value in tags.items() if name.startswith(LINEAGE)}
    return {"penstock.run.id": run.run_id, **dict(sorted(found.items()))}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process registers this run meanwhile."""
    with (folder / TRAINED).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
