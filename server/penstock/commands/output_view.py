"""A prediction for a person (tables) or for a program (JSON)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.commands.v2_client import OutputData, Prediction
from penstock.types import Array

_BAR_CELLS: Final = 20


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of one row: the classification extension's `value:index[:label]`."""

    score: float
    index: int
    label: str


def classes_of(output: OutputData) -> list[list[ClassScore]]:
    """The classes of each row, best first."""
    width = output.array.shape[-1] if output.array.ndim else 1
    return [[_class_score(item) for item in row] for row in output.array.reshape(-1, width)]


def as_json(prediction: Prediction, model: str, classified: frozenset[str]) -> str:
    """The prediction as indented JSON; `classified` names the outputs that came as classes."""
    outputs = [_output_json(output, output.name in classified) for output in prediction.outputs]
    answer = {"model": model, "version": prediction.model_version, "outputs": outputs}
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()


def as_tables(
    prediction: Prediction, model: str, classified: frozenset[str], elapsed_ms: float
) -> RenderableType:
    """The prediction as tables: one for each output that came as classes, one for the others."""
    version = f" {prediction.model_version}" if prediction.model_version else ""
    title = Text.assemble((f"{model}{version}", "bold"), (f"  {elapsed_ms:.1f} ms", "dim"))
    tables = [_class_table(o) for o in prediction.outputs if o.name in classified]
    others = [output for output in prediction.outputs if output.name not in classified]
    return Group(title, *tables, *([_value_table(others)] if others else []))


def _class_score(item: bytes) -> ClassScore:
    score, index, *label = item.decode("utf-8", "replace").split(":", 2)
    return ClassScore(float(score), int(index), label[0] if label else "")


def _class_table(output: OutputData) -> Table:
    rows = classes_of(output)
    table = Table()
    if len(rows) > 1:
        table.add_column("row", justify="right")
    table.add_column(Text(output.name), style="cyan")
    table.add_column("score", justify="right")
    if all(0 <= item.score <= 1 for row in rows for item in row):
        table.add_column("", width=_BAR_CELLS, style="green")
    for number, row in enumerate(rows):
        for rank, item in enumerate(row):
            cells: list[Text | str] = [Text(item.label or str(item.index)), f"{item.score:.4f}"]
            bar = "█" * round(max(0.0, min(1.0, item.score)) * _BAR_CELLS)
            lead = [str(number) if rank == 0 else ""] if len(rows) > 1 else []
            table.add_row(*[*lead, *cells, bar][: len(table.columns)])
    return table


def _value_table(outputs: list[OutputData]) -> Table:
    table = Table("output", "datatype", "shape", "values")
    for output in outputs:
        shape = str(list(output.array.shape))
        table.add_row(Text(output.name, "cyan"), output.datatype, Text(shape), _preview(output))
    return table


def _preview(output: OutputData) -> Text:
    shown = np.array2string(
        np.array(_jsonable(output.array)), precision=4, threshold=24, edgeitems=3, max_line_width=60
    )
    return Text(shown)


def _output_json(output: OutputData, is_classified: bool) -> dict[str, Any]:
    described = {"name": output.name, "datatype": output.datatype, "shape": output.array.shape}
    if is_classified:
        return {"name": output.name, "classes": classes_of(output)}
    return {**described, "data": _jsonable(output.array)}


def _jsonable(array: Array) -> Any:
    """Nested lists; BYTES as text, with replacement characters for what is not UTF-8."""
    if array.dtype.kind == "O":
        texts = [item.decode("utf-8", "replace") for item in array.ravel()]
        return np.array(texts, np.object_).reshape(array.shape).tolist()
    return (array if array.dtype.kind in "biuf" else array.astype(np.float32)).tolist()
