"""What the operations launch on a GPU: kernels that are in their sources, on all of the data. Needs no GPU, and
shows nothing of what the kernels compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cubin import parameter_sizes
from penstock_kernels import activations, convert, images, pooling, quantise, ragged, rows, softmax
from penstock_kernels.cuda.compiler import compile_source
from penstock_kernels.cuda.runner import Cuda
from penstock_kernels.runner import Array


class Launches:
    """In place of a GPU."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, int]] = []
        self.sizes: list[list[int]] = []
        """Bytes of each argument, as cuda-core hands it over: pointers are Python's integers."""

    def run(
        self, source: str, kernel: str, blocks: int, *arguments: Any, threads: int = 256
    ) -> None:
        assert all(isinstance(argument, (int, np.generic)) for argument in arguments)
        assert 0 < threads <= 1024
        assert 0 <= blocks < 2**31
        self.all.append((source, kernel, blocks))
        self.sizes.append([a.itemsize if isinstance(a, np.generic) else 8 for a in arguments])


def floats(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def best(count: int, k: int) -> tuple[Array, Array]:
    return floats(count, k), np.zeros((count, k), np.int64)


SPLITS = np.array([0, 2, 5])
RECIPE = images.ImageRecipe(3, 16, 17)
PIXELS = np.zeros((2, 5, 6, 3), np.uint8)
HALVES = np.zeros((30, 10), np.float16)
BYTES = np.zeros((30, 10), np.uint8)
E4M3, E5M2 = quantise.E4M3, quantise.E5M2
EXPECTED: list[tuple[Callable[[Cuda], object], tuple[str, str, int]]] = [
    (
        lambda on: activations.sigmoid(floats(30, 10), on, floats(30, 10)),
        ("activations", "sigmoid_f32", 2),
    ),
    (
        lambda on: images.preprocess(PIXELS, RECIPE, on, floats(2, 3, 16, 17)),
        ("images", "preprocess_fp32", 3),
    ),
    (
        lambda on: images.preprocess(PIXELS[0], RECIPE, on, np.zeros((3, 16, 17), np.float16)),
        ("images", "preprocess_fp16", 2),
    ),
    (
        # DLPack has all strides 0 of what is empty
        lambda on: images.preprocess(PIXELS[:0], RECIPE, on, floats(0, 3, 16, 17)),
        ("images", "preprocess_fp32", 0),
    ),
    (
        lambda on: convert.to_fp32(HALVES, on, floats(30, 10)),
        ("convert", "fp16_to_fp32", 2),
    ),
    (
        lambda on: convert.from_fp32(floats(30, 10), np.float16, on, HALVES.copy()),
        ("convert", "fp32_to_fp16", 2),
    ),
    (
        lambda on: quantise.quantise(
            HALVES, floats(10), on, np.int8, np.zeros(10, np.int8), 1, np.zeros((30, 10), np.int8)
        ),
        ("quantise", "quantise_int8_fp16", 2),
    ),
    (
        lambda on: quantise.quantise(HALVES, floats(1), on, E4M3, out=BYTES.copy()),
        ("quantise", "quantise_e4m3_fp16", 2),
    ),
    (
        lambda on: quantise.dequantise(BYTES, floats(), on, out=floats(30, 10), dtype=E5M2),
        ("quantise", "dequantise_e5m2", 2),
    ),
    (
        lambda on: softmax.softmax(floats(9, 10), on, floats(9, 10)),
        ("softmax", "softmax_f32_warp", 2),
    ),
    (
        lambda on: softmax.softmax(floats(9, 1025), on, floats(9, 1025)),
        ("softmax", "softmax_f32", 9),
    ),
    (
        lambda on: softmax.softmax(floats(9, 0), on, floats(9, 0)),
        ("softmax", "softmax_f32_warp", 0),
    ),
    (
        lambda on: softmax.log_softmax(floats(10), on, floats(10)),
        ("softmax", "log_softmax_f32_warp", 1),
    ),
    (
        lambda on: softmax.log_softmax(floats(70_000, 1025), on, floats(70_000, 1025)),
        ("softmax", "log_softmax_f32", 65535),
    ),
    (lambda on: softmax.top_k(floats(9, 10), 3, on, best(9, 3)), ("softmax", "top_k_f32", 9)),
    (lambda on: softmax.top_k(floats(9, 10), 0, on, best(9, 0)), ("softmax", "top_k_f32", 0)),
    (
        lambda on: softmax.softmax_top_k(floats(9, 10), 3, on, best(9, 3)),
        ("softmax", "softmax_top_k_f32", 9),
    ),
    *(
        (
            lambda on, dtype=dtype: pooling.masked_mean(
                floats(2, 3, 4), np.zeros((2, 3), dtype), on, True, floats(2, 4)
            ),
            ("pooling", f"masked_mean_{suffix}", 2),
        )
        for dtype, suffix in (
            (np.int64, "i64"),
            (np.int32, "i32"),
            (np.bool_, "u8"),
            (np.float32, "f32"),
        )
    ),
    *(
        (
            lambda on, size=size: ragged.pack(
                np.zeros((2, 300), f"u{size}"), SPLITS, on, np.zeros(5, f"u{size}")
            ),
            ("ragged", f"pack_{8 * size}", 3),
        )
        for size in (1, 2, 4, 8)
    ),
    *(
        (
            lambda on, size=size: ragged.pad(
                np.zeros((5, 2), f"i{size}"),
                SPLITS,
                on,
                fill=-1,
                out=(np.zeros((2, 300, 2), f"i{size}"), np.zeros((2, 300), np.bool_)),
            ),
            ("ragged", f"pad_{8 * size}", 5),
        )
        for size in (1, 2, 4, 8)
    ),
    (
        lambda on: rows.gather(np.zeros(9, np.uint8), SPLITS, on, out=floats(3, 2)),
        ("rows", "gather_rows", 1),
    ),
    (
        lambda on: rows.scatter(floats(3, 1000), np.zeros(9, np.uint8), SPLITS, on),
        ("rows", "scatter_rows", 3),
    ),
]


@pytest.fixture(scope="module")
def cubins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cubins")


@pytest.mark.parametrize(
    ("call", "expected"),
    EXPECTED,
    ids=[f"{kernel} {blocks}" for _, (_, kernel, blocks) in EXPECTED],
)
def test_launch(
    call: Callable[[Cuda], object], expected: tuple[str, str, int], cubins: Path
) -> None:
    launches = Launches()
    call(cast(Cuda, launches))
    assert launches.all == [expected]
    source, kernel, _ = expected
    assert launches.sizes == [parameter_sizes(compile_source(source, "sm_90", cubins), kernel)]


def test_absmax_launches_in_turn(cubins: Path) -> None:
    launches = Launches()
    quantise.absmax_scale(floats(30, 5000), cast(Cuda, launches), np.int8, 0, floats(30))
    assert launches.all == [
        ("quantise", "clear", 1),
        ("quantise", "absmax_fp32", 60),
        ("quantise", "to_scale", 1),
    ]
    code = compile_source("quantise", "sm_90", cubins)
    assert launches.sizes == [parameter_sizes(code, kernel) for _, kernel, _ in launches.all]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            lambda on: activations.sigmoid(floats(3), on),
            "out is not given; expected memory of the GPU",
        ),
        (lambda on: activations.sigmoid(np.zeros(3), on, floats(3)), "x is of float64"),
        (
            lambda on: softmax.softmax(floats(9, 10), on, floats(9, 9)),
            r"out has shape \[9, 9\]; expected \[9, 10\]",
        ),
        (
            lambda on: softmax.top_k(floats(9, 10), 3, on, (floats(9, 3), floats(9, 3))),
            r"out\[1\] is of float32; expected int64",
        ),
        (
            lambda on: pooling.masked_mean(floats(2, 3, 4), floats(2, 3), on, out=floats(2, 3)),
            r"out has shape \[2, 3\]; expected \[2, 4\]",
        ),
        (
            lambda on: ragged.pack(floats(2, 3, 4), SPLITS, on, floats(5, 3)),
            r"a row of out has shape \[3\]; expected \[4\]",
        ),
        (
            lambda on: ragged.pad(
                floats(5, 4), SPLITS[:2], on, out=(floats(2, 3, 4), np.zeros((2, 3), np.bool_))
            ),
            r"splits has shape \[2\]; expected \[3\]",
        ),
        (
            lambda on: rows.gather(floats(9), SPLITS, on, out=floats(3, 2)),
            "the slab is of float32; expected uint8",
        ),
        (
            lambda on: images.preprocess(PIXELS, RECIPE, on, floats(2, 3, 17, 16)),
            r"out has shape \[2, 3, 17, 16\]; expected \[2, 3, 16, 17\]",
        ),
        (
            lambda on: images.preprocess(floats(5, 6, 3), RECIPE, on, floats(3, 16, 17)),
            "images are float32; expected uint8",
        ),
        (
            lambda on: convert.to_fp32(HALVES, on, HALVES.copy()),
            "out is of float16; expected float32",
        ),
        (
            lambda on: quantise.quantise(HALVES, floats(1), on, E4M3, axis=1, out=BYTES.copy()),
            "scale has 1 values; expected 10",
        ),
        (
            lambda on: quantise.dequantise(BYTES, floats(1), on, out=floats(3), dtype=E5M2),
            r"out has shape \[3\]; expected \[30, 10\]",
        ),
    ],
)
def test_gpu_refuses_what_a_kernel_would_read_or_write_past(
    call: Callable[[Cuda], object], problem: str
) -> None:
    launches = Launches()
    with pytest.raises((TypeError, ValueError), match=problem):
        call(cast(Cuda, launches))
    assert launches.all == []


def test_gpu_refuses_what_the_source_has_no_room_for() -> None:
    on = cast(Cuda, Launches())
    with pytest.raises(ValueError, match="k is 513; expected 0 up to 512"):
        softmax.top_k(floats(1, 1000), 513, on, best(1, 513))
    wide = np.broadcast_to(floats(1, 1), (1, 2**32)).view()
    with pytest.raises(ValueError, match="x has 4294967296 columns; expected 4294967295 at most"):
        softmax.top_k(wide, 1, on, best(1, 1))
    with pytest.raises(ValueError, match=r"mask has shape \[3, 2\]; expected \[2, 3\]"):
        pooling.masked_mean(floats(2, 3, 4), floats(3, 2), on, out=floats(2, 4))
