"""References to registered models: what they may look like, and what is said of others."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock.errors import InvalidRequest
from penstock.registry_config import RegistrySettings
from penstock.registry_refs import RegistryRef, is_ref, parse_part, parse_ref, parse_refs


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("models:/digits@champion", RegistryRef("digits", "digits", ("champion",))),
        ("models:/digits@a,b_1,c-2", RegistryRef("digits", "digits", ("a", "b_1", "c-2"))),
        ("models:/digits/3", RegistryRef("digits", "digits", (), 3)),
        ("models:/digits", RegistryRef("digits", "digits")),
        ("small=models:/digits@champion", RegistryRef("small", "digits", ("champion",))),
        ("models:/my model.v2/3", RegistryRef("my model.v2", "my model.v2", (), 3)),
    ],
)
def test_a_reference_is_parsed_and_written_as_it_was(text: str, ref: RegistryRef) -> None:
    assert is_ref(text)
    assert parse_ref(text) == ref
    assert str(ref) == text


def test_its_parts() -> None:
    assert parse_ref("models:/m@a,b").parts == ("@a", "@b")
    assert parse_ref("models:/m/3").parts == ("3",)
    assert parse_ref("models:/m").parts == ("",)
    assert parse_ref("models:/m@a", "folder").name == "folder"
    assert parse_ref("own=models:/m@a", "folder").name == "own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:m", "no reference to a registered model: expected models:/NAME"),
        ("models:/", "names no registered model"),
        ("models:/ @a", "names no registered model"),
        ("models:/m/", "'' is no version, expected a number from 1 on"),
        ("models:/m/0", "'0' is no version"),
        ("models:/m/latest", "'latest' is no version"),
        ("models:/m/1/x", "'1/x' is no version"),
        ("models:/m@", "'' is no alias, expected letters, digits"),
        ("models:/m@a,", "'' is no alias"),
        ("models:/m@a b", "'a b' is no alias"),
        ("models:/m@latest", "MLflow has no alias latest: expected models:/NAME"),
        ("models:/m@v3", "MLflow has no alias v3"),
        ("models:/m'--@a", "names no registered model"),
        (".x=models:/m@a", "can't be served as '.x', which is no name of a folder"),
        ("__x=models:/m@a", "can't be served as '__x'"),
        ("models:/..@a", "can't be served as '..'"),
        (f"{'é' * 200}=models:/m", "which is no name of a folder"),
    ],
)
def test_what_is_none(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_ref(text)
    assert said in str(error.value)


def test_folders_are_no_references() -> None:
    assert not any(map(is_ref, ("./models", "models", "/models:/x", "a/b=models", "C=D")))


def test_one_name_is_one_model() -> None:
    refs = parse_refs(["models:/m@a", "models:/m/2", "models:/m@a"])
    assert [str(ref) for ref in refs] == ["models:/m@a", "models:/m/2"]
    with pytest.raises(InvalidRequest, match="would be served under the same name, 'm'"):
        parse_refs(["models:/m@a", "m=models:/other@a"])


def test_one_part_as_a_person_writes_it() -> None:
    assert [parse_part(text) for text in ("@a", "4", "", "latest", "models:/m@a", "models:/m")] == [
        *("@a", "4", "", "", "@a", "")
    ]
    for text in ("challenger", "@", "0", "models:/m@a,b", "-1"):
        with pytest.raises(InvalidRequest):
            parse_part(text)


def test_settings_split_references_at_commas_that_end_them() -> None:
    settings = RegistrySettings.model_validate({"models": "models:/a@x,y,b=models:/c/3,models:/d"})
    assert settings.models == ("models:/a@x,y", "b=models:/c/3", "models:/d")
    assert [ref.name for ref in settings.refs] == ["a", "b", "d"]
    assert settings.given
    assert not RegistrySettings().given


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"models": ["models:/a@"]}, "is no alias"),
        ({"uri": "https://user:secret-word@host"}, "expected username and password, or uri_secret"),
        ({"uri": "postgresql://u:secret-word@host/db"}, "or uri_secret"),
        ({"uri": "http://h", "uri_secret": "env:U"}, "expected only one of them"),
        ({"username": "env:U"}, "expected both or none"),
        ({"token": "env:T", "username": "env:U", "password": "env:P"}, "exclude each other"),
        ({"poll_secs": 0}, "greater than 0"),
        ({"server_id": 'a"b'}, "pattern"),
    ],
)
def test_settings_that_are_wrong(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        RegistrySettings.model_validate(values)
    messages = [each["msg"] for each in error.value.errors()]
    assert said in messages[0]
    assert "secret-word" not in messages[0]
