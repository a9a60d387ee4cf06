"""A Python function for MLflow whose type hints say what it takes."""

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Shout(PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:  # type: ignore[override]
        return [text.upper() for text in model_input]


set_model(Shout())
