"""All chance of a run comes from one number and from what it is drawn for: there is no state of generators to keep, and
a micro-batch sees the same dropout in whichever process it is computed."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


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


def seed_torch(device: torch.device, *what: int | str) -> None:
    """The generators of dropout and augmentation. `torch.manual_seed` looks for all kinds of devices, and takes a
    hundred times as long."""
    seed = seed_of(*what)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def be_deterministic() -> None:
    """The same bits each time, where the device can."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # else each new tensor is filled with NaN first
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
