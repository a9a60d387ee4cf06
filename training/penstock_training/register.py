"""From an ONNX file that was checked to a version in the registry. Each step can be made again: whoever was killed
between two of them is followed by another one that finds what is done, and does the rest."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from penstock.errors import Untrusted
from penstock.model_digest import folder_digest
from penstock.redaction import redacted
from penstock_training.errors import RegistrationError
from penstock_training.gates import Verdict
from penstock_training.mlflow_link import persistently
from penstock_training.package import make_package, model_id_of
from penstock_training.recipe import Recipe
from penstock_training.register_config import RegisterSettings
from penstock_training.registry import Registry
from penstock_training.signing import SIGNED_FILES, Signer

GATES: Final = "penstock.gates"
MODEL_DIGEST: Final = "penstock.model_digest"
SIGNED_BY: Final = "penstock.signed.by"
MAX_TAG: Final = 4000
"""Characters of a tag that all of MLflow's stores take."""
NOT_SIGNED: Final = "nobody: register.signing_key is not set"

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """A version that is complete."""

    name: str
    version: int
    digest: str
    verdict: Verdict
    registry: str
    """Where, without credentials."""
    signed_by: str
    """Empty: it is not signed."""
    alias: str
    """Empty: it failed a gate, and has none."""

    def __str__(self) -> str:
        """For people."""
        signed = f"signed by {self.signed_by}" if self.signed_by else "not signed"
        outcome = f"it is @{self.alias} now" if self.alias else "it has no alias"
        what = f"registered {self.name} in {self.registry}, version {self.version}, {signed}"
        return f"{what}: {self.verdict.summary}; {outcome}"


