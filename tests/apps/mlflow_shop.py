"""A Python function for MLflow: prices of a table of orders, with texts, times, missing values and parameters."""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Shop(PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        if "broken" in model_input["item"].tolist():
            raise ValueError("a broken item can't be priced")
        price = model_input["price"] * params["factor"]
        if "discount" in model_input:
            price = price - model_input["discount"]
        day = model_input["ordered"].dt.day_name()
        return pd.DataFrame(
            {
                "label": model_input["item"] + " " + params["currency"] + " " + day.fillna("never"),
                "total": price,
                "orders": len(model_input),
            }
        )


set_model(Shop())
