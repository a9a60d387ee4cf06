"""Whether the secrets that settings name are there, and are what they should be: said before anything is started."""

from __future__ import annotations

import contextlib

from penstock.access.jwk_set import secret_key_set
from penstock.audit.signing import Signer
from penstock.config import Settings
from penstock.errors import ConfigError
from penstock.secrets.secret import Secret
from penstock.secrets.source import SecretSource
from penstock.secrets_config import references_of
from penstock.trust.kek import parse_key


def check_secrets(settings: Settings) -> None:
    """Read each once, and let go of it: the process that uses it reads it itself, and one that takes a crashed one's
    place goes on with what it can have. Raises ConfigError that names the setting, the reference, and what is wrong.
    """
    with contextlib.closing(SecretSource(settings.secrets)) as source:
        for name, ref in references_of(settings):
            if not _has_to_be_there(settings, name):
                continue
            try:
                _check(settings, name, str(ref), source.get(ref))
            except (ConfigError, ValueError) as error:
                text = str(error)
                where = "" if text.startswith(str(ref)) else f"{ref}: "
                # `from None`: what is wrong with it may be told by quoting it
                raise ConfigError(f"{name}: {where}{text}") from None


def _has_to_be_there(settings: Settings, name: str) -> bool:
    if name == "audit.sign_key":
        # go_on is for this, too
        return settings.audit.when_it_cant_be_written == "refuse"
    # what opens Vault is read where something is in Vault
    return not name.startswith("secrets.")


def _check(settings: Settings, name: str, where: str, secret: Secret) -> None:
    """Raises ConfigError, ValueError."""
    match name.split("."):
        case ["artifacts", _, *_]:
            parse_key(secret.reveal(), where)
        case ["audit", _]:
            Signer.from_pem(secret.reveal(), where)
        case ["access", "jwt", at, _]:
            secret_key_set(secret.reveal(), settings.access.jwt[int(at)].accepted_algorithms)
        case ["quotas", _]:
            secret.text()
        case ["registry", "webhook_secret"]:
            if not secret.reveal().strip():
                raise ConfigError("it is blank: anybody could sign webhooks with it")
