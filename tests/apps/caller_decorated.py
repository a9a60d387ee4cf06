"""The nicer way to ask another model: Y is what the model of the parameter `ask` makes of X, and one more."""

import penstock
from penstock import Context, Spec
from penstock.types import Array


@penstock.model(inputs={"X": Spec("FP32", -1)}, outputs={"Y": Spec("FP32", -1)}, max_batch_size=8)
class OneMore:
    """X to another model, and what it answers plus one."""

    def __init__(self, context: Context) -> None:
        self._ask = context.parameters["ask"]
        self._infer = context.infer

    def __call__(self, X: Array) -> dict[str, Array]:
        """One row a row."""
        return {"Y": self._infer(self._ask, {"X": X}, outputs=["Y"])["Y"] + 1}
