"""What `ensemble_scheduling` must hold, as far as the configuration alone can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from penstock.model_config import ConfigDict
from penstock.scheduling.ensemble_graph import Step, stuck

PLATFORM: Final = "ensemble"
"""Also what the index says runs an ensemble, in place of a backend."""

LATEST: Final = (-1, 0)
"""Versions that mean the latest one: Triton's word for it, and none given."""

Found = Iterator[tuple[str, str]]
"""Path of a key, and what is wrong with it."""

StepConfig = Mapping[str, Any]


def ensemble_problems(config: ConfigDict) -> Found:
    """What is wrong, in a configuration with all its defaults."""
    scheduling = config.get("ensemble_scheduling")
    if scheduling is None:
        if config["platform"] == PLATFORM:
            yield "platform", "is 'ensemble'; expected ensemble_scheduling beside it"
        return
    yield from _whole(config)
    steps: Sequence[StepConfig] = scheduling["step"]
    if not steps:
        yield "ensemble_scheduling.step", "is empty; expected at least one"
    for at, step in enumerate(steps):
        yield from _step(f"ensemble_scheduling.step[{at}]", step, config["name"])
    yield from _tensors(config, steps)


def step_name(at: int, model: str) -> str:
    """How messages call a step."""
    return f"step {at} ('{model}')"


def _whole(config: ConfigDict) -> Found:
    if config["platform"] != PLATFORM:
        text = f"is {config['platform']!r}; expected 'ensemble', for there is ensemble_scheduling"
        yield "platform", text
    if config["backend"]:
        yield "backend", f"is {config['backend']!r}; expected none, for ensembles have no backend"
    for key in ("instance_group", "model_warmup"):
        if config[key]:
            text = "can't be given for an ensemble; expected in the models of its steps"
            yield key, text
    for kind in ("input", "output"):
        if not config[kind]:
            yield kind, "is empty; expected at least one, for an ensemble has no model's file"


def _step(path: str, step: StepConfig, ensemble: str) -> Found:
    name = step["model_name"]
    if not name:
        yield f"{path}.model_name", "is not given; expected the name of a model"
    if name == ensemble:
        yield f"{path}.model_name", f"is {name!r}, the ensemble itself; expected another model"
    if step["model_version"] < 0 and step["model_version"] not in LATEST:
        text = f"is {step['model_version']}; expected -1 (the latest) or a version"
        yield f"{path}.model_version", text
    if step["model_namespace"]:
        text = f"is {step['model_namespace']!r}; expected none, for there are no namespaces"
        yield f"{path}.model_namespace", text
    for key in ("input_map", "output_map"):
        if not step[key]:
            yield f"{path}.{key}", "is empty; expected at least one of the model's tensors"
        for tensor, ensembles in step[key].items():
            if not ensembles:
                text = "is not given; expected the name of a tensor of the ensemble"
                yield f"{path}.{key}[{tensor!r}]", text


def _tensors(config: ConfigDict, steps: Sequence[StepConfig]) -> Found:
    """Each tensor has one origin, and the ensemble's own are used."""
    origins = {tensor["name"]: "an input of the ensemble" for tensor in config["input"]}
    for at, step in enumerate(steps):
        for output, tensor in step["output_map"].items():
            if tensor in origins:
                path = f"ensemble_scheduling.step[{at}].output_map[{output!r}]"
                text = f"is {tensor!r}, which is {origins[tensor]} already; expected another name"
                yield path, text
            origins[tensor] = f"an output of {step_name(at, step['model_name'])}"
    read = {tensor for step in steps for tensor in step["input_map"].values()}
    for index, tensor in enumerate(config["input"]):
        if tensor["name"] not in read:
            text = f"is {tensor['name']!r}, which no step reads; expected in some step's input_map"
            yield f"input[{index}].name", text
    written = {tensor for step in steps for tensor in step["output_map"].values()}
    for index, tensor in enumerate(config["output"]):
        if tensor["name"] not in written:
            text = f"is {tensor['name']!r}, which no step gives; expected in some step's output_map"
            yield f"output[{index}].name", text
    yield from _unreachable(config, steps, origins)


def _unreachable(
    config: ConfigDict, steps: Sequence[StepConfig], origins: Mapping[str, str]
) -> Found:
    """Inputs of steps that nobody gives, and steps that wait for each other."""
    unknown = False
    for at, step in enumerate(steps):
        for name, tensor in step["input_map"].items():
            if tensor not in origins:
                unknown = True
                path = f"ensemble_scheduling.step[{at}].input_map[{name!r}]"
                text = f"is {tensor!r}, which is neither an input of the ensemble nor in a step's output_map"
                yield path, text
    given = [tensor["name"] for tensor in config["input"]]
    waiting = stuck(graph_steps(steps), given)
    if waiting and not unknown:
        names = ", ".join(step_name(at, steps[at]["model_name"]) for at in waiting)
        text = f"has steps that wait for each other's outputs in a circle: {names}"
        yield f"ensemble_scheduling.step[{waiting[0]}]", text


def graph_steps(steps: Sequence[StepConfig]) -> list[Step]:
    """The steps' tensors, each named once."""
    return [
        Step(tuple(dict.fromkeys(step["input_map"].values())), tuple(step["output_map"].values()))
        for step in steps
    ]
