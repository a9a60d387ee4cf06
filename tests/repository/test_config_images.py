"""What is refused of inputs for images: by key, before a worker is started where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from image_models import image_lines
from penstock.errors import ConfigError
from penstock.repository.config_check import check_complete
from penstock.repository.config_file import read_config
from served_models import write_config

pytestmark = pytest.mark.extension("images")

X: dict[str, Any] = {"name": "X", "data_type": "TYPE_FP32", "dims": [3, 8, 8]}
Y: dict[str, Any] = {"name": "Y", "data_type": "TYPE_FP32", "dims": [3]}
RESIZE = "parameters['image.X.resize']"


def complete(*inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    parameters = {"image.X.resize": {"string_value": "crop"}, **changes.pop("parameters", {})}
    given = {"name": "m", "max_batch_size": 8, "input": inputs or (X,), "output": [Y]}
    return {**given, "parameters": parameters, **changes}


@pytest.mark.parametrize(
    "config",
    [
        complete(),
        complete(max_batch_size=0),
        complete({**X, "data_type": "TYPE_BF16"}),
        complete({**X, "dims": [1, -1, -1]}, parameters={"image.X.size": {"string_value": "4,4"}}),
        complete(X, {**X, "name": "Z", "data_type": "TYPE_INT8"}),
    ],
)
def test_good_ones(config: dict[str, Any]) -> None:
    check_complete(config, "m")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            complete({**X, "data_type": "TYPE_UINT8"}),
            f"{RESIZE} is for TYPE_UINT8; expected TYPE_FP32, TYPE_FP16, TYPE_BF16: the model's own"
            " input",
        ),
        (complete({**X, "dims": [3]}), f"{RESIZE} is for dims [3]; expected [C, H, W]"),
        (
            complete({**X, "dims": [3, -1, 8]}),
            "parameters['image.X.size'] is not given, and the model's input has any: dims [-1, 8];"
            " expected height and width",
        ),
        (
            complete({**X, "reshape": {"shape": [192]}}),
            f"{RESIZE} is for an input with reshape; expected only one of them",
        ),
        (
            complete({**X, "name": "Z"}),
            f"{RESIZE} names 'X'; expected an input of the model: Z",
        ),
        (
            complete(
                {**X, "dims": [3, -1, 8]},
                parameters={
                    "padding.X.buckets": {"string_value": "8"},
                    "image.X.size": {"string_value": "8,8"},
                },
            ),
            f"{RESIZE} is for an input of padding.X; expected only one of them",
        ),
        (
            complete(sequence_batching={"direct": {}}),
            f"{RESIZE} is not supported beside sequence_batching; expected only one of them",
        ),
        (
            complete(
                batch_input=[
                    {
                        "kind": "BATCH_ELEMENT_COUNT",
                        "target_name": ["COUNT"],
                        "data_type": "TYPE_INT32",
                        "source_input": ["X"],
                    }
                ]
            ),
            "batch_input[0].source_input is 'X', which images are sent to; expected another input",
        ),
    ],
)
def test_bad_ones(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_complete(config, "m")
    assert str(caught.value) == f"m: {expected}"


def test_the_file_s_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_config(tmp_path / "m", f'backend: "onnxruntime"\n{image_lines({"resize": "cut"})}')
    with pytest.raises(
        ConfigError, match=r"config\.pbtxt:\d+: .*'image\.IMAGE\.resize'.* is 'cut'"
    ):
        read_config(tmp_path / "m")
