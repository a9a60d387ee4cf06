"""`/v2/tenants…`: what `penstock tenants` does, over HTTP, for those whose roles let them manage tenants."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from penstock.access.grants import Grants
from penstock.access.session import Session
from penstock.access.tenant_changes import ChangeTrace, Record, not_recorded
from penstock.access.tenants import TenantStore
from penstock.access_config import Role
from penstock.errors import ConfigError, Forbidden, Unavailable, Unsupported
from penstock.gateway import tenant_calls as calls
from penstock.gateway import tenant_descriptions as described
from penstock.gateway.http_types import HttpRequest, HttpResponse, json_response
from penstock.gateway.route_table import Handler, PathParameters, Route
from penstock.gateway.tenant_calls import TenantCall
from penstock.verbs import Verb

log = logging.getLogger(__name__)

OFF: Final = "there are no tenants to manage: access is not controlled (--access-mode required)"
UNAVAILABLE: Final = "the file of tenants can't be used now; the server's log has more"

Work = Callable[[TenantCall], Any]


class TenantsApi:
    """One a gateway."""

    def __init__(
        self,
        store: TenantStore | None,
        roles: Mapping[str, Role],
        record: Record = not_recorded,
    ) -> None:
        """`store`: None where access is not controlled. `record`: is told of changes, in a thread."""
        self._store = store
        self._roles = roles
        self._record = record
        # the store takes one after the other anyhow
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tenants")

    def routes(self) -> Iterator[Route]:
        """All of them."""
        one = "/v2/tenants/{tenant}"
        keys, quotas = f"{one}/keys", f"{one}/quotas"
        answer = self._answered
        yield Route("GET", "/v2/tenants", self._list, described.TENANTS)
        yield Route("POST", "/v2/tenants", answer(calls.create), described.CREATE)
        yield Route("GET", one, answer(calls.show), described.SHOW)
        yield Route("POST", one, answer(calls.change), described.CHANGE)
        yield Route("DELETE", one, answer(calls.delete), described.DELETE)
        yield Route("GET", keys, answer(calls.list_keys), described.KEYS)
        yield Route("POST", keys, answer(calls.create_key), described.CREATE_KEY)
        key = f"{keys}/{{key}}"
        yield Route("POST", f"{key}/rotate", answer(calls.rotate_key), described.ROTATE_KEY)
        yield Route("POST", f"{key}/revoke", answer(calls.revoke_key), described.REVOKE_KEY)
        yield Route("GET", quotas, answer(calls.list_quotas), described.QUOTAS)
        yield Route("POST", quotas, answer(calls.set_quota), described.SET_QUOTA)
        yield Route("DELETE", quotas, answer(calls.clear_quotas), described.CLEAR_QUOTAS)
        usage = f"{one}/usage[/since/{{since}}]"
        yield Route("GET", usage, answer(calls.show_usage), described.USAGE)

    def close(self) -> None:
        """End the thread, with what it has begun."""
        self._thread.shutdown(cancel_futures=True)

    def _answered(self, work: Work) -> Handler:
        async def handle(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
            return json_response(await self._do(work, parameters, request))

        return handle

    async def _list(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        """Those that the caller may manage."""
        tenants = await self._do(calls.list_tenants, parameters, request)
        may_of = request.session.may_of
        covered = [each for each in tenants if may_of(Verb.MANAGE_TENANTS, each["name"])]
        return json_response({"tenants": covered})

    async def _do(self, work: Work, parameters: PathParameters, request: HttpRequest) -> Any:
        """What the work returns. Raises Forbidden, and what the work raises."""
        store, session = self._store, request.session
        if store is None or not isinstance(session, Session):
            raise Unsupported(OFF)
        tenant = parameters.get("tenant", "")
        if tenant:
            session.check_of(Verb.MANAGE_TENANTS, tenant)
        call = TenantCall(
            store=store,
            grants=Grants(session.principal, self._roles),
            trace=ChangeTrace(session.principal.id, self._record),
            roles=self._roles,
            own_models=session.principal.models,
            tenant=tenant,
            key=parameters.get("key", ""),
            since=parameters.get("since", ""),
            body=request.body,
        )
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, call)
        except Forbidden as error:
            session.refuse(error, Verb.MANAGE_TENANTS)
        except (ConfigError, Unavailable) as error:
            if isinstance(error, Unavailable) and not isinstance(error.__cause__, sqlite3.Error):
                raise
            # it names the file
            log.warning("%s", error)
            raise Unavailable(UNAVAILABLE) from error
