"""Finds the GPUs that the server may use. Where there are none, it keeps the reason and goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from penstock.devices.nvml import Handle, Nvml, load_nvml

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
"""What CUDA, and so the server, reads of the environment."""
NOT_LOOKED: Final = "nobody has looked for GPUs"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one that is divided (MIG)."""

    index: int
    """As configurations say it: its place among those the server may use. That is nvidia-smi's number, unless
    CUDA_VISIBLE_DEVICES leaves some out, or a GPU is divided."""
    uuid: str
    """What a worker is told in CUDA_VISIBLE_DEVICES."""
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    mig: bool = False
    """It is a part of a GPU. NVML does not tell its utilisation and power."""

    @property
    def device(self) -> str:
        """As `LoadSpec.device` has it."""
        return f"cuda:{self.index}"

    def __str__(self) -> str:
        return f"{self.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class Devices:
    """What was found."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = NOT_LOOKED
    """Why there are no GPUs; empty where there are some."""
    driver: str = ""
    """Its version."""


NO_DEVICES: Final = Devices()


def discover(nvml: Nvml, visible: str | None) -> Devices:
    """The GPUs that `visible`, the server's CUDA_VISIBLE_DEVICES, leaves; None: it is not set."""
    try:
        nvml.nvmlInit()
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())
        ]
        machine = [list(_units(nvml, handle)) for handle in handles]
    except nvml.NVMLError as error:
        return Devices(reason=f"NVML: {error}")
    if not any(machine):
        return Devices(reason="NVML finds none on this machine", driver=driver)
    chosen = _chosen(machine, visible)
    reason = "" if chosen else f"{VISIBLE} is {visible!r}, which leaves none of {len(machine)}"
    gpus = tuple([replace(gpu, index=index) for index, gpu in enumerate(chosen)])
    return Devices(gpus, reason, driver)


class Inventory:
    """Looks once, when it is first asked, and remembers. Usable from any thread: the first look may take seconds on a
    machine whose driver sleeps, and is not for an event loop."""

    def __init__(self, visible: str | None = None, load: Callable[[], Nvml] = load_nvml) -> None:
        """`visible`: CUDA_VISIBLE_DEVICES of this process; None: it is not set."""
        self._visible = visible
        self._load = load
        self._lock = threading.Lock()
        self._found: Devices | None = None
        self.nvml: Nvml | None = None
        """None: nobody has looked yet, or there is none."""

    def found(self) -> Devices:
        """The server's GPUs."""
        with self._lock:
            if self._found is None:
                self._found = self._look()
            return self._found

    def _look(self) -> Devices:
        try:
            nvml = self._load()
        except (ImportError, OSError) as error:
            return Devices(reason=f"nvidia-ml-py can't be imported: {error}")
        found = discover(nvml, self._visible)
        if found.gpus:
            self.nvml = nvml
        return found


def handles_of(nvml: Nvml) -> dict[str, Handle]:
    """UUID → handle, of all GPUs of the machine, and of their parts. Raises NVMLError."""
    handles = {}
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        for each in [handle, *_parts(nvml, handle)]:
            handles[_text(nvml.nvmlDeviceGetUUID(each))] = each
    return handles


def _units(nvml: Nvml, handle: Handle) -> Iterator[Gpu]:
    """What CUDA can use of a physical GPU: itself, or, where it is divided, its parts only."""
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    major, minor = capability
    divided = _is_divided(nvml, handle)
    for each in _parts(nvml, handle) if divided else [handle]:
        yield Gpu(
            index=-1,
            uuid=_text(nvml.nvmlDeviceGetUUID(each)),
            name=_text(nvml.nvmlDeviceGetName(each)),
            memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(each).total),
            compute_capability=(major, minor),
            mig=divided,
        )


def _is_divided(nvml: Nvml, handle: Handle) -> bool:
    try:
        now, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        # most GPUs can't be
        return False
    return bool(now)


def _parts(nvml: Nvml, handle: Handle) -> list[Handle]:
    if not _is_divided(nvml, handle):
        return []
    parts = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            parts.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except nvml.NVMLError:
            # the numbers may have gaps
            continue
    return parts


def _chosen(machine: Sequence[Sequence[Gpu]], visible: str | None) -> list[Gpu]:
    """Those that CUDA shows, in its order: all that come before the first name that it does not know, or knows
    already."""
    if visible is None:
        return [gpu for units in machine for gpu in units]
    chosen: list[Gpu] = []
    for word in visible.split(","):
        gpu = _named(word.strip(), machine)
        if gpu is None or gpu in chosen:
            break
        chosen.append(gpu)
    return chosen


def _named(word: str, machine: Sequence[Sequence[Gpu]]) -> Gpu | None:
    """By the number of the physical GPU, of whose parts CUDA takes the first, or by the beginning of a UUID that no
    other one has."""
    if word.isascii() and word.isdecimal():
        number = int(word)
        return next(iter(machine[number]), None) if number < len(machine) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    found = [gpu for units in machine for gpu in units if gpu.uuid.startswith(word)]
    return found[0] if len(found) == 1 else None


def _text(value: str | bytes) -> str:
    """Older versions of the package gave bytes."""
    return value.decode() if isinstance(value, bytes) else value
