"""Softmax and the largest elements of rows, against NumPy's in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock_kernels import softmax as kernels
from penstock_kernels.cpu.runner import Cpu
from penstock_kernels.runner import Array

SHAPES = [(1,), (0,), (3, 0), (0, 5), (1, 1), (7, 3), (2, 0, 5), (5, 64), (3, 2, 65), (401, 1031)]
STRANGE = np.array(
    [
        [1, np.nan, 2, 3],
        [1, -np.nan, 2, 3],
        [1, np.inf, 2, 3],
        [1, -np.inf, 2, 3],
        [np.inf, -np.inf, np.nan, 0],
        [-np.inf, -np.inf, -np.inf, -np.inf],
        [np.nan, np.nan, np.nan, np.nan],
        [-0.0, 0.0, -0.0, 0.0],
        [-3e38, 3e38, 0, 1],
        [-90, 0, -87.2, -87.4],
    ],
    np.float32,
)
FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan])


def reference(x: Array) -> Array:
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(-1, keepdims=True))


def log_reference(x: Array) -> Array:
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x - x.max(-1, keepdims=True, initial=-np.inf)
        return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def top_reference(x: Array, k: int) -> Array:
    return np.argsort(-x.astype(np.float64), axis=-1, kind="stable")[..., :k]


def assert_top(x: Array, k: int, cpu: Cpu) -> None:
    values, indices = kernels.top_k(x, k, cpu)
    expected = top_reference(x, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(x, expected, axis=-1))
    probabilities, same = kernels.softmax_top_k(x, k, cpu)
    np.testing.assert_array_equal(same, expected)
    expected_values = np.take_along_axis(reference(x), expected, axis=-1)
    np.testing.assert_allclose(probabilities, expected_values, rtol=1e-5, atol=2e-38)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax(shape: tuple[int, ...], cpu: Cpu, rng: np.random.Generator) -> None:
    x = rng.normal(scale=8, size=shape).astype(np.float32)
    result = kernels.softmax(x, cpu)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference(x), rtol=1e-5, atol=2e-38)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_softmax(shape: tuple[int, ...], cpu: Cpu, rng: np.random.Generator) -> None:
    x = rng.normal(scale=30, size=shape).astype(np.float32)
    np.testing.assert_allclose(kernels.log_softmax(x, cpu), log_reference(x), rtol=2e-6, atol=1e-6)


def test_what_is_no_number_or_far_from_0(cpu: Cpu) -> None:
    np.testing.assert_allclose(
        kernels.softmax(STRANGE, cpu), reference(STRANGE), rtol=1e-6, atol=2e-38
    )
    # FP32 has no -6e38
    expected = np.where(log_reference(STRANGE) < -3.5e38, -np.inf, log_reference(STRANGE))
    np.testing.assert_allclose(kernels.log_softmax(STRANGE, cpu), expected, rtol=1e-6)
    for k in range(5):
        assert_top(STRANGE, k, cpu)


def test_exponentials_have_all_their_digits(cpu: Cpu) -> None:
    # beside 0, so that nothing is rounded before
    x = np.zeros((87 * 1024, 2), np.float32)
    x[:, 1] = -np.arange(len(x)) / 1024
    np.testing.assert_allclose(kernels.softmax(x, cpu), reference(x), rtol=3e-7)


@given(
    x=arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 150)), elements=FLOATS),
    data=st.data(),
)
def test_any_rows(x: Array, data: st.DataObject) -> None:
    cpu = Cpu()
    assert_top(x, data.draw(st.integers(0, x.shape[-1])), cpu)
    np.testing.assert_allclose(kernels.softmax(x, cpu), reference(x), rtol=2e-5, atol=2e-38)


@pytest.mark.parametrize("k", [1, 5, 100, 1000])
def test_top_k(k: int, cpu: Cpu, rng: np.random.Generator) -> None:
    assert_top(rng.normal(size=(403, 1000)).astype(np.float32), k, cpu)
    # many are equal, and the order of the others is the worst for a heap
    assert_top(np.round(rng.normal(size=(7, 1000))).astype(np.float32), k, cpu)
    assert_top(np.sort(rng.normal(size=(3, 1000))).astype(np.float32), k, cpu)


def test_top_k_of_one_row_and_of_none(cpu: Cpu) -> None:
    assert_top(np.array([3, 1, 2], np.float32), 2, cpu)
    assert_top(np.empty((0, 3), np.float32), 2, cpu)
    assert_top(np.empty((2, 0), np.float32), 0, cpu)


@pytest.mark.parametrize("kernel", [kernels.softmax, kernels.log_softmax])
def test_strides(kernel: Callable[[Array, Cpu], Array], cpu: Cpu, rng: np.random.Generator) -> None:
    x = rng.normal(size=(8, 9)).astype(np.float32)
    for view in (x.T, x[::2, ::-3]):
        np.testing.assert_array_equal(kernel(view, cpu), kernel(view.copy(), cpu))
        assert_top(view, 2, cpu)


def test_writes_where_it_is_told(cpu: Cpu, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4)).astype(np.float32)
    out = np.empty_like(x)
    assert kernels.softmax(x, cpu, out) is out
    np.testing.assert_allclose(out, reference(x), rtol=1e-6)
    assert kernels.softmax(x, cpu, x) is x
    np.testing.assert_array_equal(x, out)
    best = np.empty((3, 2), np.float32), np.empty((3, 2), np.int64)
    assert kernels.top_k(x, 2, cpu, best) == best


@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (np.zeros((2, 3), np.float32), 4, "k is 4; expected 0 up to 3"),
        (np.zeros((2, 3), np.float32), -1, "k is -1; expected 0 up to 3"),
        (np.zeros((), np.float32), 1, r"x has shape \[\]; expected \[..., columns\]"),
        (np.zeros((2, 3)), 1, "x is of float64; expected float32"),
    ],
)
def test_says_what_is_wrong(x: Array, k: int, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        kernels.top_k(x, k, Cpu())


def test_says_that_it_cannot_write_there() -> None:
    x = np.zeros((2, 3), np.float32)
    for out, message in (
        (np.zeros((3, 2), np.float32), r"out has shape \[3, 2\]; expected \[2, 3\]"),
        (np.zeros((2, 3)), "out is of float64; expected float32"),
        (np.zeros((3, 2), np.float32).T, "expected a writeable array in C order"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            kernels.softmax(x, Cpu(), out)


@pytest.mark.gpu
class TestGpu:
    @pytest.mark.parametrize(
        "shape", [(0, 5), (7, 3), (401, 1031), (70_000, 10), (1, 200_000)], ids=str
    )
    def test_softmax(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        x = rng.normal(scale=8, size=shape).astype(np.float32)
        result, logarithm = on_gpu(x)
        np.testing.assert_allclose(result, reference(x), rtol=1e-5, atol=2e-38)
        np.testing.assert_allclose(logarithm, log_reference(x), rtol=1e-5, atol=1e-5)

    def test_what_is_no_number(self) -> None:
        result, logarithm = on_gpu(STRANGE)
        np.testing.assert_allclose(result, reference(STRANGE), rtol=1e-5, atol=2e-38)
        expected = np.where(log_reference(STRANGE) < -3.5e38, -np.inf, log_reference(STRANGE))
        np.testing.assert_allclose(logarithm, expected, rtol=1e-5)
        assert_top_on_gpu(STRANGE, 3)

    @pytest.mark.parametrize("k", [1, 5, 512])
    def test_top_k(self, k: int, rng: np.random.Generator) -> None:
        assert_top_on_gpu(rng.normal(size=(403, 1000)).astype(np.float32), k)
        assert_top_on_gpu(np.round(rng.normal(size=(7, 1000))).astype(np.float32), k)
        assert_top_on_gpu(np.sort(rng.normal(size=(3, 100_000))).astype(np.float32), k)

    def test_k_is_limited(self) -> None:
        import torch

        from penstock_kernels.cuda.runner import Cuda

        x = torch.zeros((1, 1000), device="cuda")
        cuda = Cuda()
        with pytest.raises(ValueError, match="k is 513; expected 0 up to 512"):
            kernels.top_k(x, 513, cuda, (x, x))  # type: ignore[arg-type]
        cuda.close()


def on_gpu(x: Array) -> tuple[Array, Array]:
    """Softmax and log-softmax."""
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    given = torch.from_numpy(x).cuda()
    out, logarithm = torch.empty_like(given), torch.empty_like(given)
    torch.cuda.synchronize()
    kernels.softmax(given, cuda, out)  # type: ignore[arg-type]
    kernels.log_softmax(given, cuda, logarithm)  # type: ignore[arg-type]
    cuda.wait()
    cuda.close()
    return out.cpu().numpy(), logarithm.cpu().numpy()


def assert_top_on_gpu(x: Array, k: int) -> None:
    import torch

    from penstock_kernels.cuda.runner import Cuda

    cuda = Cuda()
    given = torch.from_numpy(x).cuda()
    expected = top_reference(x, k)
    for kernel, scores in ((kernels.top_k, x), (kernels.softmax_top_k, reference(x))):
        values = torch.empty((len(x), k), device="cuda")
        indices = torch.empty((len(x), k), dtype=torch.int64, device="cuda")
        torch.cuda.synchronize()
        kernel(given, k, cuda, (values, indices))  # type: ignore[arg-type]
        cuda.wait()
        np.testing.assert_array_equal(indices.cpu().numpy(), expected)
        best = np.take_along_axis(scores, expected, axis=-1)
        np.testing.assert_allclose(values.cpu().numpy(), best, rtol=1e-5, atol=2e-38)
    cuda.close()
