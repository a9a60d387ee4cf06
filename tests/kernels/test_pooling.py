"""Means of tokens, against NumPy's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.pooling import masked_mean
from penstock_kernels.runner import Array

SHAPES = [(1, 1, 1), (0, 3, 4), (2, 0, 3), (2, 3, 0), (3, 5, 7), (2, 17, 384), (37, 64, 101)]
MASKS = [np.int64, np.int32, np.bool_, np.uint8, np.float32]


def reference(x: Array, mask: Array, normalise: bool = True) -> Array:
    inside = (mask != 0)[:, :, np.newaxis]
    total = np.where(inside, x.astype(np.float64), 0).sum(1)
    mean = total / np.maximum(inside.sum(1), 1)
    if not normalise:
        return np.asarray(mean)
    length = np.sqrt((mean * mean).sum(1, keepdims=True))
    return np.asarray(mean / np.where(length == 0, 1, length))


def made(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> tuple[Array, Array]:
    x = rng.normal(size=shape).astype(np.float32)
    return x, (rng.random(shape[:2]) < 0.7).astype(dtype)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masked_mean(
    shape: tuple[int, ...], normalise: bool, cpu: Cpu, rng: np.random.Generator
) -> None:
    x, mask = made(shape, np.int64, rng)
    result = masked_mean(x, mask, cpu, normalise)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference(x, mask, normalise), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", MASKS)
def test_masks_of_any_type(dtype: Any, cpu: Cpu, rng: np.random.Generator) -> None:
    x, mask = made((3, 5, 7), dtype, rng)
    np.testing.assert_allclose(masked_mean(x, mask, cpu), reference(x, mask), rtol=1e-5, atol=1e-6)


def test_without_tokens_it_is_zeros(cpu: Cpu, rng: np.random.Generator) -> None:
    x, _ = made((2, 3, 4), np.bool_, rng)
    mask = np.array([[0, 0, 0], [1, 1, 0]])
    result = masked_mean(x, mask, cpu)
    np.testing.assert_array_equal(result[0], 0)
    np.testing.assert_allclose(result[1], reference(x, mask)[1], rtol=1e-5)
    assert not masked_mean(np.zeros_like(x), mask, cpu).any()


def test_what_is_masked_is_not_read(cpu: Cpu, rng: np.random.Generator) -> None:
    x, mask = made((2, 3, 4), np.int32, rng)
    mask[:, 1] = 0
    x[:, 1] = np.nan
    np.testing.assert_allclose(masked_mean(x, mask, cpu), reference(x, mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_no_number_or_large(normalise: bool, cpu: Cpu) -> None:
    x = np.array(
        [[[1, np.nan]], [[1, np.inf]], [[-np.inf, np.inf]], [[3e30, -4e30]], [[3e-30, 4e-30]]],
        np.float32,
    )
    mask = np.ones((5, 1), np.int64)
    with np.errstate(invalid="ignore"):
        expected = reference(x, mask, normalise)
    np.testing.assert_allclose(masked_mean(x, mask, cpu, normalise), expected, rtol=1e-6)


def test_strides(cpu: Cpu, rng: np.random.Generator) -> None:
    x, mask = made((6, 5, 8), np.int32, rng)
    strided, masks = x[::2, ::-1, ::3], mask[::2, ::-1]
    expected = reference(strided, masks)
    np.testing.assert_allclose(masked_mean(strided, masks, cpu), expected, rtol=1e-5, atol=1e-6)
    out = np.empty((3, 3), np.float32)
    assert masked_mean(strided, masks, cpu, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (np.zeros((2, 3), np.float32), np.zeros((2, 3)), r"expected \[batch, tokens, width\]"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3)), "x is of float64; expected float32"),
        (
            np.zeros((2, 3, 4), np.float32),
            np.zeros((3, 2)),
            r"mask has shape \[3, 2\]; expected \[2, 3\]",
        ),
        (
            np.zeros((2, 3, 4), np.float32),
            np.zeros((2, 3)),
            "mask is of float64; expected int64, int32",
        ),
    ],
)
def test_says_what_is_wrong(x: Array, mask: Array, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        masked_mean(x, mask, Cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("shape", [*SHAPES, (3, 5, 2500)], ids=str)
def test_masked_mean_on_gpu(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> None:
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    x, mask = made(shape, dtype, rng)
    mask[:1] = 0
    given, masks = torch.from_numpy(x).cuda(), torch.from_numpy(mask).cuda()
    for normalise in (True, False):
        out = torch.full((shape[0], shape[2]), 7.0, device="cuda")
        torch.cuda.synchronize()
        masked_mean(given, masks, cuda, normalise, out)  # type: ignore[arg-type]
        cuda.wait()
        expected = reference(x, mask, normalise)
        np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=1e-5, atol=1e-6)
    cuda.close()
