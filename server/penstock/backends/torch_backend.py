"""Runs PyTorch models: TorchScript, programs of torch.export, AOTInductor packages, state dicts with their class."""

from __future__ import annotations

from penstock.backends.base import LoadedModel, LoadSpec
from penstock.backends.completion import refuse_decoupled
from penstock.backends.mlflow_flavors import module


def load(spec: LoadSpec) -> LoadedModel:
    """Load the model's file. Raises LoadFailed with what is wrong and what was expected."""
    refuse_decoupled(spec.config, "a PyTorch model")
    module("torch", "torch")
    from penstock.backends import torch_model

    return torch_model.load(spec)
