"""Classes decorated with `penstock.model`: declaration, configuration, calls, and what they may return."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_files import batch_of, each, load_spec, whole, write_python
from penstock.backends.base import LoadedModel
from penstock.backends.registry import load
from penstock.errors import LoadFailed, ModelFailed
from penstock.model_api import MODEL_ATTRIBUTE, ModelDeclaration, Spec, model
from penstock.model_config import ConfigDict, parse

FILE_DEFAULTS: ConfigDict = {"max_batch_size": 0, "input": [], "output": [], "instance_group": []}

CLASS = """
import numpy as np
import penstock
from penstock import Context, Spec

@penstock.model(
    inputs={"A": Spec("FP32", 2), "B": Spec("FP32", 2, optional=True)},
    outputs={"SUM": Spec("FP32", 2, labels="labels.txt")},
    max_batch_size=16,
    max_queue_delay_us=300,
    instances=2,
)
class AddSub:
"""
ADD = """
    def __call__(self, A, B=1):
        if (A < 0).any():
            raise ValueError("negative")
        return {"SUM": A + np.float32(B)}
"""


def loaded(model_dir: Path, body: str, config: ConfigDict | None = None) -> LoadedModel:
    write_python(model_dir, CLASS + body)
    return load(load_spec(model_dir, config, threads=3))


def row(*values: float) -> dict[str, np.ndarray]:
    return {"A": np.array([values], np.float32)}


@pytest.mark.parametrize("given", [{}, FILE_DEFAULTS])
def test_declaration_fills_the_configuration(given: ConfigDict, model_dir: Path) -> None:
    config = loaded(model_dir, ADD, given).config
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": 300}
    assert config["instance_group"] == [{"kind": "KIND_CPU", "count": 2}]
    parsed = parse(config)
    assert [(t.name, t.datatype, t.dims, t.optional) for t in parsed.input] == [
        ("A", "FP32", (2,), False),
        ("B", "FP32", (2,), True),
    ]
    assert parsed.output[0].label_filename == "labels.txt"


def test_configuration_wins(model_dir: Path) -> None:
    given = {
        "max_batch_size": 4,
        "dynamic_batching": {},
        "instance_group": [{"count": 5}],
        "output": [
            {"name": "SUM", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "mine.txt"}
        ],
    }
    config = loaded(model_dir, ADD, given).config
    assert {key: config[key] for key in given} == given


def test_max_batch_size_0_beside_explicit_tensors_is_kept(model_dir: Path) -> None:
    given = {"output": [{"name": "SUM", "data_type": "TYPE_FP32", "dims": [2]}]}
    model = loaded(model_dir, ADD, given)
    assert model.config["max_batch_size"] == 0
    assert "dynamic_batching" not in model.config
    outputs = whole(model.execute(batch_of({"A": np.ones(2, np.float32)})))
    assert outputs["SUM"].tolist() == [2, 2]


def test_contradiction_names_the_tensor(model_dir: Path) -> None:
    given = {
        "max_batch_size": 4,
        "output": [{"name": "SUM", "data_type": "TYPE_FP64", "dims": [2]}],
    }
    with pytest.raises(LoadFailed, match="output 'SUM': the model has TYPE_FP32"):
        loaded(model_dir, ADD, given)


def test_optional_input_is_not_passed_when_absent(model_dir: Path) -> None:
    model = loaded(model_dir, ADD)
    assert whole(model.execute(batch_of(row(1, 2), row(3, 4))))["SUM"].tolist() == [[2, 3], [4, 5]]
    both = row(1, 2) | {"B": np.array([[10, 20]], np.float32)}
    assert whole(model.execute(batch_of(both)))["SUM"].tolist() == [[11, 22]]


def test_failing_request_is_isolated(model_dir: Path) -> None:
    answers = each(loaded(model_dir, ADD).execute(batch_of(row(1, 1), row(-1, 1), row(2, 2))))
    assert answers[0]["SUM"].tolist() == [[2, 2]]
    assert isinstance(answers[1], ModelFailed)
    assert str(answers[1]) == "ValueError: negative"
    assert answers[2]["SUM"].tolist() == [[3, 3]]


def test_inputs_are_read_only(model_dir: Path) -> None:
    model = loaded(model_dir, "    def __call__(self, A, B=0):\n        A += 1\n")
    batch = batch_of(row(1, 1))
    batch.inputs["A"].flags.writeable = True
    with pytest.raises(ModelFailed, match="read-only"):
        model.execute(batch)
    assert batch.inputs["A"].tolist() == [[1, 1]]


def returning(expression: str) -> str:
    return f"    def __call__(self, A, B=0):\n        return {expression}\n"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("A", "returned ndarray, expected a dict with SUM"),
        ("None", "returned NoneType"),
        ("{}", "returned a dict with nothing, expected a dict with SUM"),
        ("{'SUM': A, 'MORE': A}", "returned a dict with SUM, MORE"),
        (
            "{'SUM': A.astype('float64')}",
            r"output 'SUM' has dtype float64, expected float32 \(FP32\)",
        ),
        ("{'SUM': A[:0]}", r"output 'SUM' has shape \[0, 2\], expected first dimension 1"),
        ("{'SUM': A[:, :1]}", r"output 'SUM' has shape \[1, 1\], expected \[-1, 2\]"),
        ("{'SUM': A[:, 0]}", r"output 'SUM' has shape \[1\], expected \[-1, 2\]"),
    ],
)
def test_wrong_output_is_named(expression: str, text: str, model_dir: Path) -> None:
    with pytest.raises(ModelFailed, match=text):
        loaded(model_dir, returning(expression)).execute(batch_of(row(1, 1)))


def test_context(model_dir: Path) -> None:
    body = """
    def __init__(self, context: Context) -> None:
        raise ValueError(repr(context))

    def __call__(self, A, B=0): ...
