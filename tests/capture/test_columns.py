"""Which columns a table has."""

from __future__ import annotations

from captured import config, table, tensors_of


def test_inputs_come_first_in_the_models_order() -> None:
    model = config(input=tensors_of(B="FP32", A="INT8"), output=tensors_of(A="BYTES"))
    made = table(of=model)
    assert [column.name for column in made.columns] == ["input_B", "input_A", "output_A"]
    assert [column.datatype for column in made.inputs] == ["FP32", "INT8"]
    assert [column.shape_name for column in made.outputs] == ["shape_output_A"]


def test_only_what_the_rule_names() -> None:
    model = config(input=tensors_of(TEXT="STRING", USER="STRING", ID="INT64", SECRET="STRING"))
    made = table(
        of=model,
        tensors=("TEXT", "USER", "ID", "SECRET"),
        drop=("SEC*",),
        hash=("USER", "ID"),
        text=("*",),
    )
    assert [(column.tensor, column.kind) for column in made.columns] == [
        ("TEXT", "text"),
        ("USER", "hash"),
        ("ID", "hash"),
    ]
    assert table(of=model, tensors=()).columns == ()


def test_text_is_for_strings_alone() -> None:
    made = table(of=config(input=tensors_of(X="FP32", T="STRING")), text=("*",))
    assert [column.kind for column in made.inputs] == ["numbers", "text"]


def test_names_fit_into_delta_tables_and_are_of_one_column_each() -> None:
    names = {"a b": "FP32", "a,b": "FP32", "a_b": "FP32", "/model/out:0": "FP32"}
    made = table(of=config(input=tensors_of(**names), output=()))
    assert [column.name for column in made.columns] == [
        "input_a_b",
        "input_a_b_2",
        "input_a_b_3",
        "input_/model/out:0",
    ]
    assert [column.tensor for column in made.columns] == list(names)


def test_a_shape_is_no_other_tensors_column() -> None:
    made = table(of=config(input=tensors_of(X="FP32", shape_X="FP32"), output=()))
    names = [name for column in made.columns for name in (column.name, column.shape_name)]
    assert len(set(names)) == 4
