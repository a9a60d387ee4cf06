"""What Triton's configuration can ask for and Penstock does not do yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.model_config import ConfigDict


def unsupported(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Path and problem of all that is asked for and not done. `config` has all its defaults."""
    in_order = config.get("dynamic_batching", {}).get("preserve_ordering")
    if in_order and config.get("model_transaction_policy", {}).get("decoupled"):
        path = "model_transaction_policy.decoupled"
        yield path, "is true beside dynamic_batching.preserve_ordering; expected one of them"
    if config.get("sequence_batching", {}).get("iterative_sequence"):
        yield "sequence_batching.iterative_sequence", "is not supported; expected false"
