"""`[capture]`: which requests and answers are kept as records for training, what of them, and whose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, model_validator

from penstock.access_config import matches
from penstock.config_section import Pattern, Section
from penstock.secrets_config import SecretRef

Size = Annotated[ByteSize, Field(gt=0)]


class CaptureRule(Section):
    """`[[capture.rules]]`: what is kept of some models' requests. The first rule that fits model and tenant holds; what
    none fits is not kept."""

    models: tuple[Pattern, ...]
    """Names of the models that it is for."""
    tenants: tuple[Pattern, ...] = ("*",)
    """Names of the tenants whose requests it is for. With access control each of them has to allow it as well."""
    sample: Annotated[float, Field(ge=0, le=1)]
    """Share of the requests that are kept: 0.01 is one of a hundred, 0 none."""
    tensors: tuple[Pattern, ...] = ()
    """Inputs and outputs that are kept; none: only that there was a request, and what became of it."""
    drop: tuple[Pattern, ...] = ()
    """Of these tensors, those that are not kept all the same."""
    hash: tuple[Pattern, ...] = ()
    """Of these tensors, those of which only a hash with `hash_key` is kept: of each element of BYTES tensors, of all of
    others."""
    text: tuple[Pattern, ...] = ()
    """BYTES tensors whose elements are text: a column of strings rather than of bytes."""
    max_string_bytes: Annotated[int, Field(ge=0)] = 0
    """Bytes of an element of BYTES tensors that are kept; 0: all."""

    def keeps(self, tensor: str) -> bool:
        """Whether it is kept, as it is or hashed."""
        return matches(tensor, self.tensors) and not matches(tensor, self.drop)

    def hashes(self, tensor: str) -> bool:
        """Whether only a hash of it is."""
        return matches(tensor, self.hash)

    def is_text(self, tensor: str) -> bool:
        """Whether its elements, if it is one of BYTES, are text."""
        return matches(tensor, self.text)


class CaptureSettings(Section):
    """Which requests and answers are kept as records for training."""

    folder: Path | None = None
    """Folder that records of requests and answers are written to, as Parquet; none: nothing is kept."""
    format: Literal["parquet", "delta"] = "parquet"
    """parquet: files alone. delta: and a Delta table for each model."""
    rules: tuple[CaptureRule, ...] = ()
    """Whose requests are kept, how many of them, and what of each; none: none."""
    tenant_names: Literal["name", "hash", "none"] = "name"
    """What is kept of the tenant: its name, a hash of it with `hash_key`, or nothing."""
    hash_key: SecretRef | None = None
    """Where the key of hashes is, as file:/path, env:NAME or vault:mount/path#field: 16 bytes at least."""
    max_record_bytes: Size = ByteSize(1 << 20)
    """A request whose kept tensors are larger than this, inputs and outputs together, is not kept."""
    queue_bytes: Size = ByteSize(64 << 20)
    """Bytes of records that wait to be written; what comes when there are so many is not kept."""
    rotate_rows: Annotated[int, Field(ge=1)] = 100_000
    """Rows of a file, at most."""
    rotate_bytes: Size = ByteSize(128 << 20)
    """Size at which the next file is begun, in bytes or as 128MiB."""
    rotate_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60
    """Seconds from a file's first record until it is complete, and others see it."""

    @model_validator(mode="after")
    def _check_key(self) -> CaptureSettings:
        if self.hash_key is not None:
            return self
        if self.tenant_names == "hash":
            raise ValueError("tenant_names hash needs hash_key: where the key of hashes is")
        for at, rule in enumerate(self.rules):
            if rule.hash:
                raise ValueError(f"rules.{at}.hash needs hash_key: where the key of hashes is")
        return self

    def rule_for(self, model: str, tenant: str) -> CaptureRule | None:
        """The rule that holds for a tenant's requests to a model; None: they are not kept."""
        for rule in self.rules:
            if matches(model, rule.models) and matches(tenant, rule.tenants):
                return rule if rule.sample else None
        return None
