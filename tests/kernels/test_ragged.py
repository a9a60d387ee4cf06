"""Rows of different lengths, against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.ragged import pack, pad, splits_of
from penstock_kernels.runner import Array

LENGTHS = [[], [0], [3], [0, 0], [5, 0, 1, 3], list(range(300))]
DTYPES = [np.float32, np.int64, np.bool_, np.float16, np.complex64]


def elements(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    return np.asarray(rng.integers(0, 100, shape)).astype(dtype)


def padded_reference(flat: Array, lengths: list[int], size: int, fill: float) -> Array:
    padded = np.full((len(lengths), size, *flat.shape[1:]), fill, flat.dtype)
    start = 0
    for row, length in enumerate(lengths):
        padded[row, :length] = flat[start : start + length]
        start += length
    return padded


def mask_reference(lengths: list[int], size: int) -> Array:
    return np.array([[place < length for place in range(size)] for length in lengths]).reshape(
        len(lengths), size
    )


@pytest.mark.parametrize("tail", [(), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)} rows")
def test_pad_and_pack(
    lengths: list[int], tail: tuple[int, ...], cpu: Cpu, rng: np.random.Generator
) -> None:
    flat, splits = elements((sum(lengths), *tail), np.float32, rng), splits_of(lengths)
    for size in (max(lengths, default=0), 301):
        padded, mask = pad(flat, splits, cpu, size, fill=-7)
        np.testing.assert_array_equal(padded, padded_reference(flat, lengths, size, -7))
        np.testing.assert_array_equal(mask, mask_reference(lengths, size))
        np.testing.assert_array_equal(pack(padded, splits, cpu), flat)


@given(
    lengths=st.lists(st.integers(0, 9), max_size=9),
    dtype=st.sampled_from(DTYPES),
    mask_dtype=st.sampled_from([np.bool_, np.int64]),
    fill=st.sampled_from([0, 1, 100]),
    more=st.integers(0, 3),
)
def test_any_rows(lengths: list[int], dtype: Any, mask_dtype: Any, fill: int, more: int) -> None:
    cpu = Cpu()
    flat = elements((sum(lengths), 2), dtype, np.random.default_rng(0))
    splits, size = splits_of(lengths), max(lengths, default=0) + more
    padded, mask = pad(flat, splits, cpu, size, fill, mask_dtype)
    assert (padded.dtype, mask.dtype) == (flat.dtype, mask_dtype)
    np.testing.assert_array_equal(padded, padded_reference(flat, lengths, size, fill))
    np.testing.assert_array_equal(mask, mask_reference(lengths, size))
    np.testing.assert_array_equal(pack(padded, splits, cpu), flat)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float16])
def test_masks_of_any_type(dtype: Any, cpu: Cpu, rng: np.random.Generator) -> None:
    _, mask = pad(elements((4,), np.float32, rng), splits_of([1, 3]), cpu, 5, mask_dtype=dtype)
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, mask_reference([1, 3], 5))


def test_bits_stay_as_they_are(cpu: Cpu) -> None:
    bits = np.array([0x7FC12345, 0x7F800000, 0xFFFFFFFF, 0x80000000], np.uint32)
    padded, _ = pad(bits.view(np.float32), splits_of([1, 3]), cpu, fill=np.nan)
    np.testing.assert_array_equal(padded.view(np.uint32)[1], bits[1:])
    assert np.isnan(padded[0, 1:]).all()
    assert pack(padded, splits_of([1, 3]), cpu).view(np.uint32).tolist() == bits.tolist()


def test_strides_and_places(cpu: Cpu, rng: np.random.Generator) -> None:
    wide = elements((8, 6), np.int32, rng)
    flat, lengths = wide[::2, ::-2], [1, 3]
    out = np.empty((2, 3, 3), np.int32), np.empty((2, 3), np.int32)
    padded, mask = pad(flat, splits_of(lengths), cpu, out=out, size=3)
    assert (padded is out[0], mask is out[1]) == (True, True)
    np.testing.assert_array_equal(padded, padded_reference(flat, lengths, 3, 0))
    strided = np.asfortranarray(padded)
    packed = np.empty((4, 3), np.int32)
    assert pack(strided, splits_of(lengths), cpu, packed) is packed
    np.testing.assert_array_equal(packed, flat)


@pytest.mark.parametrize(
    ("flat", "splits", "message"),
    [
        (np.zeros(3), np.array([0, 2]), r"flat has shape \[3\]; expected \[2, ...\]"),
        (np.zeros(3), np.array([1, 3]), "splits begins with 1; expected 0"),
        (np.zeros(3), np.array([0, 4, 3]), "row 0 has length 4; expected 0 up to 2"),
        (np.zeros(0), np.array([0, 1, 0]), "row 1 has length -1; expected 0 up to 2"),
        (np.zeros(3), np.array([0.0, 3]), "splits is float64"),
        (np.zeros(3), np.array([], int), r"splits is int64 \[0\]; expected integers \[rows \+ 1\]"),
        (np.zeros(3), np.array([0, 0, 3]), "row 1 has length 3; expected 0 up to 2"),
        (np.zeros(2, np.complex128), np.array([0, 2]), "elements are of complex128; expected"),
        (np.zeros(2, object), np.array([0, 2]), "elements are of object"),
    ],
)
def test_says_what_is_wrong(flat: Array, splits: Array, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pad(flat, splits, Cpu(), size=2)


def test_says_what_cannot_be_packed() -> None:
    for padded, message in (
        (np.zeros(3), r"padded has shape \[3\]; expected \[rows, size, ...\]"),
        (np.zeros((1, 1)), "row 0 has length 2; expected 0 up to 1"),
        (np.zeros((2, 2)), r"expected integers \[rows \+ 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            pack(padded, np.array([0, 2]), Cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16", "uint8"])
@pytest.mark.parametrize("tail", [(), (3,)], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)} rows")
def test_on_gpu(
    lengths: list[int], tail: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    flat, size = elements((sum(lengths), *tail), dtype, rng), 301
    given, splits = torch.from_numpy(flat).cuda(), torch.from_numpy(splits_of(lengths)).cuda()
    padded = torch.empty((len(lengths), size, *tail), dtype=given.dtype, device="cuda")
    packed = torch.empty_like(given)
    for kind in (torch.bool, torch.int32, torch.int64, torch.float16):
        mask = torch.empty((len(lengths), size), dtype=kind, device="cuda")
        torch.cuda.synchronize()
        pad(given, splits, cuda, fill=1, out=(padded, mask))  # type: ignore[arg-type]
        pack(padded, splits, cuda, packed)  # type: ignore[arg-type]
        cuda.wait()
        np.testing.assert_array_equal(mask.cpu().numpy(), mask_reference(lengths, size))
        expected = padded_reference(flat, lengths, size, 1)
        np.testing.assert_array_equal(padded.cpu().numpy(), expected)
        np.testing.assert_array_equal(packed.cpu().numpy(), flat)
    cuda.close()


@pytest.mark.gpu
def test_splits_that_lead_out_on_gpu() -> None:
    """Nothing behind the end is read or written."""
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    splits = torch.tensor([0, 2, 1 << 40, -3]).cuda()
    flat, padded = torch.arange(3.0).cuda(), torch.empty(3, 4).cuda()
    mask, packed = torch.empty(3, 4, dtype=torch.bool).cuda(), torch.zeros(3).cuda()
    torch.cuda.synchronize()
    pad(flat, splits, cuda, fill=-1, out=(padded, mask))  # type: ignore[arg-type]
    pack(padded, splits, cuda, packed)  # type: ignore[arg-type]
    cuda.wait()
    assert padded.tolist() == [[0, 1, -1, -1], [2, -1, -1, -1], [-1] * 4]
    assert packed.tolist() == [0, 1, 2]
    cuda.close()
