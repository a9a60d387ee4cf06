"""The CAs of a folder: each with its key, the one that issues now last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from penstock.certs.authority import Authority, end_of
from penstock.certs.files import PRIVATE, PUBLIC, make_private_folder, write_file
from penstock.certs.inspection import CertInfo, from_pem, inspect, to_pem
from penstock.certs.keys import key_from_pem, key_to_pem, same_key
from penstock.errors import ConfigError, NotFound
from penstock.secrets.secret import Secret
from penstock.secrets_config import SecretRef

ReadPassphrase = Callable[[SecretRef], Secret]


class _Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept beside a CA."""

    passphrase: str = ""
    """Where its key's passphrase is: a reference, not the passphrase."""
    retired: bool = False
    """It is not trusted any more."""


class Authorities:
    """`0001.crt`, `.key`, `.json`, and `.cross.crt`: certified by the one before it. Whoever writes holds the lock.

    Raises NotFound where there is no CA, or not its key; OSError.
    """

    def __init__(self, path: Path, read_passphrase: ReadPassphrase) -> None:
        self._path: Final = path
        self._read_passphrase: Final = read_passphrase

    def numbers(self) -> list[int]:
        """All there are, the newest last."""
        return sorted(int(path.stem) for path in self._path.glob("[0-9][0-9][0-9][0-9].crt"))

    def latest(self) -> int:
        """The one that issues."""
        numbers = self.numbers()
        if not numbers:
            folder = self._path.parent
            # a folder that may not be read looks empty
            if folder.exists():
                next(folder.iterdir(), None)
            raise NotFound(f"{folder} has no CA: make one by penstock certs init --dir {folder}")
        return numbers[-1]

    def has_key(self) -> bool:
        """There is a CA that could issue: elsewhere there may be certificates alone."""
        numbers = self.numbers()
        return bool(numbers) and self._file(numbers[-1], "key").exists()

    def certificate(self, number: int) -> x509.Certificate:
        """Self-signed."""
        path = self._file(number, "crt")
        return from_pem(path.read_bytes(), str(path))[0]

    def newest(self) -> tuple[int, Authority]:
        """With its key. Raises ConfigError where that can't be opened."""
        number = self.latest()
        path = self._file(number, "key")
        if not path.exists():
            raise NotFound(
                f"{path} is not there: certificates are issued where the CA's key is kept"
            )
        reference = self.passphrase_of(number)
        passphrase = None if reference is None else self._read_passphrase(reference)
        key = key_from_pem(path.read_bytes(), str(path), passphrase)
        certificate = self.certificate(number)
        if not same_key(key.public_key(), certificate.public_key()):
            raise ConfigError(f"{path} is not the key of {self._file(number, 'crt')}")
        cross = self._file(number, "cross.crt")
        crossed = from_pem(cross.read_bytes(), str(cross))[0] if cross.exists() else None
        return number, Authority(certificate, key, crossed)

    def add(self, number: int, authority: Authority, passphrase: SecretRef | None) -> None:
        """It issues from now on."""
        make_private_folder(self._path)
        secret = None if passphrase is None else self._read_passphrase(passphrase)
        self._write_note(number, _Note("" if passphrase is None else str(passphrase)))
        # without a certificate a key is what an attempt that broke off has left
        self._write(number, "key", key_to_pem(authority.key, secret), PRIVATE)
        if authority.cross is not None:
            self._write(number, "cross.crt", to_pem(authority.cross), PUBLIC)
        write_file(self._file(number, "crt"), to_pem(authority.certificate), PUBLIC)

    def retire_older(self) -> list[int]:
        """All but the newest are not trusted any more; their keys are destroyed."""
        *old, newest = self.numbers()
        retired = [number for number in old if not self._note(number).retired]
        for number in retired:
            self._write_note(number, msgspec.structs.replace(self._note(number), retired=True))
            self._file(number, "key").unlink(missing_ok=True)
        self._file(newest, "cross.crt").unlink(missing_ok=True)
        return retired

    def trusted(self, now: datetime) -> list[x509.Certificate]:
        """The newest first, then those that still hold."""
        *old, newest = self.numbers()
        older = [self.certificate(n) for n in reversed(old) if not self._note(n).retired]
        return [self.certificate(newest), *(c for c in older if end_of(c) > now)]

    def passphrase_of(self, number: int) -> SecretRef | None:
        """Where its key's passphrase is."""
        reference = self._note(number).passphrase
        return SecretRef.parse(reference) if reference else None

    def info(self, number: int, now: datetime) -> CertInfo:
        """As `list` shows it."""
        path = str(self._file(number, "crt"))
        newest = self.certificate(self.latest())
        info = inspect(self.certificate(number), "ca", now, newest, path)
        if self._note(number).retired:
            return msgspec.structs.replace(info, state="retired")
        return info

    def _note(self, number: int) -> _Note:
        path = self._file(number, "json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Note)
        except FileNotFoundError:
            return _Note()
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path}: {error}") from None

    def _write_note(self, number: int, note: _Note) -> None:
        self._write(number, "json", msgspec.json.encode(note), PRIVATE)

    def _write(self, number: int, suffix: str, content: bytes, mode: int) -> None:
        write_file(self._file(number, suffix), content, mode, replace=True)

    def _file(self, number: int, suffix: str) -> Path:
        return self._path / f"{number:04}.{suffix}"
