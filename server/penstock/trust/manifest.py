"""What a signature of a model says: an in-toto statement that names files and their digests, as OpenSSF's
model-signing writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from penstock.errors import SignatureInvalid

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
ALGORITHMS: Final = ("sha256", "blake2b")
"""Of digests. Both are in Python's own library; BLAKE3 is not."""

_DIGEST_BYTES: Final = {"sha256": 32, "blake2b": 64}


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files below a model's folder, and their digests."""

    model: str
    """The name of the folder that was signed."""
    algorithm: str
    files: Mapping[str, bytes]
    """Path → digest."""
    ignored: frozenset[str] = frozenset()
    """Files and folders that the signature says nothing of."""

    @property
    def digest(self) -> str:
        """Of all digests: two manifests with the same one are of the same files."""
        content = b"".join(
            path.encode() + b"\0" + digest for path, digest in sorted(self.files.items())
        )
        return hashlib.sha256(content).hexdigest()

    def of_version(self, version: int) -> dict[str, bytes]:
        """The files that a version is loaded from: its own, and those that all versions share."""
        return {path: digest for path, digest in self.files.items() if belongs(path, version)}

    def ignores(self, path: str) -> bool:
        """Whether the file was left out, or a folder that it lies in."""
        pure = PurePosixPath(path)
        return any(str(each) in self.ignored for each in (pure, *pure.parents))


def belongs(path: str, version: int) -> bool:
    """Whether a file below a model's folder is one of this version's, or of those that all versions share."""
    first, slash, _ = path.partition("/")
    return not slash or not (first.isascii() and first.isdigit()) or first == str(version)


def to_payload(manifest: Manifest) -> bytes:
    """The statement as JSON."""
    # the order that model-signing sorts by: it adds the digests up in it
    paths = sorted(manifest.files, key=PurePosixPath)
    total = hashlib.sha256(b"".join(manifest.files[path] for path in paths)).hexdigest()
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": manifest.model, "digest": {"sha256": total}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": manifest.algorithm,
                "allow_symlinks": False,
                "ignore_paths": sorted(manifest.ignored),
            },
            "resources": [
                {
                    "name": path,
                    "algorithm": manifest.algorithm,
                    "digest": manifest.files[path].hex(),
                }
                for path in paths
            ],
        },
    }
    return json.dumps(statement, indent=2, ensure_ascii=False).encode()


def from_payload(payload: bytes) -> Manifest:
    """Read a statement, whose signature was checked before. Raises SignatureInvalid."""
    try:
        return _parse(json.loads(payload))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise SignatureInvalid(
            f"the signature's statement can't be read: {error!r:.200}"
        ) from error


def _parse(statement: Any) -> Manifest:
    if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
        raise SignatureInvalid(
            f"the signature's statement is a {str(statement['predicateType'])[:80]!a}; expected a model's, {PREDICATE}"
        )
    (subject,) = statement["subject"]
    predicate = statement["predicate"]
    serialization = predicate["serialization"]
    algorithm = serialization["hash_type"]
    if serialization["method"] != "files" or algorithm not in ALGORITHMS:
        raise SignatureInvalid(
            f"the signature is over {str(serialization['method'])[:40]} by {str(algorithm)[:40]}; "
            f"expected files by {' or '.join(ALGORITHMS)}"
        )
    files = _files(predicate["resources"], algorithm)
    total = hashlib.sha256(b"".join(files.values())).hexdigest()
    if total != subject["digest"]["sha256"]:
        raise SignatureInvalid("the signature's digests do not add up to the one that it states")
    ignored = frozenset(str(PurePosixPath(path)) for path in serialization.get("ignore_paths", ()))
    return Manifest(_text(subject["name"]), algorithm, files, ignored)


def _files(resources: Iterable[Any], algorithm: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for resource in resources:
        path, digest = _text(resource["name"]), bytes.fromhex(resource["digest"])
        if resource["algorithm"] != algorithm or len(digest) != _DIGEST_BYTES[algorithm]:
            raise SignatureInvalid(f"the digest of {path[:200]!a} is no {algorithm}")
        if path in files or not _is_inside(path):
            raise SignatureInvalid(
                f"the signature names {path[:200]!a}; expected each file once, by its path in the model's folder"
            )
        files[path] = digest
    return files


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return (
        str(pure) == path
        and "\0" not in path
        and not pure.is_absolute()
        and ".." not in pure.parts
        and path != "."
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise SignatureInvalid("the signature's statement has a name that is no text")
    return value
