"""The error tree, its drawing, and the table of statuses."""

from __future__ import annotations

import importlib
import pkgutil
import re
from http import HTTPStatus
from urllib.parse import quote

import pytest

import penstock
from penstock import errors
from penstock.gateway.status import (
    HIDDEN_TEXT,
    MAX_HEADER_BYTES,
    TABLE,
    GrpcCode,
    status_of,
    text_of,
)

NOT_FOR_IMPORT = ("penstock.backends.triton", "__main__")


def subclasses(cls: type[errors.PenstockError]) -> list[type[errors.PenstockError]]:
    """The class and all of ours that derive from it."""
    derived = [sub for sub in cls.__subclasses__() if sub.__module__.startswith("penstock.")]
    return [cls, *(found for sub in derived for found in subclasses(sub))]


@pytest.fixture(scope="module", autouse=True)
def everything_imported() -> None:
    """So that no module hides an error class of its own."""
    for module in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if not module.name.startswith(NOT_FOR_IMPORT):
            importlib.import_module(module.name)


def test_the_tree_as_drawn_is_the_tree() -> None:
    assert errors.__doc__ is not None
    parents: list[str] = []
    drawn = set()
    for line in errors.__doc__.splitlines():
        match = re.match(r"([│ ]*)[├└]── (\w+)", line)
        if match:
            depth = len(match[1]) // 4
            drawn.add((match[2], parents[depth]))
            parents[depth + 1 :] = [match[2]]
        elif line == "PenstockError":
            parents = [line]
    real = {
        (cls.__name__, cls.__bases__[0].__name__)
        for cls in subclasses(errors.PenstockError)
        if cls is not errors.PenstockError
    }
    assert drawn == real
    assert len(drawn) > 10


def test_every_error_is_of_the_one_file() -> None:
    for cls in subclasses(errors.PenstockError):
        assert cls.__module__ == "penstock.errors"
        assert len(cls.__bases__) == 1


def test_every_error_has_a_status() -> None:
    for cls in subclasses(errors.PenstockError):
        status = status_of(cls("x"))
        assert status.http >= 400
        assert status.grpc is not GrpcCode.OK
        assert status in [TABLE[base] for base in cls.__mro__ if base in TABLE]


@pytest.mark.parametrize(
    ("error", "http", "grpc"),
    [
        (errors.InvalidRequest, 400, 3),
        (errors.PayloadTooLarge, 413, 8),
        (errors.AlreadyExists, 400, 6),
        (errors.NotFound, 404, 5),
        (errors.Unsupported, 501, 12),
        (errors.Unavailable, 503, 14),
        (errors.QueueFull, 503, 14),
        (errors.WorkerCrashed, 500, 13),
        (errors.DeadlineExceeded, 504, 4),
        (errors.ModelFailed, 500, 13),
        (errors.UnknownError, 400, 2),
        (errors.Cancelled, 400, 1),
        (errors.InternalError, 500, 13),
    ],
)
def test_the_statuses_that_clients_know(
    error: type[errors.PenstockError], http: int, grpc: int
) -> None:
    status = status_of(error("x"))
    assert (status.http, status.grpc) == (HTTPStatus(http), GrpcCode(grpc))


def test_whose_text_is_shown() -> None:
    assert text_of(errors.QueueFull("the text")) == "the text"
    for hidden in (errors.InternalError("secret"), errors.PenstockError("secret"), KeyError("x")):
        assert text_of(hidden) == HIDDEN_TEXT


@pytest.mark.parametrize("character", ["x", "%", "\n", "é", "電", "\U0001f600"])
@pytest.mark.parametrize("length", [10, 400, 1500, 50_000])
def test_a_text_is_never_too_long_for_a_header_of_grpc(character: str, length: int) -> None:
    """Clients take 8 KiB of headers; of more they say nothing but that."""
    text = f"boom {character * length} the end"
    shown = text_of(errors.ModelFailed(text))
    assert len(quote(shown, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")) <= MAX_HEADER_BYTES
    assert shown.startswith(f"boom {character}")
    assert shown.endswith(f"{character} the end")
    if length <= 400:
        assert shown == text


def test_what_is_a_little_too_long_loses_little() -> None:
    text = "x" * 3500 + "é" * 450
    shown = text_of(errors.ModelFailed(text))
    assert 3500 < len(shown) < len(text)
