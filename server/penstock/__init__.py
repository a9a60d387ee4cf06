"""Penstock: an inference serving runtime that speaks the Open Inference Protocol with Triton's extensions."""

from penstock.model_api import Context, Spec, model

__version__ = "0.1.0"

__all__ = ["Context", "Spec", "__version__", "model"]
