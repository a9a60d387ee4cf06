"""Runs models that MLflow has saved: a version's folder with an `MLmodel` file.

`mlflow_flavor`         which of the model's flavours; default: what MLflow's own Python function would load
`mlflow_requirements`   refuse (default), exact or warn: see mlflow_requirements
`mlflow_inputs`         of a model without a signature: columns (a table) or tensors
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from penstock.backends.base import Batch, LoadSpec, Outputs
from penstock.backends.batch_outputs import divided, wanted_outputs
from penstock.backends.completion import (
    BATCH_DIM,
    ModelTensor,
    Signature,
    complete,
    refuse_decoupled,
)
from penstock.backends.isolation import one_by_one, run_isolated
from penstock.backends.mlflow_flavors import Flavor, Probabilities
from penstock.backends.mlflow_inputs import Inputs
from penstock.backends.mlflow_loaders import holds_bytecode, load_flavor
from penstock.backends.mlflow_model_file import FLAVOR, ModelFile, read_model_file
from penstock.backends.mlflow_outputs import ModelOutputs, OutputCheck
from penstock.backends.mlflow_params import Params, parse_params
from penstock.backends.mlflow_requirements import PARAMETER as REQUIREMENTS
from penstock.backends.mlflow_requirements import check_requirements
from penstock.backends.mlflow_schema import Field, Kind, Schema, configured_schema
from penstock.backends.parameters import string_parameters
from penstock.errors import LoadFailed, ModelFailed, PenstockError
from penstock.model_config import ConfigDict
from penstock.types import Array

INPUTS: Final = "mlflow_inputs"
FORMS: Final = {"columns": True, "tensors": False}
PARAMETERS: Final = (FLAVOR, REQUIREMENTS, INPUTS)

PROBABILITIES: Final = "probabilities"
"""The second output of classifiers."""

log = logging.getLogger(__name__)


def load(spec: LoadSpec) -> MlflowModel:
    """Load what the `MLmodel` file describes. Raises LoadFailed with what is wrong and what was expected."""
    refuse_decoupled(spec.config, "an MLflow model")
    file = read_model_file(spec.version_dir)
    flavor = file.flavor(spec.config)
    inputs = _schema(file, spec.config, "input")
    outputs = _schema(file, spec.config, "output")
    where = f"{file.path}: signature.params"
    params = parse_params(None if file.signature is None else file.signature.get("params"), where)
    check_requirements(file, spec.config, flavor, bytecode=holds_bytecode(file, flavor))
    model = load_flavor(file, flavor, inputs, spec.threads)
    inputs = _as_exported(inputs, model.sizes())
    probabilities = model.probabilities
    if any(field.name == PROBABILITIES for field in outputs.fields):
        probabilities = None
    config = complete(spec.config, _signature(inputs, outputs, probabilities))
    return MlflowModel(model, config, inputs, outputs, params, probabilities)


class MlflowModel:
    """A model that is loaded, and the configuration that its signature filled in."""

    def __init__(
        self,
        model: Flavor,
        config: ConfigDict,
        inputs: Schema,
        outputs: Schema,
        params: Params,
        probabilities: Probabilities | None,
    ) -> None:
        batching = config["max_batch_size"] > 0
        self._model = model
        self._config = config
        self._params = params
        self._inputs = Inputs(inputs)
        self._outputs = ModelOutputs(outputs, batching=batching)
        self._probabilities = None
        if probabilities is not None:
            check = OutputCheck(_field(probabilities), batching=batching)
            self._probabilities = probabilities, check
        self._names = [tensor["name"] for tensor in config["output"]]

    @property
    def config(self) -> ConfigDict:
        """The configuration, complete."""
        return self._config

    def execute(self, batch: Batch) -> Outputs | Sequence[Outputs | PenstockError]:
        """Predict once. When that fails, or requests give different parameters, there is an answer for each."""
        if not self._params:
            return run_isolated(self._run, batch)
        groups: dict[Hashable, list[int]] = {}
        for index, request in enumerate(batch.requests):
            groups.setdefault(self._params.key(request.parameters), []).append(index)
        if len(groups) == 1:
            return run_isolated(self._run, batch)
        return self._by_group(batch, list(groups.values()))

    def close(self) -> None:
        """Let go of the model. It can't be run after it."""
        del self._model, self._probabilities

    def _by_group(
        self, batch: Batch, groups: Sequence[Sequence[int]]
    ) -> Sequence[Outputs | PenstockError]:
        """Requests with equal parameters are predicted together."""
        alone = list(one_by_one(batch))
        answers: dict[int, Outputs | PenstockError] = {}
        for indices in groups:
            joined = _joined([alone[index] for index in indices], repeatable=batch.repeatable)
            try:
                answer = run_isolated(self._run, joined)
            except ModelFailed as error:
                # other groups have their own answers
                answer = [error] * len(indices)
            if isinstance(answer, Mapping):
                requests = [batch.requests[index] for index in indices]
                answers.update(zip(indices, divided(answer, requests), strict=True))
            else:
                answers.update(zip(indices, answer, strict=True))
        return [answers[index] for index in range(len(batch.requests))]

    def _run(self, batch: Batch) -> Outputs:
        rows = batch.rows
        # predictions and probabilities are computed apart
        wanted = wanted_outputs(batch, self._names)
        params = self._params.read(batch.requests[0].parameters)
        data = self._inputs(batch.inputs)
        outputs: dict[str, Array] = {}
        if self._outputs.names.intersection(wanted):
            outputs = self._outputs(self._model.predict(data, params), rows)
        if self._probabilities is not None and PROBABILITIES in wanted:
            probabilities, check = self._probabilities
            outputs[PROBABILITIES] = check(probabilities.of(data), rows)
        return {name: array for name, array in outputs.items() if name in wanted}


