"""All chance of a run comes from one number and from what it is drawn for: there is no state of generators to keep, and
a micro-batch sees the same dropout in whichever process it is computed."""

from __future__ import annotations

import hashlib
import random
from typing import Final

import numpy as np
import torch

_64_BITS: Final = 2**64 - 1


def seed_of(*what: int | str) -> int:
    """63 bits that depend on all of it."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def seed_all(*what: int | str) -> None:
    """Every generator that a recipe may use: before weights are made, and rows are split."""
    seed = seed_of(*what)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_torch(device: torch.device, seed: int, step: int, micro_batch: int) -> None:
    """The generators of dropout and augmentation, before each micro-batch. `torch.manual_seed` looks for all kinds of
    devices, and takes a hundred times as long."""
    mixed = _mixed(_mixed(_mixed(seed) + step) + micro_batch)
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)


def _mixed(number: int) -> int:
    """SplitMix64: numbers that differ by one have nothing in common any more."""
    number = (number + 0x9E3779B97F4A7C15) & _64_BITS
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _64_BITS
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _64_BITS
    return number ^ number >> 31


def be_deterministic() -> None:
    """The same bits each time, where the device can."""
    # use_deterministic_algorithms() does it too, and imports all of torch's compiler, for a second and a half
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    # else each new tensor is filled with NaN first
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
