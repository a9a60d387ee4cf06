"""The processes of a run, seen from one of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from penstock.cores import available_cores
from penstock.errors import ConfigError
from penstock_training.config import RunSettings

_GLOO: Final = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What it says when a connection ends, or nothing comes."""


@dataclass(frozen=True)
class World:
    """`size` processes, of which this is number `rank`."""

    rank: int
    size: int
    local_rank: int
    """Its number on this machine."""
    local_size: int
    device: torch.device
    restarts: int
    """How often all of them were started anew because one had died."""
    control: dist.ProcessGroup | None
    """For what lies on the CPU. None: the default group does it."""

    @property
    def is_first(self) -> bool:
        """Rank 0 speaks for all: to the terminal, to the tracker, and to the disk."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def told(self, value: Any) -> Any:
        """What rank 0 has given here, in all of them."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def all_of(self, value: Any) -> list[Any]:
        """What each has given, in all of them."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value, group=self.control)
        return found


def join(settings: RunSettings) -> World:
    """Meets the others, unless an engine (Ray) has brought them together already. Nobody leaves: processes end."""
    rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    local_rank, local_size = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)
    device = _device(settings, local_rank)
    torch.set_num_threads(settings.threads or max(1, available_cores() // local_size))
    restarts = _number("TORCHELASTIC_RESTART_COUNT", 0)
    if size > 1 and not dist.is_initialized():
        _meet(settings, device, restarts)
    apart = size > 1 and "gloo" not in dist.get_backend_config()
    control = new_gloo_group() if apart else None
    return World(rank, size, local_rank, local_size, device, restarts, control)


def new_gloo_group() -> dist.ProcessGroup:
    """Of all processes, for tensors on the CPU."""
    group = dist.new_group(backend="gloo")
    # a number is what others get: those that are no members
    assert isinstance(group, dist.ProcessGroup)
    return group


def is_loss_of_others(error: BaseException) -> bool:
    """Another process is gone, or hangs: it is that one that knows why."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _GLOO)


def reason(error: BaseException) -> str:
    """What gloo and NCCL say, without where in their source they say it and what they guess."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return re.sub(r"\[/[^]]*\] ", "", text).partition(". ")[0]


def _meet(settings: RunSettings, device: torch.device, restarts: int) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=settings.collective_timeout_s)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    # torchrun's store outlives a restart (torch 2.13), and with it the addresses of those who have died
    store = PrefixStore(f"start-{restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _device(settings: RunSettings, local_rank: int) -> torch.device:
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {found}; "
            "expected run.processes to be as many, or run.device = 'cpu'"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))