def _joined(batches: Sequence[Batch], *, repeatable: bool) -> Batch:
    names = batches[0].inputs
    inputs = {name: np.concatenate([each.inputs[name] for each in batches]) for name in names}
    return Batch(inputs, [each.requests[0] for each in batches], repeatable=repeatable)


def _schema(file: ModelFile, config: ConfigDict, key: str) -> Schema:
    """The signature's, or else the configuration's. Raises LoadFailed where neither says anything."""
    given = config.get(key) or ()
    schema = file.schema(f"{key}s")
    if schema is not None:
        return schema.renamed([tensor["name"] for tensor in given])
    if given:
        return configured_schema(config, key, columns=_columns(config))
    missing = "no signature" if file.signature is None else f"a signature without {key}s"
    raise LoadFailed(
        f"{file.path} has {missing}, so {key}s are not known: save the model with"
        " signature=mlflow.models.infer_signature(X, model.predict(X)), add one by mlflow.models.set_signature,"
        f" or give {key} in the configuration"
    )


def _columns(config: ConfigDict) -> bool | None:
    form = string_parameters(config).get(INPUTS)
    if form is not None and form not in FORMS:
        raise LoadFailed(f"parameter {INPUTS!r} is {form!r}, expected one of {', '.join(FORMS)}")
    return None if form is None else FORMS[form]


def _as_exported(inputs: Schema, sizes: Sequence[tuple[int, ...]]) -> Schema:
    """With the sizes that the model was exported for, where its signature says that any are fine."""
    fits = len(sizes) == len(inputs.fields) and all(
        len(size) == len(field.shape) for size, field in zip(sizes, inputs.fields, strict=True)
    )
    if not fits or inputs.columns:
        return inputs
    fields = []
    for size, field in zip(sizes, inputs.fields, strict=True):
        shape = tuple(
            own if given == BATCH_DIM else given
            for given, own in zip(field.shape, size, strict=True)
        )
        if shape != field.shape:
            log.warning(
                "input %r has shape %s by the model's signature, but was exported for %s only",
                field.name,
                list(field.shape),
                list(shape),
            )
        fields.append(replace(field, shape=shape))
    return replace(inputs, fields=tuple(fields))


def _field(probabilities: Probabilities) -> Field:
    shape = (BATCH_DIM, probabilities.classes)
    return Field(PROBABILITIES, PROBABILITIES, Kind.NUMBER, "TYPE_FP64", shape)


def _signature(inputs: Schema, outputs: Schema, probabilities: Probabilities | None) -> Signature:
    given: list[ModelTensor] = [field.tensor for field in outputs.fields]
    if probabilities is not None:
        given.append(_field(probabilities).tensor)
    return Signature([field.tensor for field in inputs.fields], given)
