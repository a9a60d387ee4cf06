"""What `auto_complete_config` gets: a configuration that a Triton model may add to, but not contradict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from penstock.backends.completion import SCHEDULERS

_INPUT_KEYS: Final = ("name", "data_type", "dims", "optional")
_OUTPUT_KEYS: Final = ("name", "data_type", "dims")


class ModelConfig:
    """Triton's `ModelConfig`. All setters raise ValueError where the configuration says otherwise."""

    def __init__(self, model_config: str) -> None:
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        configured = self._model_config.get("max_batch_size", 0)
        if configured > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {configured}, but in"
                f" auto-complete-config function for model {self._name()} specified"
                f" max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Batch requests dynamically, unless that is configured already."""
        for scheduler in SCHEDULERS[1:]:
            if self._model_config.get(scheduler) is not None:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but"
                    f" auto-complete-config function for model {self._name()} tries to set"
                    " scheduling_choice as 'dynamic_batching'"
                )
        if self._model_config.get("dynamic_batching") is None:
            self._model_config["dynamic_batching"] = {}

    def add_input(self, input: Mapping[str, Any]) -> None:
        """Add an input with `name`, `data_type`, `dims`, and maybe `optional`."""
        self._add("input", input, _INPUT_KEYS)

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Add an output with `name`, `data_type`, `dims`."""
        self._add("output", output, _OUTPUT_KEYS)

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, Any]) -> None:
        """Set `decoupled`, the only property there is."""
        if transaction_policy_dict.keys() - {"decoupled"}:
            raise ValueError(
                "model transaction property in auto-complete-config function for model"
                f" {self._name()} contains property other than 'decoupled'."
            )
        policy = self._model_config.get("model_transaction_policy") or {}
        wanted = transaction_policy_dict.get("decoupled")
        if wanted is not None and policy.get("decoupled", wanted) != wanted:
            raise ValueError(
                "trying to change decoupled property in auto-complete-config for model"
                f" {self._name()}, which is already set to '{policy['decoupled']}'."
            )
        self._model_config["model_transaction_policy"] = {**policy, **transaction_policy_dict}

    def _add(self, kind: str, tensor: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        name = tensor.get("name", "")
        where = f"{kind} '{name}' in auto-complete-config function for model {self._name()}"
        for key in tensor:
            if key not in keys:
                raise ValueError(f"{where} contains property other than {', '.join(keys)}.")
        for key in ("name", "data_type", "dims"):
            if key not in tensor:
                raise ValueError(f"{where} is missing '{key}' property.")
        tensors = self._model_config.get(kind) or []
        configured = next((t for t in tensors if t["name"] == name), None)
        if configured is None:
            tensors = [*tensors, dict(tensor)]
        else:
            _check_same(where, configured, tensor)
            configured.update(tensor)
        self._model_config[kind] = tensors

    def _name(self) -> str:
        return f"'{self._model_config.get('name', '')}'"


def _check_same(where: str, configured: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    data_type = configured.get("data_type") or "TYPE_INVALID"
    if data_type not in ("TYPE_INVALID", added["data_type"]):
        raise ValueError(
            f"{where} has data_type {added['data_type']}, the configuration expects {data_type}"
        )
    dims = configured.get("dims")
    if dims and list(dims) != list(added["dims"]):
        raise ValueError(
            f"{where} has dims {list(added['dims'])}, the configuration specifies {list(dims)}"
        )
    # A file's `optional: false` can't be told from the default: only `true` binds the model.
    if configured.get("optional") and added.get("optional") is False:
        raise ValueError(f"{where} has optional False, the configuration specifies True")
