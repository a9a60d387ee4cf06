"""What comes with a stream of requests, and holds for each of them. The same for both fronts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from penstock.gateway.terms import TermsReader, received, traced
from penstock.types import CallTerms

GRPC_ERRORS: Final = b"triton_grpc_error"
"""Metadata of a client that wants the true status code of the first error, which then ends the stream."""


class StreamTerms:
    """The terms of one stream."""

    def __init__(
        self, terms: CallTerms, headers: Mapping[bytes, bytes], reader: TermsReader
    ) -> None:
        """`terms`: of the call that begins now, with the time that its client gives all of the stream."""
        self.grpc_errors: Final = headers.get(GRPC_ERRORS) == b"true"
        self.timeout_us: Final = terms.timeout_us
        self._began_ns: Final = time.monotonic_ns()
        self._headers: Final = headers
        self._reader: Final = reader
        self._same: Final = CallTerms(None, terms.tenant, None, terms.session)

    def of_request(self, asked_ns: int) -> CallTerms:
        """The terms of a request that is here now, and was waited for since then.

        Raises Unauthenticated when the stream's credential does not hold any more."""
        same = self._same
        if same.session is not None:
            same = self._reader.renewed(self._headers)
        if self.timeout_us is None and not self._reader.switch.on:
            return same
        left_us = None
        if self.timeout_us is not None:
            spent_us = (time.monotonic_ns() - self._began_ns) // 1000
            left_us = max(0, self.timeout_us - spent_us)
        terms = CallTerms(left_us, same.tenant, None, same.session)
        if self._reader.switch.on:
            terms = received(traced(terms, "GRPC", self._headers.get, asked_ns))
        return terms
