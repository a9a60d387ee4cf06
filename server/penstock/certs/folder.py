"""The folder of a CA and all that it has issued.

ca.crt                                   the CAs that are trusted, the newest first
authority/0001.crt  .key  .json          each CA, with its key; .cross.crt: certified by the one before it
server/NAME/tls.crt  tls.key  ca.crt     of one server; clients' are in client/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from penstock.certs.authorities import Authorities, ReadPassphrase
from penstock.certs.authority import certify, end_of, issue, make_authority, trust_domain_of
from penstock.certs.files import (
    PRIVATE,
    PUBLIC,
    locked,
    make_private_folder,
    put_generation,
    told,
    write_file,
)
from penstock.certs.inspection import CertInfo, from_pem, inspect, to_pem
from penstock.certs.keys import key_to_pem
from penstock.certs.request import KINDS, CertRequest, KeyType, Kind, check_name, check_request
from penstock.errors import AlreadyExists, ConfigError, NotFound
from penstock.secrets_config import SecretRef

BUNDLE: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
REQUEST: Final = "request.json"


class CertsFolder:
    """Reads and writes it. `read_passphrase` gets the passphrase of a CA's key where it has one.

    Raises NotFound where there is no CA, Unavailable where files can't be read or written, ConfigError for what is
    wrong in them.
    """

    def __init__(self, path: Path, read_passphrase: ReadPassphrase) -> None:
        self.path: Final = path.absolute()
        self._authorities: Final = Authorities(self.path / "authority", read_passphrase)

    @property
    def bundle(self) -> Path:
        """The CAs that are trusted."""
        return self.path / BUNDLE

    def files_of(self, kind: Kind, name: str) -> Path:
        """The folder of one certificate."""
        return self.path / kind / name

    def can_issue(self) -> bool:
        """The CA's key is here."""
        with told(self.path):
            return self._authorities.has_key()

    def check_key(self) -> None:
        """The CA's key can be read, its passphrase too. Raises ConfigError, NotFound, Unavailable."""
        with told(self.path):
            self._authorities.newest()

    def trust_domain(self) -> str:
        """Of the CA that issues; empty: it has none."""
        with told(self.path):
            return trust_domain_of(self._authorities.certificate(self._authorities.latest()))

    def init(
        self,
        name: str,
        now: datetime,
        lifetime_s: int,
        *,
        trust_domain: str = "",
        key_type: KeyType = "p256",
        passphrase: SecretRef | None = None,
    ) -> CertInfo:
        """Make the first CA. Raises AlreadyExists where there is one."""
        with told(self.path):
            make_private_folder(self.path)
            with locked(self.path):
                if self._authorities.numbers():
                    raise AlreadyExists(
                        f"{self.path} has a CA: penstock certs init --rotate makes another beside it"
                    )
                made = make_authority(name, now, lifetime_s, trust_domain, key_type)
                self._authorities.add(1, made, passphrase)
                self._write_bundle(now)
                return self._authorities.info(1, now)

    def rotate(
        self,
        name: str,
        now: datetime,
        lifetime_s: int,
        *,
        key_type: KeyType = "p256",
        passphrase: SecretRef | None = None,
    ) -> CertInfo:
        """Make a CA beside the one there is: it issues from now on, both are trusted. Its trust domain is the same.

        `passphrase`: where the new key's is; none: where the old one's is.
        """
        with self._writing():
            number, old = self._authorities.newest()
            passphrase = passphrase or self._authorities.passphrase_of(number)
            domain = trust_domain_of(old.certificate)
            made = make_authority(name, now, lifetime_s, domain, key_type)
            if (end_of(old.certificate) - now).total_seconds() > 1:
                made = certify(old, made, now)
            self._authorities.add(number + 1, made, passphrase)
            self._write_bundle(now)
            return self._authorities.info(number + 1, now)

    def retire(self, now: datetime) -> list[CertInfo]:
        """Trust no CA any more but the newest, and destroy the others' keys. Returns them.

        Raises ConfigError while a certificate of theirs is in use.
        """
        with self._writing():
            left = [i for i in self._leaves(now) if not i.by_current_ca and i.state != "expired"]
            if left:
                names = ", ".join(f"{info.kind}/{info.name}" for info in left)
                raise ConfigError(
                    f"certificates of an older CA are in use: {names}. First: penstock certs renew"
                )
            retired = self._authorities.retire_older()
            self._write_bundle(now)
            return [self._authorities.info(number, now) for number in retired]

    def issue(self, request: CertRequest, now: datetime, *, replace: bool = False) -> CertInfo:
        """A new key and certificate. Raises AlreadyExists where there is one of this name."""
        with self._writing():
            if not replace and self._has(request.label):
                raise AlreadyExists(
                    f"{request.label}: there is such a certificate. penstock certs renew"
                    f" {request.label} renews it as it is, --replace makes another in its place"
                )
            return self._issue(request, now)

    def renew(self, labels: Sequence[str], now: datetime) -> list[CertInfo]:
        """New keys and certificates in place of these (`server/NAME`), that say the same."""
        with self._writing():
            requests = [self._request(label) for label in labels]
            return [self._issue(request, now) for request in requests]

    def info(self, kind: Kind, name: str, now: datetime) -> CertInfo:
        """Of one certificate. Raises NotFound."""
        path = self.files_of(kind, name) / CERTIFICATE
        with told(path):
            if not path.exists():
                raise NotFound(f"{self.path} has no certificate {kind}/{name}")
            own = from_pem(path.read_bytes(), str(path))[0]
            return inspect(own, kind, now, self._current(), str(path))

    def authority(self, now: datetime) -> CertInfo:
        """The CA that issues."""
        with told(self.path):
            return self._authorities.info(self._authorities.latest(), now)

    def entries(self, now: datetime) -> list[CertInfo]:
        """All CAs, the newest first, then what they have issued, by name. There may be certificates alone."""
        with told(self.path):
            numbers = self._authorities.numbers()
            if not numbers and not any(self._has(f"{kind}/*") for kind in KINDS):
                self._authorities.latest()
            return [
                *(self._authorities.info(number, now) for number in reversed(numbers)),
                *self._leaves(now),
            ]

    def resolve(self, name: str) -> list[str]:
        """`server/NAME` of what a person calls NAME or `server/NAME`. Raises NotFound."""
        kind, slash, rest = name.partition("/")
        wanted = check_name(rest if slash else name)
        labels = [f"{each}/{wanted}" for each in KINDS if not slash or each == kind]
        found = [label for label in labels if self._has(label)]
        if not found:
            raise NotFound(f"{self.path} has no certificate {name}: see penstock certs list")
        return found

    def _has(self, label: str) -> bool:
        """`*` stands for any name."""
        return any(self.path.glob(f"{label}/{CERTIFICATE}"))

    def _current(self) -> x509.Certificate | None:
        """The CA that issues. Where it is elsewhere: the first that is trusted."""
        if numbers := self._authorities.numbers():
            return self._authorities.certificate(numbers[-1])
        if self.bundle.exists():
            return from_pem(self.bundle.read_bytes(), str(self.bundle))[0]
        return None

    def _leaves(self, now: datetime) -> list[CertInfo]:
        return [
            self.info(kind, path.parent.name, now)
            for kind in KINDS
            for path in sorted((self.path / kind).glob(f"*/{CERTIFICATE}"))
        ]

    def _issue(self, request: CertRequest, now: datetime) -> CertInfo:
        _, authority = self._authorities.newest()
        issued = issue(authority, request, now)
        folder = self.files_of(request.kind, request.name)
        chain = (issued.certificate, *(c for c in authority.chain if end_of(c) > now))
        put_generation(
            folder,
            {
                CERTIFICATE: (to_pem(*chain), PUBLIC),
                KEY: (key_to_pem(issued.key), PRIVATE),
                REQUEST: (msgspec.json.format(msgspec.json.encode(request)), PUBLIC),
            },
            {BUNDLE: f"../../{BUNDLE}"},
        )
        path = str(folder / CERTIFICATE)
        return inspect(issued.certificate, request.kind, now, authority.certificate, path)

    def _request(self, label: str) -> CertRequest:
        path = self.path / label / REQUEST
        try:
            request = check_request(msgspec.json.decode(path.read_bytes(), type=CertRequest))
        except FileNotFoundError:
            raise NotFound(f"{self.path} has no certificate {label}") from None
        except (msgspec.MsgspecError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from None
        if request.label != label:
            raise ConfigError(f"{path}: is of {request.label}, expected {label}")
        return request

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with told(self.path):
            self._authorities.latest()
            with locked(self.path):
                yield

    def _write_bundle(self, now: datetime) -> None:
        trusted = self._authorities.trusted(now)
        write_file(self.bundle, to_pem(*trusted), PUBLIC, replace=True)
