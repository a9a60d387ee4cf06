"""What is refused of ragged batches, batch inputs and outputs, and padding: by key, before a worker is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.repository.config_check import check_complete
from penstock.repository.config_file import read_config
from served_models import write_config

X: dict[str, Any] = {"name": "X", "data_type": "TYPE_INT32", "dims": [-1]}
RAGGED: dict[str, Any] = {**X, "allow_ragged_batch": True}
MASK: dict[str, Any] = {"name": "MASK", "data_type": "TYPE_FP32", "dims": [-1]}
Y: dict[str, Any] = {"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}
MADE: dict[str, Any] = {
    "kind": "BATCH_ELEMENT_COUNT",
    "target_name": ["COUNT"],
    "data_type": "TYPE_INT32",
    "source_input": ["X"],
}
SCATTERED: dict[str, Any] = {"target_name": ["Y"], "source_input": ["X"]}


def complete(**changes: Any) -> dict[str, Any]:
    return {"name": "m", "max_batch_size": 8, "input": [RAGGED], "output": [Y], **changes}


def padded(*inputs: dict[str, Any], output: dict[str, Any] = Y, **texts: str) -> dict[str, Any]:
    """`texts`: what follows `padding.`, `__` for a dot."""
    texts = {"X__buckets": "4, 8", **texts}
    parameters = {
        f"padding.{key.replace('__', '.')}": {"string_value": text} for key, text in texts.items()
    }
    return complete(input=inputs or (X, MASK), output=[output], parameters=parameters)


@pytest.mark.parametrize(
    "config",
    [
        complete(),
        complete(batch_input=[MADE], batch_output=[SCATTERED]),
        complete(batch_input=[{**MADE, "data_type": "TYPE_FP32", "kind": "BATCH_ITEM_SHAPE"}]),
        complete(max_batch_size=0),
        complete(
            input=[{**RAGGED, "dims": [3]}], output=[{**Y, "dims": [3]}], batch_output=[SCATTERED]
        ),
        complete(input=[{**RAGGED, "optional": True}]),
        padded(),
        padded(X__mask="MASK", X__value="-2147483648", Y__cut_to="X"),
        padded(X, {**MASK, "dims": [1, -1, 1]}, X__mask="MASK"),
        padded({**X, "dims": [-1, -1]}, X__dimension="0"),
        padded(output={**Y, "dims": [-1, -1]}, Y__cut_to="X", Y__cut_dimension="1"),
        padded({**X, "data_type": "TYPE_FP16"}, X__value="-inf"),
    ],
)
def test_good_ones(config: dict[str, Any]) -> None:
    check_complete(config, "m")


@pytest.mark.extension("ragged_batching")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"input": [{**RAGGED, "reshape": {"shape": [1, -1]}}]},
            "input[0].reshape is given with allow_ragged_batch; expected only one of them",
        ),
        (
            {"sequence_batching": {}},
            "input[0].allow_ragged_batch is not supported beside sequence_batching; expected false",
        ),
        (
            {"batch_input": [{**MADE, "source_input": []}]},
            "batch_input[0].source_input has 0 names; expected 1, that of an input",
        ),
        (
            {"batch_input": [{**MADE, "source_input": ["Z"]}]},
            "batch_input[0].source_input[0] is 'Z'; expected one of X",
        ),
        (
            {"input": [{**RAGGED, "optional": True}], "batch_input": [MADE]},
            "batch_input[0].source_input[0] is 'X', which is optional; expected an input of all",
        ),
        (
            {"batch_input": [{**MADE, "data_type": "TYPE_INT64"}]},
            "batch_input[0].data_type is TYPE_INT64; expected TYPE_INT32 or TYPE_FP32",
        ),
        (
            {"batch_input": [{**MADE, "target_name": []}]},
            "batch_input[0].target_name is not given; expected the name of the model's input",
        ),
        (
            {"batch_input": [{**MADE, "target_name": ["X"]}]},
            "batch_input[0].target_name[0] is 'X'; expected an input that is not among those of",
        ),
        (
            {"batch_input": [MADE, {**MADE, "target_name": ["B", "COUNT"]}]},
            "batch_input[1].target_name[1] is 'COUNT' again; expected each name once",
        ),
        (
            {"batch_output": [{**SCATTERED, "target_name": []}]},
            "batch_output[0].target_name is not given; expected the name of an output",
        ),
        (
            {"batch_output": [{**SCATTERED, "target_name": ["Z"]}]},
            "batch_output[0].target_name[0] is 'Z'; expected one of Y",
        ),
        (
            {"batch_output": [SCATTERED], "output": [{**Y, "dims": [-1, -1]}]},
            "batch_output[0].target_name[0] is 'Y' with dims [-1, -1]; expected dimensions of any",
        ),
        (
            {"batch_output": [SCATTERED], "output": [{**Y, "reshape": {"shape": [1, -1]}}]},
            "batch_output[0].target_name[0] is 'Y', which has reshape; expected an output without",
        ),
        (
            {"batch_output": [{**SCATTERED, "source_input": ["X", "X"]}]},
            "batch_output[0].source_input has 2 names; expected 1, that of an input",
        ),
        (
            {"max_batch_size": 0, "batch_input": [MADE]},
            "batch_input is given with max_batch_size 0; expected a model that takes batches",
        ),
        (
            {"input": [X], "batch_input": [MADE], "sequence_batching": {}},
            "batch_input is not supported beside sequence_batching; expected only one of them",
        ),
    ],
)
def test_wrong_ragged_ones(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_complete(complete(**changes), "m")
    assert str(caught.value).startswith(f"m: {expected}")


@pytest.mark.extension("padded_buckets")
@pytest.mark.parametrize(
    ("config", "key", "expected"),
    [
        (padded(X__buckets="x"), "X.buckets", "is 'x'; expected ascending sizes"),
        (padded(RAGGED), "X.buckets", "is for an input with allow_ragged_batch; expected only one"),
        (padded({**X, "reshape": {"shape": [1, -1]}}), "X.buckets", "is for an input with reshape"),
        (padded({**X, "data_type": "TYPE_STRING"}), "X.buckets", "is for TYPE_STRING, which can't"),
        (padded(X__value="1.5"), "X.value", "is 1.5; expected an integer from -2147483648 to"),
        (padded(X__value="3e9"), "X.value", "is 3e+09; expected an integer from -2147483648 to"),
        (padded(X__value="nan"), "X.value", "is nan; expected an integer from -2147483648 to"),
        (
            padded({**X, "data_type": "TYPE_BOOL"}, X__value="2"),
            "X.value",
            "is 2; expected an integer from 0 to 1, which BOOL has",
        ),
        (
            padded({**X, "data_type": "TYPE_FP16"}, X__value="1e9"),
            "X.value",
            "is 1e+09; expected a number that FP16 has",
        ),
        (
            padded({**X, "dims": [-1, -1]}),
            "X.dimension",
            "is not given; expected a dimension of any size: 0, 1",
        ),
        (
            padded({**X, "dims": [3]}),
            "X.dimension",
            "is not given; expected a dimension of any size: there is none",
        ),
        (
            padded({**X, "dims": [3, -1]}, X__dimension="0"),
            "X.dimension",
            "is 0; expected a dimension of any size: 1",
        ),
        (padded(Z__buckets="4"), "Z.buckets", "names 'Z'; expected an input of the model: X, MASK"),
        (padded(X__mask="Z"), "X.mask", "names 'Z'; expected an input of the model: X, MASK"),
        (
            padded(X, {**MASK, "dims": [-1, 2]}, X__mask="MASK"),
            "X.mask",
            "is 'MASK' with dims [-1, 2]; expected one of any size, and no others but 1",
        ),
        (
            padded(X, {**MASK, "data_type": "TYPE_STRING"}, X__mask="MASK"),
            "X.mask",
            "is 'MASK', which is TYPE_STRING; expected an input of numbers or TYPE_BOOL",
        ),
        (
            padded(X, MASK, X__mask="MASK", MASK__buckets="4"),
            "X.mask",
            "is 'MASK'; expected an input that nothing else fills",
        ),
        (
            padded(Y__cut_to="MASK"),
            "Y.cut_to",
            "is 'MASK'; expected a padded input: X",
        ),
        (
            padded({**X, "optional": True}, MASK, Y__cut_to="X"),
            "Y.cut_to",
            "is 'X', which is optional; expected an input of all requests",
        ),
        (padded(Z__cut_to="X"), "Z.cut_to", "names 'Z'; expected an output of the model: Y"),
        (
            padded(output={**Y, "dims": [4]}, Y__cut_to="X"),
            "Y.cut_dimension",
            "is not given; expected a dimension of any size: there is none",
        ),
        (
            padded(output={**Y, "reshape": {"shape": [1, -1]}}, Y__cut_to="X"),
            "Y.cut_to",
            "is for an output with reshape; expected only one of them",
        ),
        (
            padded() | {"max_batch_size": 0},
            "X.buckets",
            "is given with max_batch_size 0; expected a model that takes batches",
        ),
        (
            padded() | {"sequence_batching": {}},
            "X.buckets",
            "is not supported beside sequence_batching; expected only one of them",
        ),
    ],
)
def test_wrong_padding(config: dict[str, Any], key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_complete(config, "m")
    assert str(caught.value).startswith(f"m: parameters['padding.{key}'] {expected}")


@pytest.mark.extension("padded_buckets")
def test_an_output_is_cut_or_scattered(tmp_path: Path) -> None:
    config = padded(Y__cut_to="X") | {"batch_output": [SCATTERED]}
    with pytest.raises(ConfigError, match=r"batch_output\[0\].target_name\[0\] is 'Y' again"):
        check_complete(config, "m")


@pytest.mark.extension("padded_buckets")
def test_a_file_is_refused_by_its_line(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    write_config(
        folder,
        """
        max_batch_size: 4
        input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
        parameters { key: "padding.X.buckets" value { string_value: "8" } }
        parameters { key: "padding.X.value" value { string_value: "much" } }
        """,
    )
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    assert str(caught.value) == (
        f"{folder}/config.pbtxt:5: parameters['padding.X.value'] is 'much'; expected a number"
    )


@pytest.mark.extension("padded_buckets")
def test_inputs_that_are_left_to_the_model_may_be_padded(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "parameters: {padding.X.buckets: '8, 16', padding.X.mask: MASK, padding.Y.cut_to: X}\n"
    )
    assert read_config(folder) is not None
