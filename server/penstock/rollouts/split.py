"""Which requests the candidate gets: a stable hash, so that whoever is in at 1 % is still in at 10 %."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

WHOLE: Final = 10_000
"""Shares are counted in hundredths of a percent."""


def unit_of(tenant: str, request_id: str, salt: str = "") -> int:
    """Number of 63 bits, never 0, that is the same for the same words on every server and after every restart.

    `salt`: the roll-out's own, as model and version, so that not always the same clients try new versions.
    """
    # lengths first: no two different triples give the same bytes
    text = f"{len(salt)}:{len(tenant)}:{salt}{tenant}{request_id}"
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 1) or 1


def share_of_unit(unit: int) -> int:
    """Where a unit lies in [0, 10000). It goes to the candidate if that is below the candidate's share."""
    return unit % WHOLE


def share_of(tenant: str, request_id: str, salt: str = "") -> int:
    """Where a tenant's request lies in [0, 10000). For requests without an id draw `random.randrange(WHOLE)`."""
    return share_of_unit(unit_of(tenant, request_id, salt))


def share_of_percent(percent: float) -> int:
    """Percent as a share."""
    return round(percent * WHOLE / 100)


WATCHED: Final = 4
"""Requests of the stable version that are looked at for each one of the candidate, where there are so many: more would
tell hardly more of the difference, and each costs the gateway some microseconds."""


def watched_of(share: int) -> int:
    """Of `WHOLE` requests of the stable version, how many are looked at while the candidate takes this share."""
    return min(WHOLE, WATCHED * share * WHOLE // max(1, WHOLE - share))


def watch_place_of(unit: int) -> int:
    """Where a unit of the stable version's lies in [0, 10000). It is looked at if that is below `watched_of`.

    By other digits than those that choose the version, and than those by which units that come again are known.
    """
    return (unit >> 40) % WHOLE
