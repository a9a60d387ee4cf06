"""What is wrong is said in a few words, whatever it came through."""

from __future__ import annotations

import ssl

import pytest

from penstock.registry.reasons import MAX_TEXT, brief, network_reason, reason_of


def below(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] …")
    error.verify_message = "self-signed certificate"
    return error


REFUSED = ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (below(Exception("Max retries exceeded with url: /api"), REFUSED), "connection refused"),
        (OSError(Exception("HTTPConnectionPool(…)"), REFUSED), "connection refused"),
        (below(Exception("retries"), TimeoutError("timed out")), "no answer in time"),
        (below(OSError(), untrusted()), "its certificate does not hold: self-signed certificate"),
        (ssl.SSLError(1, "[SSL] …"), "no TLS: not what was expected"),
        (below(Exception("Not what it was. Body: <html>"), KeyError("k")), "Not what it was"),
        (below(Exception("x"), ValueError("no \x1b[2J such\nhost")), "no \\x1b[2J such host"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_first_cause_is_told(error: Exception, said: str) -> None:
    assert reason_of(error) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (below(Exception("Max retries exceeded with url: /api"), REFUSED), "connection refused"),
        (OSError(113, "No route to host"), "no route to host"),
        (below(Exception("retries"), TimeoutError("timed out")), "no answer in time"),
        (below(OSError(), untrusted()), "its certificate does not hold: self-signed certificate"),
        (OSError(28, "No space left on device"), ""),
        (ValueError("a b"), ""),
    ],
)
def test_what_the_network_says(error: Exception, said: str) -> None:
    assert network_reason(error) == said


def test_a_text_is_cut_between_words_and_without_credentials() -> None:
    text = brief(ValueError("at https://me:secret@host " + "word " * 100))
    assert text.startswith("at https://me:[hidden]@host word word")
    assert text.endswith("word …")
    assert len(text) <= MAX_TEXT


def test_what_leads_back_to_itself_has_an_end() -> None:
    first, second = ValueError("a b"), ValueError("c d")
    first.__context__, second.__context__ = second, first
    assert reason_of(first) == "c d"
