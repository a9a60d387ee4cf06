"""What a request asked of its outputs: which, in which order, and which as classes."""

from __future__ import annotations

from penstock.gateway.classification import classify
from penstock.repository.served_model import ServedModel
from penstock.types import OutputTensor
from penstock.workers.request import RequestPlan


def chosen_outputs(
    model: ServedModel, plan: RequestPlan, outputs: list[OutputTensor]
) -> list[OutputTensor]:
    """The outputs asked for, in the order asked. Those the model did not give are left out."""
    if plan.output_names:
        given = {output.name: output for output in outputs}
        outputs = [given[name] for name in plan.output_names if name in given]
    if not plan.classes:
        return outputs
    batched = model.config.max_batch_size > 0
    return [
        classify(output, plan.classes[output.name], model.labels.get(output.name, ()), batched)
        if output.name in plan.classes
        else output
        for output in outputs
    ]
