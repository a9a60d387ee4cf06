"""A secret shows itself nowhere."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import msgspec
import pytest

from penstock.errors import ConfigError
from penstock.logs import JsonFormatter, LineFormatter
from penstock.secrets.secret import Secret

PLANTED = "planted-hunter2"


@pytest.fixture
def secret() -> Secret:
    return Secret(PLANTED.encode())


def test_only_reveal_and_text_give_it_away(secret: Secret) -> None:
    assert secret.reveal() == PLANTED.encode()
    assert secret.text() == PLANTED


def test_it_is_hidden_in_all_texts(secret: Secret) -> None:
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", "%s" % secret]  # noqa: UP031
    shown += [json.dumps({"a": secret}, default=str), repr([secret]), repr(vars(Holder(secret)))]
    assert all("Secret(hidden)" in text for text in shown)
    assert all(PLANTED not in text for text in shown)


class Holder:
    def __init__(self, secret: Secret) -> None:
        self.secret = secret


def test_it_is_hidden_in_log_lines_and_tracebacks(secret: Secret) -> None:
    def fail(inner: Secret) -> None:
        raise RuntimeError(f"with {inner}")

    try:
        fail(secret)
    except RuntimeError as error:
        whole = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert PLANTED not in "".join(whole.format())
    record = logging.LogRecord("x", logging.INFO, "", 1, "%s", (secret,), None)
    record.extra_one = secret
    for formatter in (LineFormatter(), JsonFormatter()):
        assert PLANTED not in formatter.format(record)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_can_not_be_pickled_or_encoded(secret: Secret, protocol: int) -> None:
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(secret, protocol)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)


def test_copies_are_the_same(secret: Secret) -> None:
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_it_equals_its_like_and_has_no_hash(secret: Secret) -> None:
    assert secret == Secret(PLANTED.encode())
    assert secret != Secret(b"other")
    assert secret != PLANTED.encode()
    with pytest.raises(TypeError):
        hash(secret)


def test_bytes_that_are_no_text_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        Secret(b"\xff" + PLANTED.encode()).text()
    whole = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert PLANTED not in "".join(whole.format())