class Registration:
    """One run's. Raises Unavailable where the registry is away for too long, RegistrationError where it refuses."""

    def __init__(
        self,
        registry: Registry,
        settings: RegisterSettings,
        signer: Signer | None,
        folder: Path,
        patience_s: float,
    ) -> None:
        """`folder`: its files, of the run's folder: those that are there already are not made again."""
        self._registry: Final = registry
        self._settings: Final = settings
        self._signer: Final = signer
        self._folder: Final = folder
        self._patience_s: Final = patience_s
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def onnx_file(self) -> Path:
        """The exported model, before it is registered."""
        return self._folder / "model.onnx"

    @property
    def _package(self) -> Path:
        return self._folder / "package"

    def take_up(self) -> None:
        """Where the files of an earlier attempt are gone from here, fetch what it has given to the registry: another
        export might be other bytes. What was to be signed and is not, is made anew: nobody vouches for it."""
        if self._package.is_dir():
            shutil.copyfile(self._package / "model.onnx", self.onnx_file)
            return
        model = self._try("look for its model", self._registry.find_logged_model)
        if model is None or str(model.status) != "READY":
            return
        numbers = self._try("look for its version", self._registry.versions)
        fetched = self._staged(numbers[0] if numbers else 0)
        self._try("fetch its model", lambda: self._registry.fetch_model(model.model_id, fetched))
        if self._signer is None or self._signer.signed(fetched.parent, int(fetched.name)):
            self._keep_signature(fetched)
            for name in SIGNED_FILES:
                (fetched / name).unlink(missing_ok=True)
            os.replace(fetched, self._package)
            self._uploaded.write_text(self.digest)
            shutil.copyfile(self._package / "model.onnx", self.onnx_file)

    def make_version(self, recipe: Recipe, step: int, tags: Mapping[str, str]) -> int:
        """Upload the package, and make a version of it. Nobody serves it: it has no alias yet."""
        registry, package = self._registry, self._package
        model = self._try("note the model", lambda: registry.logged_model(step))
        if package.is_dir() and model_id_of(package) != model.model_id:
            log.warning(
                "the model of an earlier attempt was deleted in the registry: making another one"
            )
            shutil.rmtree(package)
        if not package.is_dir():
            make_package(self.onnx_file, recipe, package, model.model_id, registry.run_id)
        if not self._uploaded.exists() or self._uploaded.read_text() != self.digest:
            self._try("upload the model", lambda: registry.upload(model.model_id, package))
            self._try("complete the model", lambda: registry.complete(model.model_id))
            self._uploaded.write_text(self.digest)
        return self._try(
            "make a version",
            lambda: registry.version(
                model.model_id, {**tags, MODEL_DIGEST: self.digest}, self._settings.description
            ),
        )

    @property
    def _uploaded(self) -> Path:
        """Holds the digest of what the registry has got as a whole."""
        return self._folder / "uploaded"

    @property
    def digest(self) -> str:
        """Of what is served: the package's."""
        return folder_digest(self._package)

    def sign(self, version: int) -> str:
        """Sign the folder as servers will see it, and upload the signature. Returns who has signed; empty: nobody."""
        if self._signer is None:
            return ""
        signer, staged = self._signer, self._stage(version)
        release = signer.sign(staged.parent, version)
        signature = self._keep_signature(staged)
        model = self._try("find the model", self._registry.find_logged_model)
        self._try("sign it", lambda: self._registry.upload(model.model_id, signature))
        log.info("signed %s/%d, serial %d", staged.parent.name, version, release.serial)
        return signer.name

    def check(self, version: int) -> None:
        """What the registry gives out is what was made here, and signed as it was. Raises RegistrationError."""
        model_dir = self._folder / "fetched" / self._settings.serving_name
        fetched = model_dir / str(version)
        shutil.rmtree(model_dir, ignore_errors=True)
        self._try("fetch the version", lambda: self._registry.fetch_version(version, fetched))
        try:
            if (found := folder_digest(fetched)) != self.digest:
                raise RegistrationError(
                    f"the registry gives version {version} out as {found}, and was given {self.digest}"
                )
            if self._signer is not None and self._signer.signed(model_dir, version) is None:
                raise RegistrationError(
                    f"the signature of version {version} does not fit what the registry gives out"
                )
        except Untrusted as error:
            raise RegistrationError(f"version {version} can't be verified: {error}") from error
        finally:
            shutil.rmtree(self._folder / "fetched", ignore_errors=True)

    def conclude(
        self, version: int, verdict: Verdict, signed_by: str, tags: Mapping[str, str]
    ) -> Registered:
        """Say what came out; where all gates are passed, give it the alias, last of all."""
        registry, alias = self._registry, self._settings.alias
        told = {
            **self._settings.tags,
            **tags,
            MODEL_DIGEST: self.digest,
            SIGNED_BY: signed_by or NOT_SIGNED,
            GATES: verdict.summary[:MAX_TAG],
        }
        self._try("tag the version", lambda: registry.tag(version, told))
        if verdict.passed:
            self._try("set the alias", lambda: registry.set_alias(alias, version))
        else:
            # it had it, and was judged anew by other gates
            self._try("take the alias", lambda: registry.drop_alias(alias, version))
        return Registered(
            registry.name,
            version,
            self.digest,
            verdict,
            redacted(registry.uri),
            signed_by,
            alias if verdict.passed else "",
        )

    def _staged(self, version: int) -> Path:
        """`NAME/N/`, as a server lays it out."""
        return self._folder / "staged" / self._settings.serving_name / str(version)

    def _stage(self, version: int) -> Path:
        """It holds links to the package's files, and a signature that there is already."""
        staged = self._staged(version)
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(self._package, staged, copy_function=os.link)
        for name in SIGNED_FILES:
            if (known := self._folder / "signature" / name).exists():
                shutil.copyfile(known, staged / name)
        return staged

    def _keep_signature(self, staged: Path) -> Path:
        """In a folder of its own."""
        signature = self._folder / "signature"
        shutil.rmtree(signature, ignore_errors=True)
        signature.mkdir()
        for name in SIGNED_FILES:
            if (staged / name).exists():
                shutil.copyfile(staged / name, signature / name)
        return signature

    def _try(self, what: str, call: Callable[[], Result]) -> Result:
        return persistently(call, what, self._patience_s)
