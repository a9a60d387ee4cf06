"""What it costs to verify a model: a plain read, its digest alone, and the private copies that are loaded from."""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.table import Table

from penstock.artifacts_config import ArtifactsSettings, TrustRule
from penstock.secrets_config import SecretRef
from penstock.trust.artifact import Artifact
from penstock.trust.at_rest import encrypt_version
from penstock.trust.kek import KeyEncryptionKey, KeyRing
from penstock.trust.memory import SHARED_MEMORY
from penstock.trust.signing import sign_version
from penstock.trust.staging import Staging
from penstock.trust.trust import Trust

CHUNK_BYTES: Final = 1 << 20
NAME: Final = "weights"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one way to read a model."""

    way: str
    gigabytes_per_s: float
    """The median of all rounds."""
    of_plain: float
    """As a part of the plain read's."""


def measure(nbytes: int, rounds: int) -> list[Cost]:
    """With a model of that size, which the page cache holds."""
    memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="penstock-artifacts-") as plain,
        tempfile.TemporaryDirectory(prefix="penstock-artifacts-", dir=memory) as copies,
    ):
        bench = _Bench(Path(plain), Path(copies), nbytes)
        ways: list[tuple[str, Callable[[], object]]] = [
            ("plain read", bench.read),
            ("read and SHA-256", bench.digest),
            ("signed: verified private copy", bench.signed),
            ("signed and encrypted: the same, decrypted", bench.encrypted),
        ]
        speeds = [nbytes / 1e9 / statistics.median(_times(run, rounds)) for _, run in ways]
    return [
        Cost(way, speed, speed / speeds[0]) for (way, _), speed in zip(ways, speeds, strict=True)
    ]


def table_of(costs: Sequence[Cost]) -> Table:
    """For a terminal."""
    table = Table("way", "GB/s", "of a plain read")
    for cost in costs:
        table.add_row(cost.way, f"{cost.gigabytes_per_s:.2f}", f"{cost.of_plain:.2f}")
    return table


class _Bench:
    """A model in two repositories: signed, and signed and encrypted."""

    def __init__(self, folder: Path, copies: Path, nbytes: int) -> None:
        key, secret = ec.generate_private_key(ec.SECP256R1()), os.urandom(32)
        public = folder / "release.pub"
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(encoding, form))
        self._plain, self._encrypted = folder / "plain" / "m", folder / "encrypted" / "m"
        for model in (self._plain, self._encrypted):
            (model / "1").mkdir(parents=True)
            _fill(model / "1" / NAME, nbytes)
            sign_version(model, 1, key)
        encrypt_version(self._encrypted, 1, KeyRing((KeyEncryptionKey(secret),)))
        settings = ArtifactsSettings(
            trust=(TrustRule(public_keys=(public,)),),
            state_file=folder / "releases.json",
            key_encryption_key=SecretRef("env", "KEK"),
        )
        staging = Staging(copies / "plain", copies / "decrypted")
        self._trust = Trust(settings, staging, lambda _: secret)

    def read(self) -> None:
        for _ in _chunks(self._plain / "1" / NAME):
            pass

    def digest(self) -> None:
        digest = hashlib.sha256()
        for chunk in _chunks(self._plain / "1" / NAME):
            digest.update(chunk)

    def signed(self) -> None:
        self._stage(self._plain)

    def encrypted(self) -> None:
        self._stage(self._encrypted)

    def _stage(self, model: Path) -> None:
        staged = self._trust.stage(Artifact(model.name, 1, model, b""))
        assert staged is not None
        staged.close()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")


def _fill(path: Path, nbytes: int) -> None:
    with path.open("wb") as file:
        for start in range(0, nbytes, CHUNK_BYTES):
            file.write(os.urandom(min(CHUNK_BYTES, nbytes - start)))


def _times(run: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times
