"""What has killed is recognised for a while, and nothing else is."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.scheduling.quarantine import MAX_REMEMBERED, Quarantine


@dataclass
class Request:
    """A request that counts how often its digest is asked for."""

    text: bytes
    digests: int = 0

    @property
    def input_bytes(self) -> int:
        return len(self.text)

    def digest(self) -> bytes:
        self.digests += 1
        return self.text


def test_what_was_added_is_recognised_until_its_time_is_over() -> None:
    quarantine = Quarantine(1000)
    assert not quarantine
    quarantine.add(Request(b"bad"), "it kills", 5)
    assert quarantine.reason(Request(b"bad"), 1004) == "it kills"
    assert quarantine.reason(Request(b"bay"), 1004) == ""
    assert quarantine.listing(505) == [(b"bad".hex(), "it kills", 0.0005)]
    assert quarantine.reason(Request(b"bad"), 1005) == ""
    assert not quarantine


def test_only_requests_as_long_as_a_bad_one_cost_a_digest() -> None:
    quarantine = Quarantine(1000)
    quarantine.add(Request(b"bad"), "it kills", 0)
    other = Request(b"longer")
    assert quarantine.reason(other, 1) == ""
    assert other.digests == 0


def test_it_does_not_grow_for_ever() -> None:
    quarantine = Quarantine(1e9)
    for number in range(MAX_REMEMBERED + 10):
        quarantine.add(Request(str(number).encode()), "it kills", number)
    assert len(quarantine.listing(0)) == MAX_REMEMBERED
    assert quarantine.reason(Request(b"0"), 0) == ""
    assert quarantine.reason(Request(str(MAX_REMEMBERED).encode()), 0) == "it kills"


def test_no_time_remembers_nothing() -> None:
    quarantine = Quarantine(0)
    quarantine.add(Request(b"bad"), "it kills", 5)
    assert quarantine.reason(Request(b"bad"), 5) == ""
