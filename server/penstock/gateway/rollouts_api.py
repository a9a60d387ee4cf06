"""`/v2/models/NAME/rollout` and `/v2/rollouts`: what `penstock rollout` does, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from penstock.access.session import AnySession
from penstock.gateway import rollout_descriptions as described
from penstock.gateway.auditing import principal_of
from penstock.gateway.http_types import HttpRequest, HttpResponse
from penstock.gateway.rollout_request import parse_request
from penstock.gateway.rollout_run import RolloutRun
from penstock.gateway.rollouts import Rollouts
from penstock.gateway.route_table import Handler, PathParameters, Route
from penstock.verbs import Verb

MODEL: Final = "/v2/models/{model}/rollout"

_encode: Final = msgspec.json.Encoder().encode


class RolloutsApi:
    """One a gateway."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    def routes(self) -> Iterator[Route]:
        """All of them."""
        rollouts = self._rollouts
        yield Route("GET", "/v2/rollouts", self._list, described.ROLLOUTS)
        yield Route("POST", MODEL, self._start, described.START)
        yield Route("GET", MODEL, self._show, described.SHOW)
        yield Route("DELETE", MODEL, self._forget, described.FORGET)
        yield Route("POST", f"{MODEL}/pause", _asked(rollouts.pause), described.PAUSE)
        yield Route("POST", f"{MODEL}/resume", _asked(rollouts.resume), described.RESUME)
        yield Route("POST", f"{MODEL}/promote", _asked(rollouts.promote), described.PROMOTE)
        yield Route("POST", f"{MODEL}/abort", self._abort, described.ABORT)

    async def _list(self, _: PathParameters, request: HttpRequest) -> HttpResponse:
        """Those of models that its reader may know of."""
        may = request.session.may
        views = [
            run.view() for run in self._rollouts.index.runs() if may(Verb.ROLLOUT, run.plan.model)
        ]
        return HttpResponse(_encode({"rollouts": views}))

    async def _show(self, parameters: PathParameters, _: HttpRequest) -> HttpResponse:
        return _answer(self._rollouts.index.run_of(parameters["model"]))

    async def _start(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        asked = parse_request(request.body)
        by = _name_of(request.session)
        return _answer(await self._rollouts.start(parameters["model"], asked, by))

    async def _abort(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        return _answer(self._rollouts.abort(parameters["model"], _aborted(request.session)))

    async def _forget(self, parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        model, reason = parameters["model"], _aborted(request.session)
        return _answer(await self._rollouts.forget(model, reason))


def _asked(do: Callable[[str, str], RolloutRun]) -> Handler:
    async def handle(parameters: PathParameters, request: HttpRequest) -> HttpResponse:
        return _answer(do(parameters["model"], _name_of(request.session)))

    return handle


def _answer(run: RolloutRun) -> HttpResponse:
    return HttpResponse(_encode(run.view()))


def _name_of(session: AnySession) -> str:
    """Who asks; empty where that is not asked."""
    principal = principal_of(session)
    return principal.id if principal else ""


def _aborted(session: AnySession) -> str:
    name = _name_of(session)
    return f"aborted by {name}" if name else "aborted"
