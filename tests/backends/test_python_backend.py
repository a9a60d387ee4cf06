"""How a model.py is found and imported, and what is said when that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_files import batch_of, load_spec, whole, write_python
from penstock.backends.registry import load
from penstock.errors import LoadFailed

DOUBLE = """
    import penstock
    from penstock import Spec

    @penstock.model(inputs={"X": Spec("FP32", -1)}, outputs={"Y": Spec("FP32", -1)})
    class Double:
        def __call__(self, X):
            return {"Y": FACTOR * X}
"""


def load_error(model_dir: Path) -> str:
    with pytest.raises(LoadFailed) as caught:
        load(load_spec(model_dir, {"backend": "python"}))
    return str(caught.value)


def test_missing_file_names_the_path(model_dir: Path) -> None:
    assert load_error(model_dir).endswith(f"expected {model_dir}/1/model.py")


def test_default_model_filename(model_dir: Path) -> None:
    write_python(model_dir, "FACTOR = 2\n" + DOUBLE.replace("\n    ", "\n"), "serve.py")
    config = {"default_model_filename": "serve.py"}
    assert load(load_spec(model_dir, config)).config["output"][0]["name"] == "Y"


@pytest.mark.parametrize(
    "statement", ["from sibling_factor import FACTOR", "from .sibling_factor import FACTOR"]
)
def test_siblings_can_be_imported(statement: str, model_dir: Path) -> None:
    write_python(model_dir, "FACTOR = 3\n", "sibling_factor.py")
    write_python(model_dir, statement + "\n" + DOUBLE.replace("\n    ", "\n"))
    model = load(load_spec(model_dir))
    outputs = whole(model.execute(batch_of({"X": np.ones(2, np.float32)})))
    assert outputs["Y"].tolist() == [3, 3]


def test_neither_class_says_what_was_expected(model_dir: Path) -> None:
    write_python(model_dir, "import penstock\nclass Plain: pass\n")
    text = load_error(model_dir)
    assert "expected a class TritonPythonModel, or exactly one class decorated" in text
    assert text.endswith("found neither")


def test_two_decorated_classes_are_named(model_dir: Path) -> None:
    source = "FACTOR = 1\n" + DOUBLE.replace("\n    ", "\n")
    write_python(model_dir, source + source.replace("class Double", "class Triple"))
    assert load_error(model_dir).endswith("found Double, Triple")


def test_imported_name_of_the_same_class_is_one_class(model_dir: Path) -> None:
    write_python(model_dir, "FACTOR = 1\n" + DOUBLE.replace("\n    ", "\n") + "Again = Double\n")
    assert load(load_spec(model_dir)).config["input"][0]["name"] == "X"


def test_exception_at_import_has_type_message_and_line(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_python(model_dir, "def fail():\n    return int('x')\n\nfail()\n")
    text = load_error(model_dir)
    assert text.startswith("importing model.py failed: ValueError: invalid literal")
    assert text.endswith("(1/model.py:2)")
    assert "Traceback" not in text
    assert "Traceback" in caplog.text


def test_deepest_line_of_the_model_and_not_of_a_library(model_dir: Path) -> None:
    write_python(model_dir, "import json\n\njson.loads('{')\n")
    assert load_error(model_dir).endswith("(1/model.py:3)")


def test_line_in_a_sibling(model_dir: Path) -> None:
    write_python(model_dir, "1 / 0\n", "sibling_broken.py")
    write_python(model_dir, "import sibling_broken\n")
    assert load_error(model_dir).endswith(
        "ZeroDivisionError: division by zero (1/sibling_broken.py:1)"
    )


def test_syntax_error_has_its_line(model_dir: Path) -> None:
    write_python(model_dir, "x = 1\nx = = 2\n")
    text = load_error(model_dir)
    assert "SyntaxError: invalid syntax" in text
    assert text.endswith("(1/model.py:2)")


def test_missing_package_is_named(model_dir: Path) -> None:
    write_python(model_dir, "import sibling_that_is_not_there\n")
    assert "ModuleNotFoundError: No module named 'sibling_that_is_not_there'" in load_error(
        model_dir
    )
