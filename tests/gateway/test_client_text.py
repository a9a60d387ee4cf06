"""What clients are told of foreign texts."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import errors
from penstock.gateway.client_text import told, without_inner_parts
from penstock.gateway.status import text_of
from penstock.workers.gather import error_of
from penstock.workers.message_parts import RequestError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # nothing to hide
        ("no such user", "no such user"),
        ("ValueError: oh", "ValueError: oh"),
        ("1/model.py:12: x", "1/model.py:12: x"),
        ("5 m/s and/or 3", "5 m/s and/or 3"),
        ("a / b", "a / b"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("set it in penstock.toml", "set it in penstock.toml"),
        # paths
        ("expected /srv/models/foo/1/model.onnx", "expected 1/model.onnx"),
        ("/srv/models/foo/config.pbtxt:3:7: not a key", "config.pbtxt:3:7: not a key"),
        ("no version in /srv/models/foo.", "no version in …."),
        ("/data7/x/3 holds two files", "…/3 holds two files"),
        ("[Errno 2] No such file: '/home/alice/w.bin'", "[Errno 2] No such file: '…'"),
        ("can't open /tmp", "can't open …"),
        ("in /root: no", "in …: no"),
        ("~/secret and ~/a/b", "… and …"),
        ("file:///srv/a and //srv/b", "… and …"),
        ("path=/opt/ml/x,/opt/ml/y", "path=…,…"),
        ("in (/a/b)", "in (…)"),
        ("from:/srv/models/x failed:File doesn't exist", "from:… failed:File doesn't exist"),
        # tracebacks, installed packages, our own code, addresses
        ("it said Traceback (most recent call last): File x, in y ValueError: z", "it said …"),
        ('File "/a/b.py", line 3, in <module> boom', "… boom"),
        ("site-packages/onnxruntime/x.py: bad", "… bad"),
        ("<penstock.workers.streams.X object at 0x7f00deadbeef>", "<… object>"),
        ("No module named 'penstock_kernels.ops'", "No module named '…'"),
    ],
)
def test_what_is_left_out(text: str, shown: str) -> None:
    assert without_inner_parts(text) == shown


@given(
    st.lists(
        st.sampled_from(
            ["/srv/models/m", "/home/al", "x", " ", "'", ":", "penstock.a.b", "1/", "\n"]
        )
    ).map("".join)
)
def test_nothing_of_it_is_left(text: str) -> None:
    shown = without_inner_parts(text)
    assert not re.search(r"(?<![\w./])/(srv|home)/", shown)
    assert "penstock." not in shown or re.search(r"\wpenstock\.", text)


def test_long_texts_are_no_work() -> None:
    for text in ("/" * 200_000, "/a" * 100_000, "~" * 200_000, "/srv " * 40_000, ":1" * 100_000):
        without_inner_parts(text)


def test_the_whole_is_in_the_log_under_what_the_client_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = "can't open /srv/secret/file"
    with caplog.at_level(logging.WARNING):
        first, again = told(whole), told(whole)
    found = re.fullmatch(r"can't open … \[([0-9a-f]{8}) in the server's log\]", first)
    assert found
    assert first == again
    (line,) = [record.getMessage() for record in caplog.records]
    assert found[1] in line
    assert whole in line


def test_which_errors_are_foreign() -> None:
    path = "see /srv/a/b"
    for error in (errors.ModelFailed, errors.LoadFailed, errors.ConfigError, errors.QueueFull):
        assert "/srv" not in text_of(error(path))
    # the client's own words
    assert text_of(errors.InvalidRequest(path)) == path


@pytest.mark.parametrize("kind", ["InvalidRequest", "NotFound", "ModelFailed", "nonsense"])
def test_what_a_model_says_is_foreign_whatever_kind_it_claims(kind: str) -> None:
    assert "/srv" not in text_of(error_of(RequestError(0, "see /srv/a/b", kind)))
