"""TLS of the portable front: each new connection speaks it with what the supervisor wrote last."""

from __future__ import annotations

import logging
import ssl
from typing import Any, Final

import grpc

from penstock.gateway.tls_files import TlsFiles
from penstock.tls_config import CIPHERS, TlsSettings

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}

log = logging.getLogger(__name__)


def make_context(settings: TlsSettings, files: TlsFiles) -> ssl.SSLContext:
    """A server's context of the files as they are. Raises OSError (which ssl.SSLError is) when OpenSSL refuses them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _fill(context, settings, files)
    return context


def _fill(context: ssl.SSLContext, settings: TlsSettings, files: TlsFiles) -> None:
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_ciphers(":".join(CIPHERS))
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if settings.client_auth != "none":
        # whoever resumes a session does not show its certificate again: it may have expired by then
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_verify_locations(files.client_ca)
    context.verify_mode = _VERIFY[settings.client_auth]
    context.load_cert_chain(files.certificates, files.key)


class LatestContext(ssl.SSLContext):
    """A context whose connections are those of another one: of what the files hold when a client connects.

    A context can't be taken a CA away, so that it is made anew where anything has changed.
    """

    _settings: TlsSettings
    _files: TlsFiles
    _made_of: TlsFiles
    _made: ssl.SSLContext

    def __new__(cls, settings: TlsSettings, files: TlsFiles) -> LatestContext:
        """Raises OSError when the files can't be used."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._settings, self._files = settings, files
        self._made_of = files.pinned()
        self._made = make_context(settings, self._made_of)
        return self

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Called by the event loop for each connection."""
        return self._latest().wrap_bio(*arguments, **named)

    def _latest(self) -> ssl.SSLContext:
        try:
            files = self._files.pinned()
            if files != self._made_of:
                self._made = make_context(self._settings, files)
                self._made_of = files
        except OSError as error:
            # the supervisor has tried them: so they went away, and the next connection finds newer ones
            log.warning("TLS: the new certificate can't be read yet: %s", error)
        return self._made


class LatestGrpcCertificates:
    """What gRPC asks at each handshake: what to speak TLS with, where that has changed."""

    def __init__(self, settings: TlsSettings, files: TlsFiles) -> None:
        self._settings = settings
        self._files = files
        self._read_of: TlsFiles | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """For a port."""
        first = self()
        assert first is not None
        require = self._settings.client_auth == "require"
        # the stubs don't know that None means "as before"
        fetch: Any = self
        return grpc.dynamic_ssl_server_credentials(first, fetch, require)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """None: as before."""
        files = self._files.pinned()
        if files == self._read_of:
            return None
        roots = None
        if self._settings.client_auth != "none":
            roots = files.client_ca.read_bytes()
        pair = (files.key.read_bytes(), files.certificates.read_bytes())
        self._read_of = files
        return grpc.ssl_server_certificate_configuration([pair], roots)