"""
    with pytest.raises(LoadFailed) as caught:
        loaded(model_dir, body, {"parameters": {"key": {"string_value": "value"}}})
    text = str(caught.value)
    assert text.startswith("AddSub.__init__ failed: ValueError: Context(name='tiny', version=1")
    assert f"directory={model_dir / '1'!r}, device='cpu', threads=3" in text
    assert "parameters={'key': 'value'}" in text
    assert text.endswith("(1/model.py:16)")


def test_on_any_gpu_the_context_has_the_only_one_it_sees(model_dir: Path) -> None:
    body = """
    def __init__(self, context: Context) -> None:
        self.fallback = f"on {context.device}"

    def __call__(self, A, B=0): ...
"""
    write_python(model_dir, CLASS + body)
    model = load(replace(load_spec(model_dir), device="cuda:3"))
    assert getattr(model, "fallback", "") == "on cuda:0"


def test_init_without_context_and_close(
    model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "    def __init__(self):\n        self.word = 'closed'\n" + ADD
    loaded(model_dir, body + "    def close(self):\n        print(self.word)\n").close()
    assert capsys.readouterr().out == "closed\n"


def test_close_that_raises_is_logged(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(model_dir, ADD + "    def close(self):\n        raise ValueError('late')\n").close()
    assert "ValueError: late" in caplog.text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("    pass\n", "class AddSub has no method __call__"),
        (
            "    def __call__(self, X): ...\n",
            r"AddSub\.__call__\(self, X\) can't be called with.* A:",
        ),
        ("    def __call__(self, A): ...\n", "can't be called with the declared inputs A, B"),
        ("    def __call__(self, A, B): ...\n", "can't be called with the declared inputs A:"),
    ],
)
def test_call_that_can_not_take_the_inputs_is_refused(
    body: str, text: str, model_dir: Path
) -> None:
    with pytest.raises(LoadFailed, match=text):
        loaded(model_dir, body)


def test_bytes_in_and_out(model_dir: Path) -> None:
    write_python(
        model_dir,
        """
        import numpy as np
        import penstock
        from penstock import Spec

        @penstock.model(inputs={"T": Spec("BYTES", 1)}, outputs={"U": Spec("BYTES", 1)}, max_batch_size=4)
        class Upper:
            def __call__(self, T):
                return {"U": np.array([[text.decode().upper()] for text in T[:, 0]])}
        """,
    )
    texts = [{"T": np.array([[text]], dtype=np.object_)} for text in (b"a", "é".encode())]
    outputs = whole(load(load_spec(model_dir)).execute(batch_of(*texts)))
    assert outputs["U"].tolist() == [[b"A"], ["É".encode()]]


def test_declaration_is_left_on_the_class() -> None:
    spec = Spec("FP32", 3, -1)

    @model(inputs={"X": spec}, outputs={"Y": spec})
    class Model: ...

    declaration = getattr(Model, MODEL_ATTRIBUTE)
    assert declaration == ModelDeclaration({"X": spec}, {"Y": spec}, 0, 0, 1)
    assert repr(spec) == "Spec('FP32', 3, -1)"


def test_wrong_declaration_is_refused() -> None:
    with pytest.raises(ValueError, match="datatype 'float32', expected one of BOOL"):
        Spec("float32")
    with pytest.raises(ValueError, match="dims"):
        Spec("FP32", -2)
    spec = {"X": Spec("FP32")}
    with pytest.raises(ValueError, match="at least one input"):
        model(inputs={}, outputs=spec)
    with pytest.raises(ValueError, match="instances=0"):
        model(inputs=spec, outputs=spec, instances=0)
