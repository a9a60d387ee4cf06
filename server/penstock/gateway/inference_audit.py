"""Inferences in the audit log: which model answered whom, when, and digests of what went in and came out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

from penstock.audit.event import AuditEvent
from penstock.audit.log import AuditLog
from penstock.errors import PenstockError, Unavailable
from penstock.gateway.auditing import client_of_call, principal_of
from penstock.gateway.client_memory import ClientMemory, Wrapped
from penstock.gateway.inference import Bound, Inference
from penstock.repository.repository import ModelRepository
from penstock.repository.served_model import ServedModel
from penstock.telemetry.tracing.tracing import Tracing
from penstock.types import NO_TERMS, Buffer, CallTerms, OutputTensor
from penstock.workers.client_regions import RegionInput
from penstock.workers.request import Answer, Encode, PendingRequest, Respond, Sink

ACTION: Final = "infer"


class AuditedInference(Inference):
    """Records every request that it was asked to submit. One a gateway that records inferences."""

    def __init__(
        self,
        repository: ModelRepository,
        client_memory: ClientMemory,
        tracing: Tracing | None,
        audit_log: AuditLog,
    ) -> None:
        super().__init__(repository, client_memory, tracing)
        self._log: Final = audit_log

    def submit(
        self,
        bound: Bound,
        request_id: str,
        buffers: Sequence[Buffer],
        encode: Encode,
        respond: Respond,
        received_bytes: int,
        terms: CallTerms = NO_TERMS,
        sink: Sink | None = None,
    ) -> PendingRequest:
        """As Inference says. Raises Unavailable, too, where nothing can be recorded and has to be."""
        self._log.check()
        recorded = _Recorded(self._log, bound, request_id, terms, encode, respond)
        try:
            request = super().submit(
                bound, request_id, buffers, recorded, recorded.respond, received_bytes, terms, sink
            )
        except PenstockError as error:
            recorded.record(error)
            raise
        recorded.read(request)
        return request


class _Recorded(Wrapped):
    """One, from its queue to its answer: stands where its encoder and who takes the answer were."""

    __slots__ = (
        "_client",
        "_id",
        "_inputs",
        "_log",
        "_model",
        "_outputs",
        "_respond",
        "_started_ns",
        "_terms",
    )

    def __init__(
        self,
        audit_log: AuditLog,
        bound: Bound,
        request_id: str,
        terms: CallTerms,
        encode: Encode,
        respond: Respond,
    ) -> None:
        super().__init__(encode)
        self._log = audit_log
        self._model = bound.model
        self._id = request_id
        self._terms = terms
        self._respond = respond
        self._client = client_of_call()
        self._started_ns = time.monotonic_ns()
        self._inputs = ""
        self._outputs = sha256()

    def of(self, model: ServedModel) -> Wrapped:
        """As Retargetable: what is recorded is the version that has answered."""
        self._model = model
        return super().of(model)

    def __call__(self, request: PendingRequest, outputs: list[OutputTensor]) -> bytes:
        """As `Encode` says: once an answer, or once a response where there are several."""
        for output in outputs:
            add_tensor(self._outputs, output.name, output.datatype, output.shape, output.data)
        return self.encode(request, outputs)

    def read(self, request: PendingRequest) -> None:
        """Its inputs, of a request that was not refused at once."""
        if not self._inputs:
            self._inputs = inputs_digest(request)

    def respond(self, request: PendingRequest, answer: Answer) -> None:
        """As `Respond` says. An answer that has to be recorded, and can't be, isn't given."""
        # it may be answered before it is submitted: from the cache
        self.read(request)
        try:
            self.record(answer)
        except Unavailable as error:
            answer = error
        self._respond(request, answer)

    def record(self, answer: Answer) -> None:
        """That it was answered so. Raises Unavailable."""
        failed = isinstance(answer, PenstockError)
        principal = principal_of(self._terms.session)
        model = self._model
        digests = {"inputs_sha256": self._inputs, "outputs_sha256": self._outputs.hexdigest()}
        if failed:
            del digests["outputs_sha256"]
        event = AuditEvent(
            action=ACTION,
            outcome="failed" if failed else "done",
            principal=principal.id if principal else "",
            tenant=self._terms.tenant,
            model=model.name,
            # by its kind alone: the text may quote what the request has given
            reason=type(answer).__name__ if failed else "",
            request_id=self._id,
            client=self._client,
            details={
                "version": str(model.version),
                "duration_us": str((time.monotonic_ns() - self._started_ns) // 1000),
                **{name: digest for name, digest in digests.items() if digest},
            },
        )
        self._log.record(event)


def inputs_digest(request: PendingRequest) -> str:
    """SHA-256 of the inputs in the model's order, as `add_tensor` has each."""
    digest = sha256()
    plan = request.plan
    tensors = zip(plan.input_names, plan.datatypes, plan.shapes, request.buffers, strict=False)
    for name, datatype, shape, buffer in tensors:
        data = bytes(buffer) if isinstance(buffer, RegionInput) else buffer
        add_tensor(digest, name, datatype, shape, data)
    return digest.hexdigest()


def add_tensor(digest: Any, name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> None:
    """`NAME DATATYPE D1,D2 NBYTES`, a line break, and the tensor's bytes as they are on the wire."""
    line = f"{name} {datatype} {','.join(map(str, shape))} {memoryview(data).nbytes}\n"
    digest.update(line.encode("utf-8", "backslashreplace"))
    digest.update(data)
