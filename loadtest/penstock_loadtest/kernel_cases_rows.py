"""Kernels of rows, for `python -m penstock_loadtest kernels`."""

from __future__ import annotations

from penstock_loadtest.kernel_case import KernelCase

CASES: tuple[KernelCase, ...] = ()
