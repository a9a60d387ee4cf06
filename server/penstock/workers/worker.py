"""A worker: one process, one model instance, one thread. `step` is all it does, again and again.

It serves one gateway after the other: its socket outlives each of them, and `Reset` tells that a new one begins.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from penstock import model_config
from penstock.backends.base import (
    Batch,
    LiveRequest,
    LoadedModel,
    LoadSpec,
    RequestInfo,
    line_of,
)
from penstock.backends.device_lost import DeviceLost, check_device
from penstock.backends.isolation import one_line
from penstock.backends.triton_metrics import registry
from penstock.errors import LoadFailed
from penstock.logs import LogSettings, configure_logging
from penstock.types import Array
from penstock.wording import MAX_REASON, shortened
from penstock.workers.channel import Channel
from penstock.workers.inbox import Inbox
from penstock.workers.message import sendable
from penstock.workers.other_models import OtherModels
from penstock.workers.pinning import Pinning, Registrar, cuda_registrar
from penstock.workers.scatter import write_outputs
from penstock.workers.slab import Slab
from penstock.workers.streams import Lines, RunningLine, run_decoupled
from penstock.workers.tensors_in_slab import read_inputs
from penstock.workers.warmup import warm_up
from penstock.workers.worker_commands import (
    AttachSlab,
    DetachSlab,
    Execute,
    ExecuteSequences,
    ExecuteUneven,
    Load,
    Reset,
    SetLogging,
)
from penstock.workers.worker_events import (
    BatchFailed,
    Done,
    DoneWithParameters,
    Executed,
    LoadRefused,
    ModelMetrics,
    Ready,
)

log = logging.getLogger(__name__)


class Worker:
    """Runs the batches that arrive on its channel. Raises ChannelClosed from `step` when nobody has the other
    end any more: the supervisor is gone; DeviceLost when the process has to end for want of its GPU."""

    def __init__(
        self,
        channel: Channel,
        load: Callable[[LoadSpec], LoadedModel],
        name: str = "worker",
        find_registrar: Callable[[], Registrar] = cuda_registrar,
    ) -> None:
        """`name`: as its log lines show it. `find_registrar` gives what pins the slabs of a model on a GPU."""
        self._find_registrar = find_registrar
        self._inbox = Inbox(channel)
        self._lines = Lines(self._inbox, self._tell_metrics)
        self._others = OtherModels(self._inbox)
        self._name = name
        self._load = load
        self._slabs: dict[int, Slab] = {}
        self._model: LoadedModel | None = None
        self._live = False
        """Its requests have lines."""
        self._ready = Ready(b"", 0, 0)
        self._config = model_config.ModelConfig(name="")
        self._pinning: Pinning | None = None
        """Of a model on a GPU."""

    def step(self) -> None:
        """Take one command, do it, answer."""
        received, descriptors = self._inbox.take()
        match received:
            case Execute() as command:
                answer = self._run(command) if self._config.decoupled else self._execute(command)
                self._lines.executed(command.batch)
                self._tell_metrics()
                self._inbox.send(answer)
            case AttachSlab(slab=slab):
                mapped = None if self._pinning is None else self._pinning.follow()
                self._slabs[slab] = Slab(descriptors[0], mapped)
            case DetachSlab(slab=slab):
                self._slabs.pop(slab).close()
            case Load() as command:
                self._inbox.send(self._load_model(command))
                self._tell_metrics()
            case SetLogging(settings=settings):
                self._set_logging(settings)
            case Reset(number=number):
                self._forget_slabs()
                self._lines.begin_anew()
                self._inbox.send(msgspec.structs.replace(self._ready, number=number))
                registry.tell_all()
                self._tell_metrics()

    def close(self) -> None:
        """Let the model give back what it holds. Threads of it that wait for the gateway don't any more."""
        self._inbox.close()
        if self._model is not None:
            self._model.close()
            self._model = None

    def _tell_metrics(self) -> None:
        if changes := registry.take():
            self._inbox.send(ModelMetrics(changes))

    def _set_logging(self, settings: LogSettings) -> None:
        try:
            configure_logging(settings, sys.stderr, self._name)
        except OSError as error:
            log.error("the log file %s can't be written: %s", settings.file, error.strerror)  # noqa: TRY400

    def _forget_slabs(self) -> None:
        for slab in self._slabs.values():
            slab.close()
        self._slabs.clear()

    def _execute(self, command: Execute) -> Done | BatchFailed:
        """Gather, run, scatter."""
        model, slab = self._model, self._slabs[command.slab]
        assert model is not None, "the gateway sends batches only after Ready"
        try:
            slab.refresh()
            started = time.perf_counter_ns()
            inputs = {slot.name: read_inputs(slab, slot) for slot in command.inputs}
            requests = (
                self._live_requests(command)
                if self._live
                else [RequestInfo(r.rows, r.id, r.parameters, r.outputs) for r in command.requests]
            )
            batch = _batch(command, inputs, requests)
            gathered = time.perf_counter_ns()
            answers = model.execute(batch)
            executed = time.perf_counter_ns()
            outputs, errors = write_outputs(
                slab, command.output_offset, self._config, batch.requests, answers
            )
            written = time.perf_counter_ns()
        except Exception as error:
            check_device(error)
            log.warning(
                "model %s: %s", self._config.name, error, exc_info=log.isEnabledFor(logging.DEBUG)
            )
            return _failed(command, error)
        done = Done(
            batch=command.batch,
            outputs=outputs,
            errors=errors,
            slab_bytes=slab.size_bytes,
            input_ns=gathered - started,
            infer_ns=executed - gathered,
            output_ns=written - executed,
        )
        return _with_parameters(done, batch.requests) if self._live else done

    def _run(self, command: Execute) -> Executed | BatchFailed:
        """As `_execute`, of a decoupled model: its requests are answered by then, or will be."""
        model, slab = self._model, self._slabs[command.slab]
        assert model is not None, "the gateway sends batches only after Ready"
        try:
            slab.refresh()
            started = time.perf_counter_ns()
            # copies, since threads of the model may look at them for as long as they like
            inputs = {slot.name: read_inputs(slab, slot).copy() for slot in command.inputs}
        except Exception as error:
            log.exception("model %s: a batch can't be read", self._config.name)
            return _failed(command, error)
        requests = [
            LiveRequest(
                r.rows,
                r.id,
                r.parameters,
                r.outputs,
                line=self._lines.stream(command.batch, index, self._config),
            )
            for index, r in enumerate(command.requests)
        ]
        gathered = time.perf_counter_ns()
        run_decoupled(model, _batch(command, inputs, requests), self._config)
        executed = time.perf_counter_ns()
        return Executed(command.batch, gathered - started, executed - gathered)

    def _live_requests(self, command: Execute) -> list[RequestInfo]:
        lines, batch = self._lines, command.batch
        return [
            LiveRequest(
                r.rows, r.id, r.parameters, r.outputs, line=RunningLine(lines, (batch, index))
            )
            for index, r in enumerate(command.requests)
        ]

    def _load_model(self, command: Load) -> Ready | LoadRefused:
        spec = LoadSpec(
            model_name=command.model_name,
            version=command.version,
            model_dir=Path(command.model_dir),
            config=model_config.from_json(command.config_json),
            instance_name=command.instance_name,
            device=command.device,
            threads=command.threads,
            others=self._others,
        )
        started = time.perf_counter_ns()
        try:
            self._model = self._load(spec)
            self._config = model_config.parse(self._model.config)
            self._live = getattr(self._model, "live", False)
            warm_up(self._model, spec.model_dir)
        except LoadFailed as error:
            reason = str(error)
            if len(reason) > MAX_REASON:
                log.error("model %s can't be loaded: %s", command.model_name, reason)  # noqa: TRY400
            return LoadRefused(sendable(shortened(reason)))
        # told like any other: a worker whose model isn't loaded ends anyway
        except (Exception, DeviceLost) as error:
            log.exception("model %s can't be loaded", command.model_name)
            return LoadRefused(sendable(shortened(one_line(error))))
        fallback: str = getattr(self._model, "fallback", "")
        self._ready = Ready(
            config_json=model_config.to_json(self._model.config),
            load_us=(time.perf_counter_ns() - started) // 1000,
            number=0,
            fallback=sendable(shortened(fallback)),
        )
        if command.device != "cpu" and not fallback:
            self._pinning = Pinning(self._find_registrar)
        return self._ready


def _batch(command: Execute, inputs: Mapping[str, Array], requests: Sequence[RequestInfo]) -> Batch:
    return Batch(
        inputs,
        requests,
        steps=command.steps if isinstance(command, ExecuteSequences) else None,
        uneven=command.uneven if isinstance(command, ExecuteUneven) else None,
        number=command.batch,
    )


def _failed(command: Execute, error: Exception) -> BatchFailed:
    return BatchFailed(command.batch, sendable(shortened(one_line(error))))


def _with_parameters(done: Done, requests: Sequence[RequestInfo]) -> Done:
    """The answer, with what the model gave its requests beside outputs, if there is any."""
    lines = map(line_of, requests)
    given = tuple(
        [
            (index, dict(line.parameters))
            for index, line in enumerate(lines)
            if line and line.parameters
        ]
    )
    if not given:
        return done
    return DoneWithParameters(**msgspec.structs.asdict(done), parameters=given)
