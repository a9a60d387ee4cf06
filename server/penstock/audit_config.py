"""`[audit]`: who did what and who was refused, in files that tell when somebody has changed them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ByteSize, Field

from penstock.config_section import Section
from penstock.secrets_config import SecretRef

SMALLEST_FILE_BYTES: Final = 64 << 10

FileBytes = Annotated[ByteSize, Field(ge=SMALLEST_FILE_BYTES)]


class AuditSettings(Section):
    """What is recorded, where, and how it is signed."""

    folder: Path | None = None
    """Folder of the audit log, made where it is missing; none: nothing is recorded."""
    refusals: bool = True
    """Record every request that is refused for want of a credential, a permission or a quota."""
    inferences: bool = False
    """Record every inference: digests of its inputs and outputs, never the tensors themselves."""
    sign_key: SecretRef | None = None
    """Where the Ed25519 key is that signs, as file:/path, env:NAME or vault:mount/path#field; none: nothing is
    signed."""
    checkpoint_records: Annotated[int, Field(ge=1)] = 1000
    """Records from one signed checkpoint to the next."""
    checkpoint_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60
    """Seconds from a record to the checkpoint that covers it, at most."""
    rotate_bytes: FileBytes = ByteSize(64 << 20)
    """Size at which the next file is begun, in bytes or as 64MiB."""
    when_it_cant_be_written: Literal["refuse", "go_on"] = "refuse"
    """refuse: what has to be recorded isn't done. go_on: it is done, and the log says loudly that it isn't recorded."""
    file_mode: Literal["0600", "0640"] = "0600"
    """Who may read the files: their owner, or its group too."""
