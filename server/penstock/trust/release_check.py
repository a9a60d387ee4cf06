"""Whether a version's signature is one that a rule asks for, and its release no older one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from penstock.artifacts_config import TrustRule
from penstock.errors import Downgraded, SignatureMissing, WrongModel
from penstock.trust.artifact import Artifact
from penstock.trust.bundle import MAX_BYTES, parse
from penstock.trust.copying import SIGNATURE
from penstock.trust.folder import OpenFolder
from penstock.trust.manifest import Manifest, from_payload
from penstock.trust.release import FILENAME, Release, parse_release
from penstock.trust.release import MAX_BYTES as MAX_RELEASE_BYTES
from penstock.trust.releases import Releases, Served
from penstock.trust.signers import Signers
from penstock.trust.staging import Draft


def signed_manifest(
    artifact: Artifact, signers: Callable[[], Signers], folder: OpenFolder, now: datetime
) -> tuple[str, Manifest]:
    """Who has signed, and what. `signers`: reads the keys that are trusted. Raises Untrusted."""
    own = f"{artifact.version}/{SIGNATURE}"
    content = folder.read(own, MAX_BYTES)
    if content is None:
        content = folder.read(SIGNATURE, MAX_BYTES)
    if content is None:
        raise SignatureMissing(f"there is no signature; expected {own}, or {SIGNATURE} beside it")
    bundle = parse(content)
    signer = signers().verify(bundle, now)
    manifest = from_payload(bundle.payload)
    if manifest.model != artifact.model:
        raise WrongModel(f"the signature is that of the model {manifest.model[:200]!a}")
    mine = f"{artifact.version}/"
    if not any(path.startswith(mine) for path in manifest.files):
        others = sorted({path.split("/")[0] for path in manifest.files if path[0].isdigit()})
        if others:
            raise WrongModel(
                f"the signature is that of version {', '.join(others)[:80]}, not of {artifact.version}"
            )
        raise SignatureMissing(
            f"the signature covers no file in {mine}, so it may be that of any version; "
            f"expected {mine}{FILENAME} at least"
        )
    return signer, manifest


def check_release(
    releases: Releases,
    artifact: Artifact,
    rule: TrustRule,
    manifest: Manifest,
    draft: Draft,
    present: Sequence[int],
) -> int | None:
    """Returns the release's serial number; None: it has none. Raises Untrusted."""
    release = _release(artifact, draft)
    if release is None and rule.require_release:
        raise SignatureMissing(
            f"the signature covers no {artifact.version}/{FILENAME}, so older files could be put in the place of "
            "newer ones; expected one, as `penstock models sign` writes it, or require_release = false"
        )
    serial = 0 if release is None else release.serial
    if artifact.version < rule.minimum_version:
        raise Downgraded(
            f"version {artifact.version}; the policy serves {rule.minimum_version} and later ones"
        )
    if serial < rule.minimum_serial:
        raise Downgraded(
            f"its release has the serial {serial}; the policy serves {rule.minimum_serial} and later ones"
        )
    served = Served(
        serial,
        manifest_digest(manifest, artifact.version) if release is not None else "",
        shared_digest(manifest),
    )
    releases.check(artifact.model, artifact.version, served, present, rollback=rule.allow_rollback)
    return None if release is None else serial


def _release(artifact: Artifact, draft: Draft) -> Release | None:
    """As it lies in the copy."""
    path = draft.model_dir / str(artifact.version) / FILENAME
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RELEASE_BYTES)
    except FileNotFoundError:
        return None
    return parse_release(content, artifact.model, artifact.version)


def manifest_digest(manifest: Manifest, version: int) -> str:
    """Of what the version is loaded from."""
    return Manifest(manifest.model, manifest.algorithm, manifest.of_version(version)).digest


def shared_digest(manifest: Manifest) -> str:
    """Of what all versions share."""
    # there is no version 0
    return manifest_digest(manifest, 0)
