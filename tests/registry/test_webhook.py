"""MLflow's webhooks: its own signatures hold, all others don't."""

from __future__ import annotations

import pytest

from penstock.errors import Unauthenticated
from penstock.registry.webhook import check_webhook
from signed_webhooks import BODY, SECRET, sign


def check(
    signature: bytes, now_s: float = 1000, delivery: bytes = b"d1", at: bytes = b"1000"
) -> None:
    check_webhook(
        SECRET, signature=signature, delivery=delivery, timestamp=at, body=BODY, now_s=now_s
    )


def test_those_that_mlflow_signs_hold() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    theirs = _generate_hmac_signature(SECRET.decode(), "d1", "1000", BODY.decode())
    assert theirs.encode() == sign()
    check(sign())
    check(sign(), now_s=1299)
    check(sign(), now_s=701)
    # one of several, as while the secret is changed
    check(sign(secret=b"other") + b" " + sign())


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (b"", "a header of the signature is missing"),
        (sign(secret=b"other"), "its signature does not fit"),
        (sign(body=b"{}"), "its signature does not fit"),
        (sign(delivery="d2"), "its signature does not fit"),
        (sign(at="1001"), "its signature does not fit"),
        (sign().removeprefix(b"v1,"), "its signature does not fit"),
        (b"v2," + sign().removeprefix(b"v1,"), "its signature does not fit"),
        (b"v1,", "its signature does not fit"),
        (b"v1,\xff", "its signature does not fit"),
        (b"x" * 5000, "a header of the signature is too long"),
    ],
)
def test_others_don_t(signature: bytes, why: str) -> None:
    with pytest.raises(Unauthenticated) as error:
        check(signature)
    assert error.value.reason == why
    assert str(error.value) == "the webhook is not signed as it should be"


@pytest.mark.parametrize("secret", [b"", b" \n"])
def test_nothing_is_signed_with_a_blank_secret(secret: bytes) -> None:
    signature = sign(secret=secret)
    with pytest.raises(Unauthenticated) as error:
        check_webhook(
            secret, signature=signature, delivery=b"d1", timestamp=b"1000", body=BODY, now_s=1000
        )
    assert error.value.reason == "the secret is blank"


@pytest.mark.parametrize("now_s", [1301, 699])
def test_old_ones_don_t(now_s: float) -> None:
    with pytest.raises(Unauthenticated) as error:
        check(sign(), now_s=now_s)
    assert error.value.reason == "it is too old, or from the future"


@pytest.mark.parametrize("at", [b"x", b"-1", b"1" * 20, b""])
def test_times_that_are_none(at: bytes) -> None:
    with pytest.raises(Unauthenticated):
        check(sign(at=at.decode()), at=at)
