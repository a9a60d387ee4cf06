"""An ensemble's configuration checked against the models of its steps, and compiled for its requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from penstock.errors import ConfigError
from penstock.image_config import as_clients_see
from penstock.model_config import ConfigDict, ModelConfig
from penstock.repository.config_ensemble import LATEST, graph_steps, step_name
from penstock.scheduling.ensemble_graph import Course, Graph


class StepModel(Protocol):
    """What a plan has to know of a step's model."""

    @property
    def config_dict(self) -> ConfigDict:
        """Complete, in Triton's full JSON form."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The same, typed."""
        ...

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Output → class names."""
        ...


MAX_COURSES: Final = 256
"""Sets of outputs that were asked for, whose courses are remembered."""

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor as one of those that give or take it declares it."""

    where: str
    """For messages."""
    data_type: str
    dims: Dims
    """Without the batch dimension; -1 is any size."""
    batched: bool
    optional: bool = False

    @property
    def full(self) -> Dims:
        """Dims with the batch dimension, where there is one."""
        return (-1, *self.dims) if self.batched else self.dims

    def shape(self, shape: Dims, rows: int) -> Dims:
        """How a tensor of that shape is seen here; `rows`: its batch dimension, 0 where it was made without. A batch of
        one is as good as no batch."""
        if self.batched == (rows > 0):
            return shape
        if self.batched:
            return (1, *shape) if fit(self.dims, shape) else shape
        return shape[1:] if rows == 1 and not fit(self.dims, shape) else shape


class Reshape(NamedTuple):
    """From one form to the other, without the batch dimension; sizes that are free (-1) keep their order."""

    source: Dims
    target: Dims

    def __call__(self, shape: Dims, batched: bool) -> Dims:
        """The other form of a tensor of that shape, which has the source's."""
        rows, dims = (shape[:1], shape[1:]) if batched else ((), shape)
        free = iter([size for size, dim in zip(dims, self.source, strict=True) if dim == -1])
        return (*rows, *[next(free) if dim == -1 else dim for dim in self.target])


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step."""

    name: str
    """For messages."""
    model: str
    version: str
    """Empty: the latest."""
    inputs: Mapping[str, tuple[str, Place]]
    """The model's input → the ensemble's tensor, and how the model takes it."""
    outputs: Mapping[str, str]
    """The ensemble's tensor → the model's output."""


class EnsemblePlan:
    """All that is the same for each request of an ensemble."""

    def __init__(self, config: ConfigDict, models: Sequence[StepModel]) -> None:
        """`models`: of each step. Raises ConfigError that names step, tensor, and what was expected."""
        steps = config["ensemble_scheduling"]["step"]
        batched = config["max_batch_size"] > 0
        self._models = tuple(models)
        self.batched = batched
        self.reshapes = {
            **{t["name"]: Reshape(tuple(t["dims"]), _dims(t)) for t in _reshaped(config, "input")},
            **{t["name"]: Reshape(_dims(t), tuple(t["dims"])) for t in _reshaped(config, "output")},
        }
        """Of the ensemble's own tensors that its client sees in another shape than its steps."""
        self.outputs = {
            t["name"]: Place(f"output '{t['name']}' of the ensemble", *_declared(t, batched))
            for t in config["output"]
        }
        self.inputs = tuple(t["name"] for t in config["input"])
        self.steps = tuple(_plan_steps(config, models))
        self._graph = Graph(graph_steps(steps))
        self._courses: dict[tuple[str, ...], Course] = {}
        _check_tensors(config, self.steps, models, self.outputs)

    def course(self, wanted: tuple[str, ...]) -> Course:
        """What has to happen for these outputs; empty: all."""
        course = self._courses.get(wanted)
        if course is None:
            if len(self._courses) >= MAX_COURSES:
                self._courses.clear()
            course = self._courses[wanted] = self._graph.course(wanted or self.outputs)
        return course

    def labels(self) -> dict[str, Sequence[str]]:
        """Class names of the outputs that the steps' models have some for."""
        found: dict[str, Sequence[str]] = {}
        for step, model in zip(self.steps, self._models, strict=True):
            for tensor, output in step.outputs.items():
                if tensor in self.outputs and output in model.labels:
                    found[tensor] = model.labels[output]
        return found


def step_versions(config: ConfigDict) -> Iterator[tuple[str, str, str]]:
    """Of each step: what messages call it, its model, and the version, empty for the latest."""
    for at, step in enumerate(config["ensemble_scheduling"]["step"]):
        version = step["model_version"]
        name = step["model_name"]
        yield step_name(at, name), name, "" if version in LATEST else str(version)


