"""The kernels' CUDA sources against torch's operators on the same GPU: ratios, and bandwidth as a share of a copy's.

What is timed is the GPU's time, between two events, of calls that are queued one after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from penstock_kernels import convert, images, pooling, quantise, rows, softmax
from penstock_kernels.checks import BFLOAT16, FLOAT16
from penstock_loadtest.errors import BenchmarkError
from penstock_loadtest.marked import table

if TYPE_CHECKING:
    import torch

    from penstock_kernels.cuda.runner import Cuda

HEADS: Final = ("operation", "size", "µs", "times as fast as torch", "share of a copy's bandwidth")
CALLS: Final = 50
"""Queued within a turn."""
IMAGENET: Final = images.ImageRecipe(
    3, 224, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), antialias=False
)

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class GpuCase:
    """A row of the table."""

    name: str
    size: str
    touched_bytes: int
    """Read and written, each once."""
    make: Callable[[Cuda], tuple[Call, Call]]
    """The kernel's call, and torch's, on the same data."""


def measure(only: str, rounds: int, tell: Callable[[str], None]) -> str:
    """The table of all cases whose name holds `only`, in Markdown. Raises BenchmarkError without a GPU."""
    on = _gpu()
    try:
        lines = []
        for case in CASES:
            if only in case.name:
                lines.append(_measured(case, on, rounds))
                tell(" | ".join(lines[-1]))
        return table(HEADS, lines)
    finally:
        on.close()


def row(case: GpuCase, turns: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """As the table has it. `turns`: µs of the kernel, of torch, and of the copy."""
    own, _, copy = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    return case.name, case.size, f"{own:,.1f}", f"{ratio:.2f}", f"{copy / own:.0%}"


def _gpu() -> Cuda:
    try:
        import torch

        from penstock_kernels.cuda.runner import Cuda
    except ImportError as error:
        wanted = "pip install 'penstock[cuda]', and a build of torch for CUDA"
        raise BenchmarkError(f"{error}; expected {wanted}") from error
    if not torch.cuda.is_available():
        raise BenchmarkError("torch sees no GPU, or is not built for CUDA; expected both")
    return Cuda(0, stream=torch.cuda.current_stream())


def _measured(case: GpuCase, on: Cuda, rounds: int) -> tuple[str, ...]:
    import torch

    own, replaced = case.make(on)
    source = torch.ones(max(case.touched_bytes // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    calls: tuple[Call, ...] = (own, replaced, lambda: target.copy_(source))
    for call in calls:
        # compiles
        call()
    return row(case, [[_microseconds(call) for call in calls] for _ in range(rounds)])


def _microseconds(call: Call) -> float:
    import torch

    begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(CALLS):
        call()
    end.record()
    end.synchronize()
    elapsed_ms: float = begin.elapsed_time(end)
    return 1e3 * elapsed_ms / CALLS


# ── cases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _normal(*shape: int) -> torch.Tensor:
    import torch

    return torch.randn(shape, device="cuda")


def _like(x: torch.Tensor, dtype: str = "float32", *shape: int) -> Any:
    import torch

    return torch.empty(shape or x.shape, dtype=getattr(torch, dtype), device="cuda")


def _softmax(count: int, classes: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        x: Any = _normal(count, classes)
        out = _like(x)
        return lambda: softmax.softmax(x, on, out), lambda: x.softmax(-1)

    return make


def _best(count: int, classes: int, k: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        x: Any = _normal(count, classes)
        out = _like(x, "float32", count, k), _like(x, "int64", count, k)
        return lambda: softmax.softmax_top_k(x, k, on, out), lambda: x.softmax(-1).topk(k)

    return make


def _mean(batch: int, tokens: int, width: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        from torch.nn.functional import normalize

        x: Any = _normal(batch, tokens, width)
        mask: Any = (_normal(batch, tokens) > 0).long()
        out = _like(x, "float32", batch, width)

        def replaced() -> object:
            weights = mask.unsqueeze(-1).float()
            return normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1), dim=1)

        return lambda: pooling.masked_mean(x, mask, on, out=out), replaced

    return make


def _halved(size: int, dtype: str) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        x: Any = _normal(size)
        out = _like(x, dtype)
        own = BFLOAT16 if dtype == "bfloat16" else FLOAT16
        return lambda: convert.from_fp32(x, own, on, out), lambda: x.to(out.dtype)

    return make


def _quantised(count: int, width: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        x: Any = _normal(count, width)
        scale: Any = x.abs().amax(0) / 127
        out = _like(x, "int8")

        def replaced() -> object:
            return (x / scale).round().clamp(-128, 127).to(out.dtype)

        return lambda: quantise.quantise(x, scale, on, np.int8, axis=1, out=out), replaced

    return make


def _gathered(count: int, row_bytes: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        import torch

        slab: Any = torch.zeros(2 * count * row_bytes, dtype=torch.uint8, device="cuda")
        which = torch.randperm(2 * count, device="cuda")[:count]
        offsets: Any = which * row_bytes
        out = _like(slab, "uint8", count, row_bytes)
        table_of_rows = slab.view(2 * count, row_bytes)
        return (
            lambda: rows.gather(slab, offsets, on, (row_bytes,), out=out),
            lambda: table_of_rows.index_select(0, which),
        )

    return make


def _images(count: int, height: int, width: int) -> Callable[[Cuda], tuple[Call, Call]]:
    def make(on: Cuda) -> tuple[Call, Call]:
        import torch
        from torch.nn.functional import interpolate

        pixels: Any = torch.zeros((count, height, width, 3), dtype=torch.uint8, device="cuda")
        out = _like(pixels, "float16", count, 3, 224, 224)
        factor, added = (
            torch.from_numpy(each.copy()).cuda().view(1, 3, 1, 1)
            for each in (IMAGENET.factor, IMAGENET.added)
        )

        def replaced() -> object:
            planes = pixels.permute(0, 3, 1, 2).float()
            resized = interpolate(planes, (224, 224), mode="bilinear", align_corners=False)
            return (resized * factor + added).half()

        return lambda: images.preprocess(pixels, IMAGENET, on, out), replaced

    return make


CASES: Final[tuple[GpuCase, ...]] = (
    GpuCase("softmax", "64 x 1000", 2 * 4 * 64_000, _softmax(64, 1000)),
    GpuCase("softmax", "256 x 32000", 2 * 4 * 8_192_000, _softmax(256, 32_000)),
    GpuCase("softmax and top 5", "64 x 1000", 4 * 64_000, _best(64, 1000, 5)),
    GpuCase("masked mean, L2", "32 x 128 x 384", 4 * 32 * 128 * 384, _mean(32, 128, 384)),
    GpuCase("FP32 to FP16", "4096 x 4096", 6 * 2**24, _halved(2**24, "float16")),
    GpuCase("FP32 to BF16", "4096 x 4096", 6 * 2**24, _halved(2**24, "bfloat16")),
    GpuCase("quantise to int8, a scale a column", "4096 x 4096", 5 * 2**24, _quantised(4096, 4096)),
    GpuCase("gather rows", "4096 x 4 KiB", 2 * 2**24, _gathered(4096, 4096)),
    GpuCase(
        "image, of neighbours, to FP16",
        "32 of 480 x 640 to 224 x 224",
        32 * 3 * (4 + 2) * 224 * 224,
        _images(32, 480, 640),
    ),
)
"""Of an image the four neighbours of each pixel are read."""
