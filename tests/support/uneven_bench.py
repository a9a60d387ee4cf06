"""A model as gateway and worker have it, without processes: requests go through signature, slab, backend and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model_files import load_spec
from pending import Heard, NoQueue, joined, to_buffer
from penstock import model_config
from penstock.backends.base import Batch, RequestInfo
from penstock.backends.hidden_tensors import without
from penstock.backends.registry import load
from penstock.errors import PenstockError
from penstock.model_config import ConfigDict
from penstock.padding_config import padding_of
from penstock.repository.config_check import check_complete
from penstock.repository.config_file import read_config
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.signature import Signature
from penstock.repository.uneven_rules import uneven_rules
from penstock.tensors import as_array
from penstock.types import DATATYPES, Array, InferHeader, OutputTensor, TensorSpec
from penstock.workers.client_regions import Input
from penstock.workers.gather import gather, scatter
from penstock.workers.message import encode
from penstock.workers.request import PendingRequest
from penstock.workers.scatter import write_outputs
from penstock.workers.slab import PAGE_BYTES, Slab
from penstock.workers.tensors_in_slab import read_inputs
from penstock.workers.worker_commands import Execute, ExecuteUneven, decode_worker_command
from penstock.workers.worker_events import Done

Request = Mapping[str, Array]
Answer = dict[str, Array] | PenstockError


class UnevenBench:
    """A loaded model and the slab of its batches."""

    def __init__(self, model_dir: Path) -> None:
        self.model = load(load_spec(model_dir, read_config(model_dir)))
        self.complete: ConfigDict = proto_to_config(config_to_proto(self.model.config))
        check_complete(self.complete, model_dir.name)
        self.config = model_config.parse(without(self.complete, padding_of(self.complete).masks))
        self.signature = Signature(self.config, uneven_rules(self.complete))
        self.slab = Slab.create(PAGE_BYTES)
        self.batches: list[Batch] = []
        """What the model was given."""

    def close(self) -> None:
        """Give back what they hold."""
        self.model.close()
        self.slab.close()

    def request(self, arrays: Request, buffers: Sequence[Input] | None = None) -> PendingRequest:
        """A request as the gateway queues it."""
        specs = tuple(
            TensorSpec(name, "BYTES" if a.dtype.kind == "O" else DATATYPES[a.dtype], a.shape)
            for name, a in arrays.items()
        )
        plan = self.signature.plan(InferHeader("m", "", specs))
        data = [to_buffer(array) for array in arrays.values()] if buffers is None else buffers
        return PendingRequest(plan, "r", data, joined, Heard(), 0, NoQueue())

    def run(self, *requests: Request) -> list[Answer]:
        """Run them in one batch."""
        return self.run_pending([self.request(arrays) for arrays in requests])

    def run_pending(self, requests: Sequence[PendingRequest]) -> list[Answer]:
        """Run them in one batch, through the bytes of the command that the worker gets."""
        keys = {request.shape_key for request in requests}
        assert len(keys) == 1, f"they can't be joined: {keys}"
        command = decode_worker_command(encode(gather(1, 0, self.slab, requests)))
        assert isinstance(command, Execute)
        batch = Batch(
            {slot.name: read_inputs(self.slab, slot) for slot in command.inputs},
            [RequestInfo(r.rows, r.id, r.parameters, r.outputs) for r in command.requests],
            uneven=command.uneven if isinstance(command, ExecuteUneven) else None,
        )
        self.batches.append(batch)
        outputs, errors = write_outputs(
            self.slab,
            command.output_offset,
            model_config.parse(self.complete),
            batch.requests,
            self.model.execute(batch),
        )
        done = Done(1, outputs, errors, self.slab.size_bytes, 0, 0, 0)
        return [_answer(each) for each in scatter(self.slab, done, requests)]


def _answer(outputs: list[OutputTensor] | PenstockError) -> Answer:
    if isinstance(outputs, PenstockError):
        return outputs
    return {each.name: as_array(each.datatype, each.shape, bytes(each.data)) for each in outputs}


def check_equal(answer: Answer, expected: Mapping[str, Array]) -> None:
    """The same names, shapes, dtypes and values, bit by bit."""
    assert isinstance(answer, dict), answer
    assert answer.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(answer[name], array, strict=True)