def _plan_steps(config: ConfigDict, models: Sequence[StepModel]) -> Iterator[PlannedStep]:
    steps = config["ensemble_scheduling"]["step"]
    for step, (name, model_name, version), model in zip(
        steps, step_versions(config), models, strict=True
    ):
        _check_model(name, model, config["max_batch_size"])
        batched = model.config.max_batch_size > 0
        takes = {
            t["name"]: Place(f"input '{t['name']}' of {name}", *_declared(t, batched, wire=True))
            for t in as_clients_see(model.config_dict)["input"]
        }
        _check_names(name, step, model, takes)
        yield PlannedStep(
            name,
            model_name,
            version,
            {given: (tensor, takes[given]) for given, tensor in step["input_map"].items()},
            {tensor: output for output, tensor in step["output_map"].items()},
        )


def _check_model(name: str, model: StepModel, rows: int) -> None:
    policy: Mapping[str, Any] = model.config_dict.get("model_transaction_policy") or {}
    if policy.get("decoupled"):
        raise ConfigError(
            f"{name}: its model is decoupled; expected one that gives each request exactly one response"
        )
    largest = model.config.max_batch_size
    if 0 < largest < rows:
        raise ConfigError(
            f"{name}: its model has max_batch_size {largest}; expected at least that of the ensemble, which is {rows}"
        )


def _check_names(
    name: str, step: Mapping[str, Any], model: StepModel, takes: Mapping[str, Place]
) -> None:
    for given in step["input_map"]:
        if given not in takes:
            raise ConfigError(
                f"{name}: input_map has '{given}'; expected inputs of the model: {', '.join(takes)}"
            )
    for needed, place in takes.items():
        if needed not in step["input_map"] and not place.optional:
            raise ConfigError(
                f"{name}: the model's input '{needed}' is not in input_map; expected it, for it is not optional"
            )
    outputs = [tensor.name for tensor in model.config.output]
    for given in step["output_map"]:
        if given not in outputs:
            raise ConfigError(
                f"{name}: output_map has '{given}'; expected outputs of the model: {', '.join(outputs)}"
            )


def _check_tensors(
    config: ConfigDict,
    steps: Sequence[PlannedStep],
    models: Sequence[StepModel],
    outputs: Mapping[str, Place],
) -> None:
    """Each tensor has the datatype and shape that those expect who take it. Sizes that are free are left to its
    requests."""
    batched = config["max_batch_size"] > 0
    origins = {
        t["name"]: Place(f"input '{t['name']}' of the ensemble", *_declared(t, batched))
        for t in config["input"]
    }
    for step, model in zip(steps, models, strict=True):
        gives = {t["name"]: t for t in model.config_dict["output"]}
        for tensor, output in step.outputs.items():
            declared = _declared(gives[output], model.config.max_batch_size > 0, wire=True)
            origins[tensor] = Place(f"output '{output}' of {step.name}", *declared)
    for step in steps:
        for tensor, place in step.inputs.values():
            _check_same(tensor, origins[tensor], place)
    for tensor, place in outputs.items():
        _check_same(tensor, origins[tensor], place)


def _check_same(tensor: str, origin: Place, place: Place) -> None:
    if origin.data_type != place.data_type:
        raise ConfigError(
            f"tensor '{tensor}' is {origin.data_type} as {origin.where}, but {place.where} expects {place.data_type}"
        )
    if not (fit(origin.dims, place.dims) or fit(origin.full, place.full)):
        raise ConfigError(
            f"tensor '{tensor}' has the shape {list(origin.full)} as {origin.where}, but {place.where} expects"
            f" {list(place.full)}"
        )


def _declared(tensor: Mapping[str, Any], batched: bool, *, wire: bool = False) -> Any:
    """What `Place` has of a tensor's configuration. `wire`: as clients see it, else as the model does."""
    dims = tuple(tensor["dims"]) if wire else _dims(tensor)
    return tensor["data_type"], dims, batched, bool(tensor.get("optional"))


def _dims(tensor: Mapping[str, Any]) -> Dims:
    return tuple(tensor["reshape"]["shape"] if "reshape" in tensor else tensor["dims"])


def _reshaped(config: ConfigDict, kind: str) -> list[Mapping[str, Any]]:
    return [tensor for tensor in config[kind] if "reshape" in tensor]


def fit(dims: Dims, others: Dims) -> bool:
    """Whether they can be the same; -1 is any size."""
    return len(dims) == len(others) and all(
        a == b or -1 in (a, b) for a, b in zip(dims, others, strict=True)
    )
