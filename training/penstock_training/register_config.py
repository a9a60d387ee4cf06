"""`[register]`: what becomes of a trained model, and what a version has to be good for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints, field_validator, model_validator

from penstock.config_section import Name, Section
from penstock.secrets_config import SecretRef

_ALIAS_PATTERN: Final = r"^[A-Za-z0-9_-]{1,255}$"
Alias = Annotated[str, StringConstraints(pattern=_ALIAS_PATTERN)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]

CLASSIFIER_METRICS: Final = ("accuracy", "macro_f1", "log_loss", "brier", "ece")
"""What is counted of each classifier's probabilities."""
LOWER_IS_BETTER: Final = frozenset({"loss", "log_loss", "brier", "ece"})
_VERSION_ALIAS: Final = re.compile(r"v\d+", re.IGNORECASE)


class ChampionGate(Section):
    """`[register.gates.champion]`: the new version against the one that is served, both on the run's test rows."""

    alias: Alias = "champion"
    """Alias of the version to compare with; where there is none yet, nothing is compared."""
    worse_by: Mapping[str, Finite] = Field(default_factory=dict)
    """By how much the new version may be worse, by metric. Below zero: by how much it has to be better. None given: a
    classifier's accuracy, by 0.002."""
    allow_code: bool = False
    """Evaluate it even if it is a Python function, or holds pickles or other files that may run any code when they are
    read. Where not: such a champion lets nobody pass."""


class GateSettings(Section):
    """`[register.gates]`: what a version has to be good for. One that fails is registered with the reason, without
    alias. Metrics: `accuracy`, `macro_f1`, `log_loss`, `brier`, `ece` of a classifier, and what the recipe counts of
    the served model (`served_metrics`), all on the test rows."""

    minimum: Mapping[str, Finite] = Field(default_factory=dict)
    """Lowest values: `{ accuracy = 0.98 }`."""
    maximum: Mapping[str, Finite] = Field(default_factory=dict)
    """Highest values: `{ ece = 0.05 }` asks for calibrated probabilities."""
    minimum_recall: Finite = Field(default=0, le=1)
    """Lowest share of each class's samples that are recognized; 0: any."""
    onnx_error: AboveZero = 1e-4
    """Largest difference between an output of the ONNX file and of the trained model."""
    champion: ChampionGate = Field(default_factory=ChampionGate)
    """Comparison with the version that is served."""
    lower_is_better: frozenset[str] = LOWER_IS_BETTER
    """Metrics of which the lower one of two is better."""


class RegisterSettings(Section):
    """The registered model, and what a version has to be good for."""

    name: str = Field(min_length=1, max_length=255)
    """Registered model that the run makes a version of."""
    serve_as: Name | None = None
    """Name by which servers serve it, for which the signature holds; none: `name`."""
    alias: Alias = "challenger"
    """Alias of a version that passes all gates."""
    opset: int = Field(default=20, ge=18, le=25)
    """ONNX operators that the export may use: the higher, the newer the ONNX Runtime has to be."""
    max_onnx_error: AboveZero = 1e-2
    """Beyond this difference between the ONNX file and the trained model it is another model: nothing is registered."""
    signing_key: Path | None = None
    """Private key (PEM, elliptic curve) that signs the version; none: it is not signed."""
    signing_key_password: SecretRef | None = None
    """Where the key's password is: `env:NAME`, `file:/path`, or `vault:mount/path#field`."""
    signing_certificates: tuple[Path, ...] = ()
    """The key's certificate, then those above it; none: signed by the bare key."""
    description: str = ""
    """Of the version, for people."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    """Further tags of the version."""
    gates: GateSettings = Field(default_factory=GateSettings)
    """What a version has to be good for."""

    @property
    def serving_name(self) -> str:
        """The name of the folder that servers load it from."""
        return self.serve_as or self.name

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if any(character in name for character in "/:\\\0") or not name.isprintable():
            raise ValueError("a registered model's name has no slash and no colon")
        return name

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, alias: str) -> str:
        if alias == "latest" or _VERSION_ALIAS.fullmatch(alias):
            raise ValueError(
                "MLflow keeps `latest`, `v1`, `v2` … for itself; expected another alias"
            )
        return alias

    @model_validator(mode="after")
    def _check(self) -> RegisterSettings:
        if self.signing_key is None and (self.signing_certificates or self.signing_key_password):
            raise ValueError("signing_certificates and signing_key_password need a signing_key")
        if self.alias == self.gates.champion.alias:
            raise ValueError(
                f"alias is {self.alias!r}, which gates.champion.alias names too: a version that was not tried would be "
                "the champion at once"
            )
        return self
