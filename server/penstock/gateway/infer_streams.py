"""All ModelStreamInfer calls of one gateway."""

from __future__ import annotations

from penstock.gateway.infer_stream import InferStream
from penstock.gateway.stream_intake import StreamIntake
from penstock.gateway.stream_terms import StreamTerms


class InferStreams:
    """Opens streams, and ends them when the server stops."""

    def __init__(self, intake: StreamIntake) -> None:
        self._intake = intake
        self._open: set[InferStream] = set()
        self._draining = False

    def open(self, terms: StreamTerms) -> InferStream:
        """A stream whose call begins now."""
        stream = InferStream(self._intake, terms, self._open.discard)
        self._open.add(stream)
        if self._draining:
            stream.drain()
        return stream

    def drain(self) -> None:
        """From now on streams end once what they have read is answered."""
        self._draining = True
        for stream in list(self._open):
            stream.drain()
