"""Opens the log that the settings ask for, with its key from where secrets are kept."""

from __future__ import annotations

import logging

from penstock.audit.log import AuditLog
from penstock.audit.signing import Signer
from penstock.audit_config import AuditSettings
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets.source import SecretSource

logger = logging.getLogger(__name__)


def open_log(settings: AuditSettings, secrets: SecretSource) -> AuditLog | None:
    """None: nothing is to be recorded. Nothing is read or written yet. A new key signs as soon as it is there."""
    if settings.folder is None:
        return None
    ref = settings.sign_key
    if ref is None:
        return AuditLog(settings)
    where = str(ref)

    def changed(secret: Secret) -> None:
        try:
            log.rekey(_signer(secret, where))
        except ConfigError as error:
            logger.error("%s. The key that was there before goes on.", error)  # noqa: TRY400

    def first() -> Signer:
        return _signer(secrets.watch(ref, changed).secret, where)

    log = AuditLog(settings, key=first)
    return log


def _signer(secret: Secret, where: str) -> Signer:
    return Signer.from_pem(secret.reveal(), where)
