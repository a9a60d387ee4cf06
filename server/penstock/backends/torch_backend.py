"""Runs PyTorch models: TorchScript, programs of torch.export, AOTInductor packages, state dicts with their class."""

from __future__ import annotations

from penstock.backends.base import LoadedModel, LoadSpec
from penstock.backends.mlflow_flavors import module
from penstock.errors import LoadFailed
from penstock.model_config import asks_decoupled


def load(spec: LoadSpec) -> LoadedModel:
    """Load the model's file. Raises LoadFailed with what is wrong and what was expected."""
    if asks_decoupled(spec.config):
        raise LoadFailed(
            "model_transaction_policy.decoupled is true, but a PyTorch model gives each request one response;"
            " expected false"
        )
    module("torch", "torch")
    from penstock.backends import torch_model

    return torch_model.load(spec)
