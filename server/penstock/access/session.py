"""A caller whose credentials were checked: what it may do, remembered from one request to the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final, NoReturn, Protocol

from penstock.access.permissions import Permissions
from penstock.access.principal import Principal
from penstock.errors import Forbidden, PenstockError, QuotaExceeded, Unauthenticated, Unavailable
from penstock.types import CallTerms, Lease
from penstock.verbs import Verb

MAX_REMEMBERED: Final = 1024
"""Models, known or not, about which a decision is remembered."""

OnRefusal = Callable[[Principal | None, PenstockError, str, str], None]
"""Is told of each refusal: whose, the error, the verb, the model."""


class Quota(Protocol):
    """How much of it a tenant may have."""

    def admit(self, model: str, rows: int, nbytes: int, now_ns: int) -> Lease | None:
        """Take a request's share; None: nothing has to be given back. Raises QuotaExceeded."""
        ...


class Session:
    """Of one credential, until something changes that it was made from."""

    def __init__(
        self,
        principal: Principal,
        permissions: Permissions,
        quota: Quota | None,
        on_refusal: OnRefusal,
    ) -> None:
        self.principal: Final = principal
        self.tenant: Final = principal.tenant
        self.expires_at: Final = principal.expires_at or inf
        """Seconds since 1970."""
        self.terms: Final = CallTerms(None, principal.tenant, None, self)
        """Of its calls that have no time-out and are not traced."""
        self._permissions = permissions
        self._quota = quota
        self._on_refusal = on_refusal
        self._decisions: dict[tuple[Verb, str], bool] = {}

    def known(self) -> None:
        """Raises Unauthenticated where it is not known whose the session is."""

    def may(self, verb: Verb, model: str = "") -> bool:
        """Whether it may do that; with which model, where one is meant."""
        allowed = self._decisions.get((verb, model))
        return self._decide(verb, model) if allowed is None else allowed

    def check(self, verb: Verb, model: str = "") -> None:
        """Raises Forbidden, with the same words whether there is such a model or not."""
        allowed = self._decisions.get((verb, model))
        if not (self._decide(verb, model) if allowed is None else allowed):
            of_model = f" of model '{model[:200]}'" if model else ""
            self.refuse(Forbidden(f"not allowed: {verb.value}{of_model}"), verb, model)

    def may_of(self, verb: Verb, tenant: str) -> bool:
        """Whether it may do that with what is the tenant's."""
        return self._permissions.may(verb, tenant=tenant)

    def check_of(self, verb: Verb, tenant: str) -> None:
        """Raises Forbidden, with the same words whether there is such a tenant or not."""
        if not self.may_of(verb, tenant):
            self.refuse(Forbidden(f"not allowed: {verb.value} of tenant '{tenant[:200]}'"), verb)

    def admit(self, model: str, rows: int, nbytes: int) -> Lease | None:
        """Take a request's share of the tenant's quota. Raises QuotaExceeded."""
        if self._quota is None:
            return None
        try:
            return self._quota.admit(model, rows, nbytes, time.monotonic_ns())
        except QuotaExceeded as error:
            self._on_refusal(self.principal, error, Verb.INFER, model)
            raise

    def _decide(self, verb: Verb, model: str) -> bool:
        if len(self._decisions) >= MAX_REMEMBERED:
            self._decisions.clear()
        allowed = self._decisions[verb, model] = self._permissions.may(verb, model)
        return allowed

    def refuse(self, error: PenstockError, verb: Verb, model: str = "") -> NoReturn:
        """Raises the error, which is told of as any other refusal."""
        self._on_refusal(self.principal, error, verb, model)
        raise error


class OpenSession:
    """Of everybody, where access is not controlled."""

    tenant: Final = "default"
    principal: Final[Principal | None] = None

    def known(self) -> None:
        """As Session says."""

    def may(self, verb: Verb, model: str = "") -> bool:
        """As Session says."""
        return True

    def check(self, verb: Verb, model: str = "") -> None:
        """As Session says."""

    def may_of(self, verb: Verb, tenant: str) -> bool:
        """As Session says."""
        return True

    def check_of(self, verb: Verb, tenant: str) -> None:
        """As Session says."""


class UnknownSession:
    """Of somebody whose credentials are missing or don't hold: it may use what is public."""

    tenant: Final = ""
    principal: Final[Principal | None] = None

    def __init__(self, error: Unauthenticated | Unavailable, on_refusal: OnRefusal) -> None:
        self._error = error
        self._on_refusal = on_refusal

    def known(self) -> None:
        """As Session says."""
        self._refuse("")

    def may(self, verb: Verb, model: str = "") -> bool:
        """As Session says."""
        return False

    def check(self, verb: Verb, model: str = "") -> None:
        """Raises Unauthenticated, or Unavailable."""
        self._refuse(verb, model)

    def may_of(self, verb: Verb, tenant: str) -> bool:
        """As Session says."""
        return False

    def check_of(self, verb: Verb, tenant: str) -> None:
        """Raises Unauthenticated, or Unavailable."""
        self._refuse(verb)

    def _refuse(self, verb: str, model: str = "") -> NoReturn:
        self._on_refusal(None, self._error, verb, model)
        raise self._error


AnySession = Session | OpenSession | UnknownSession
OPEN: Final = OpenSession()
