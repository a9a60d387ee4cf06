"""The resolved configuration of one model, as frozen values.

It is the typed view of Triton's ModelConfig in its JSON form (same key names), which is also what crosses to
workers: `parse` takes that JSON and keeps what Penstock acts on.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from penstock.types import ITEM_BYTES

DEFAULT_SEQUENCE_IDLE_US: Final = 1_000_000
"""As in Triton."""

ANY_SIZE: Final = -1
"""Among `dims`."""

CORRELATION_ID: Final = "CONTROL_SEQUENCE_CORRID"
"""The kind of control that tells the sequence's id."""


class ConfigPart(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all parts of a model's configuration: frozen, keyword-only."""


class Tensor(ConfigPart, frozen=True):
    """A `ModelInput` or `ModelOutput`. `dims` are without the batch dimension; -1 is any size."""

    name: str
    data_type: str
    """Triton's spelling: TYPE_FP32, TYPE_STRING …"""
    dims: tuple[int, ...]
    optional: bool = False
    allow_ragged_batch: bool = False
    """Inputs: requests are joined though its shape differs, their elements side by side."""
    label_filename: str = ""

    @property
    def datatype(self) -> str:
        """The protocol's spelling: FP32, BYTES …"""
        bare = self.data_type.removeprefix("TYPE_")
        return "BYTES" if bare == "STRING" else bare


class BatchInput(ConfigPart, frozen=True):
    """An input that tells of a batch, which the server makes: `BatchInput`."""

    kind: str = "BATCH_ELEMENT_COUNT"
    target_name: tuple[str, ...] = ()
    data_type: str = "TYPE_INVALID"
    """TYPE_INT32 or TYPE_FP32."""
    source_input: tuple[str, ...] = ()
    """Exactly one."""


class BatchOutput(ConfigPart, frozen=True):
    """Outputs that hold the elements of all requests side by side, in the shapes of an input: `BatchOutput`."""

    target_name: tuple[str, ...] = ()
    kind: str = "BATCH_SCATTER_WITH_INPUT_SHAPE"
    source_input: tuple[str, ...] = ()
    """Exactly one."""


class QueuePolicy(ConfigPart, frozen=True):
    """`ModelQueuePolicy`."""

    timeout_action: str = "REJECT"
    """Or DELAY."""
    default_timeout_microseconds: int = 0
    """0: none."""
    allow_timeout_override: bool = False
    max_queue_size: int = 0
    """0: the server's own bound holds."""


class DynamicBatching(ConfigPart, frozen=True):
    """`ModelDynamicBatching`. Times in microseconds."""

    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    """0: one level."""
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = QueuePolicy()
    priority_queue_policy: dict[str, QueuePolicy] = {}
    """Level → its own policy, for those that have one."""


class Control(ConfigPart, frozen=True):
    """What a control input tells: `ModelSequenceBatching.Control`. Values for false and true, in one of three types."""

    kind: str = "CONTROL_SEQUENCE_START"
    data_type: str = "TYPE_INVALID"
    """CONTROL_SEQUENCE_CORRID only."""
    int32_false_true: tuple[int, ...] = ()
    fp32_false_true: tuple[float, ...] = ()
    bool_false_true: tuple[bool, ...] = ()


class ControlInput(ConfigPart, frozen=True):
    """An input that the server makes: `ModelSequenceBatching.ControlInput`."""

    name: str
    control: tuple[Control, ...] = ()
    """Exactly one."""


class InitialState(ConfigPart, frozen=True):
    """`ModelSequenceBatching.InitialState`."""

    dims: tuple[int, ...] = ()
    zero_data: bool | None = None
    data_file: str | None = None
    """A file in the folder `initial_state` of the model's folder."""


class State(ConfigPart, frozen=True):
    """`ModelSequenceBatching.State`: an output that is an input of the sequence's next request."""

    input_name: str
    output_name: str
    data_type: str
    dims: tuple[int, ...] = ()
    initial_state: tuple[InitialState, ...] = ()
    """One at most."""


class DirectStrategy(ConfigPart, frozen=True):
    """`ModelSequenceBatching.StrategyDirect`."""

    max_queue_delay_microseconds: int = 0
    minimum_slot_utilization: float = 0.0


class OldestStrategy(ConfigPart, frozen=True):
    """`ModelSequenceBatching.StrategyOldest`. Order is always preserved."""

    max_candidate_sequences: int = 0
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0


class SequenceBatching(ConfigPart, frozen=True):
    """`ModelSequenceBatching`. Neither strategy: direct."""

    max_sequence_idle_microseconds: int = 0
    """0: a second."""
    control_input: tuple[ControlInput, ...] = ()
    state: tuple[State, ...] = ()
    direct: DirectStrategy | None = None
    oldest: OldestStrategy | None = None

    @property
    def idle_us(self) -> int:
        """How long a sequence may have no request."""
        return self.max_sequence_idle_microseconds or DEFAULT_SEQUENCE_IDLE_US


class TransactionPolicy(ConfigPart, frozen=True):
    """`ModelTransactionPolicy`."""

    decoupled: bool = False


class ModelConfig(ConfigPart, frozen=True):
    """What the gateway and `penstock infer` act on of a model's configuration; backends read the ConfigDict."""

    name: str
    platform: str = ""
    backend: str = ""
    max_batch_size: int = 0
    """0: the model takes no batch dimension, and every request runs alone."""
    input: tuple[Tensor, ...] = ()
    output: tuple[Tensor, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    batch_input: tuple[BatchInput, ...] = ()
    batch_output: tuple[BatchOutput, ...] = ()
    model_transaction_policy: TransactionPolicy = TransactionPolicy()

    @property
    def decoupled(self) -> bool:
        """The model gives a request any number of responses, when it likes."""
        return self.model_transaction_policy.decoupled


def settle(kind: type) -> None:
    """Have msgspec look into a class that is converted to, when its module is imported: by one thread.

    It does so when the class is first needed, and several threads that are the first ones together end the process (a
    segmentation fault, with msgspec 0.22). Models are loaded by many at once.
    """
    msgspec.json.Decoder(kind)


settle(ModelConfig)

ConfigDict = dict[str, Any]
"""Triton's ModelConfig in its JSON form, all keys in snake_case, int64 as numbers."""


def asks_decoupled(config: ConfigDict) -> bool:
    """Whether a configuration, which may still have to be completed, is a decoupled model's."""
    return bool((config.get("model_transaction_policy") or {}).get("decoupled"))


def parse(config: ConfigDict) -> ModelConfig:
    """The typed view of a resolved configuration. Keys Penstock does not act on are left out."""
    return msgspec.convert(config, ModelConfig)


def wire_shape(tensor: Tensor, max_batch_size: int) -> tuple[int, ...]:
    """The tensor's shape as model metadata shows it: with a leading -1 when the model batches."""
    return (-1, *tensor.dims) if max_batch_size > 0 else tensor.dims


def known_datatypes() -> tuple[str, ...]:
    """Triton's spelling of all datatypes, for messages."""
    return tuple("TYPE_STRING" if name == "BYTES" else f"TYPE_{name}" for name in ITEM_BYTES)


def to_json(config: ConfigDict) -> bytes:
    """The configuration as it crosses to workers."""
    return msgspec.json.encode(config)


def from_json(text: bytes) -> ConfigDict:
    """Inverse of `to_json`."""
    return cast(ConfigDict, msgspec.json.decode(text))
