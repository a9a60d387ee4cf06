"""Which instance of a model runs where: `instance_group` of its configuration, and the GPUs that there are.

As in Triton: `count` is for each GPU of a KIND_GPU group, no `gpus` are all of them, and KIND_AUTO is a GPU where the
backend can use one and all that are named are there, else the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.devices.discovery import VISIBLE, Devices, Gpu
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict

CPU: Final = "cpu"
MAX_INSTANCES: Final = 1024
"""Of a version, each of them a process. What asks for more is a slip, or means to end the server."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What a backend can do with GPUs here."""

    problem: str = ""
    """Why it can't use one; empty: it can."""
    default: bool = True
    """Models whose configuration says nothing of instances run on GPUs."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one instance runs."""

    group: int
    """Its place in `instance_group`."""
    kind: str
    """What that asks for: KIND_AUTO …"""
    gpu: Gpu | None = None
    """None: it runs on the CPU, or, of KIND_MODEL, where its model says."""
    fallback: str = ""
    """Why it runs on the CPU though a GPU was asked for; empty: none was, or it has it."""
    visible: tuple[str, ...] | None = ()
    """UUIDs of the GPUs that its worker may see; None: what the server itself sees."""

    @property
    def device(self) -> str:
        """As `LoadSpec.device` has it."""
        return CPU if self.gpu is None else self.gpu.device

    @property
    def environment(self) -> Mapping[str, str]:
        """What its worker has in its environment, so that no library in it finds another GPU."""
        if self.visible is None:
            return {}
        return {VISIBLE: ",".join(self.visible), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def placements(config: ConfigDict, devices: Devices, use: GpuUse) -> tuple[Placement, ...]:
    """One for each instance, in the order of their numbers. Raises LoadFailed that says what is not there."""
    default = {"kind": "KIND_AUTO" if use.default else "KIND_CPU"}
    found: list[Placement] = []
    for number, group in enumerate(config.get("instance_group") or [default]):
        found += _of_group(number, group, devices, use)
        if len(found) > MAX_INSTANCES:
            raise LoadFailed(
                f"instance_group[{number}] makes {len(found)} instances of the model on"
                f" {len(devices.gpus)} GPUs; expected {MAX_INSTANCES} at most"
            )
    return tuple(found)


def threads_of(placed: Sequence[Placement], index: int, threads: int) -> int:
    """How many of the server's compute threads an instance may use. Those on the CPU divide them; one on a GPU has few
    things to compute here, and gets its share of all without making that of others smaller."""
    on_cpu = sum(each.gpu is None for each in placed)
    there = index < len(placed) and placed[index].gpu is None
    return max(1, threads // max(1, on_cpu if there else len(placed)))


def _of_group(
    number: int, group: Mapping[str, Any], devices: Devices, use: GpuUse
) -> Iterator[Placement]:
    kind = group.get("kind") or "KIND_AUTO"
    count, asked = group.get("count") or 1, group.get("gpus") or []
    if kind == "KIND_MODEL":
        every = tuple([gpu.uuid for gpu in devices.gpus]) or None
        yield from [Placement(number, kind, visible=every)] * count
        return
    problem = "" if kind == "KIND_CPU" else _problem(asked, devices, use)
    if kind == "KIND_GPU" and problem:
        raise LoadFailed(f"instance_group[{number}] has kind KIND_GPU, but {problem}")
    if kind == "KIND_CPU" or problem:
        # who named no GPU is content with the CPU
        fallback = f"runs on the CPU: {problem}" if asked and problem else ""
        yield from [Placement(number, kind, fallback=fallback)] * count
        return
    numbers = dict.fromkeys(asked or range(len(devices.gpus)))
    for _ in range(count):
        for index in numbers:
            gpu = devices.gpus[index]
            yield Placement(number, kind, gpu, visible=(gpu.uuid,))


def _problem(asked: Sequence[int], devices: Devices, use: GpuUse) -> str:
    """Why no GPU can be had, or not those that are named."""
    if not devices.gpus:
        return f"the server has no GPU: {devices.reason}"
    if use.problem:
        return use.problem
    missing = [str(gpu) for gpu in asked if not 0 <= gpu < len(devices.gpus)]
    if missing:
        there = ", ".join(map(str, devices.gpus))
        what = f"GPU {missing[0]} is" if len(missing) == 1 else f"GPUs {', '.join(missing)} are"
        return f"{what} not there; the server has {there}"
    return ""
