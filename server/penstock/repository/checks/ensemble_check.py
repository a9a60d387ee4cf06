"""Checks ensembles against the models of their steps, of which only the complete configurations are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock import model_config
from penstock.errors import ConfigError, PenstockError
from penstock.model_config import ConfigDict, ModelConfig
from penstock.repository.checks.findings import Finding, error
from penstock.repository.checks.model_check import CheckedModel
from penstock.repository.config_check import check_complete
from penstock.repository.config_json import config_to_proto, proto_to_config
from penstock.repository.dependencies import Dependencies
from penstock.repository.ensemble_plan import EnsemblePlan, step_versions

Known = Mapping[tuple[str, int], ConfigDict | Finding]
"""Model and version → its complete configuration, or why it can't be loaded."""


@dataclass(frozen=True, slots=True)
class _Described:
    """A model as a plan looks at it."""

    config_dict: ConfigDict
    config: ModelConfig
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check_ensembles(models: Sequence[CheckedModel], known: Known) -> Known:
    """What becomes of all ensembles among the models; `known` has what became of the others."""
    ensembles = {model.name: model for model in models if model.is_ensemble and not model.failed}
    needed = Dependencies()
    for name, model in ensembles.items():
        needed.learn(name, model.config)
    found = dict(known)
    for name in _in_order(ensembles, needed):
        model = ensembles[name]
        for version in model.served:
            found[name, version] = _check(model, version, needed.circle(name), found)
    return found


def _in_order(ensembles: Mapping[str, CheckedModel], needed: Dependencies) -> Iterator[str]:
    """Each after those that it needs; those in circles at the end."""
    left = list(ensembles)
    while left:
        due = [name for name in left if not set(needed.needs(name)) & set(left)]
        yield from due or left
        left = [name for name in left if due and name not in due]


def _check(
    model: CheckedModel, version: int, circle: Sequence[str], known: Known
) -> ConfigDict | Finding:
    assert model.config is not None
    try:
        if circle:
            raise ConfigError(f"the models {' → '.join(circle)} need each other, in a circle")
        complete = proto_to_config(config_to_proto(model.config))
        check_complete(complete, f"model '{model.name}'")
        EnsemblePlan(complete, [_step(*step, known) for step in step_versions(complete)])
    except PenstockError as problem:
        place = model.line("ensemble_scheduling")
        return error(f"version {version} can't be loaded: {problem}", *place)
    return complete


def _step(step: str, name: str, version: str, known: Known) -> _Described:
    """The step's model. Raises ConfigError where it can't be served."""
    versions = {number: each for (model, number), each in known.items() if model == name}
    if not versions:
        raise ConfigError(f"{step}: there is no such model that could be loaded")
    if version and int(version) not in versions:
        served = ", ".join(map(str, sorted(versions)))
        raise ConfigError(f"{step}: version {version} is not served; expected one of {served}")
    found = versions[int(version)] if version else versions[max(versions)]
    if isinstance(found, Finding):
        raise ConfigError(f"{step}: its model can't be loaded")
    return _Described(found, model_config.parse(found))
