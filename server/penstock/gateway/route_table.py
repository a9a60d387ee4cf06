"""The table of HTTP routes: what the router looks requests up in, and what `/openapi.json` is made from."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from penstock.access.rules import PUBLIC, Rule
from penstock.access.session import AnySession
from penstock.errors import NotFound
from penstock.gateway.auditing import Auditing, details_of_http
from penstock.gateway.http_types import HttpRequest, HttpResponse, InferCall, error_response

Reply = HttpResponse | InferCall
"""An answer, or the inference that gives it."""
PathParameters = Mapping[str, str]
"""What the path has in place of a template's names; those that an optional part left out are empty."""
Handler = Callable[[PathParameters, HttpRequest], Awaitable[Reply]]

_NAME: Final = re.compile(r"\{(\w+)\}")
_OPTIONAL: Final = re.compile(r"\[([^]]*)\]")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader of the API is told of a route."""

    tag: str
    summary: str
    rule: Rule
    """What is asked of who calls it. Inference is allowed or not by its model as well."""
    action: str = ""
    """What is done to the server, for the audit log; empty: nothing, or the handler itself records it."""
    request: str = ""
    """Name of the schema of the body; empty: there is none."""
    optional_body: bool = False
    response: str = ""
    """Name of the schema of a success; empty: it has no body."""
    media_type: str = "application/json"
    """Of a success."""
    errors: tuple[int, ...] = ()
    """Statuses of the errors to be expected."""
    headers: tuple[str, ...] = ()
    """Of the request, those that it acts on."""


class Route(msgspec.Struct, frozen=True):
    """A method of a path. `template` has names in braces, and optional parts in brackets."""

    method: str
    template: str
    handler: Handler
    description: Description

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths in OpenAPI's form: with and without the optional part."""
        without = _OPTIONAL.sub("", self.template)
        whole = _OPTIONAL.sub(r"\1", self.template)
        return (whole,) if whole == without else (without, whole)


class RouteTable:
    """Finds the route of a request. Of templates that fit a path the first one holds."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: Final = tuple(routes)
        self._by_template: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in self.routes:
            known = self._by_template.get(route.template)
            pattern, methods = known or (_pattern(route.template), {})
            methods[route.method] = route
            self._by_template[route.template] = pattern, methods
        self.auditing: Auditing | None = None
        """Records what routes with an action do."""

    def admit(self, method: str, path: str, session: AnySession) -> None:
        """What can be said of a request before its body is read. Raises Unauthenticated, Forbidden.

        Who is not known is not told either which routes there are."""
        try:
            methods, parameters = self._find(path)
        except NotFound:
            session.known()
            return
        route = methods.get(method)
        rule = PUBLIC if route is None else route.description.rule
        if rule.verb is not None:
            session.check(rule.verb, parameters.get(rule.model, ""))

    async def __call__(self, path: str, request: HttpRequest) -> Reply:
        """Answer a request. Raises Unauthenticated, Forbidden, NotFound on an unknown route, and whatever the handler
        raises."""
        self.admit(request.method, path, request.session)
        methods, parameters = self._find(path)
        route = methods.get(request.method)
        if route is None:
            allowed = ", ".join(methods)
            text = f"method {request.method} is not allowed, use {allowed}"
            headers = (("allow", allowed),)
            return error_response(text, HTTPStatus.METHOD_NOT_ALLOWED, headers)
        action = route.description.action
        if action and self.auditing is not None:
            return await self._recorded(self.auditing, action, route, parameters, request)
        return await route.handler(parameters, request)

    async def _recorded(
        self,
        auditing: Auditing,
        action: str,
        route: Route,
        parameters: PathParameters,
        request: HttpRequest,
    ) -> Reply:
        details = await details_of_http(request.method, request.body)
        model = parameters.get("model", "")
        async with auditing.action(action, request.session, model, details) as about:
            reply = await route.handler(parameters, request)
            if isinstance(reply, HttpResponse) and reply.status >= HTTPStatus.BAD_REQUEST:
                about.problem = f"status {int(reply.status)}"
            return reply

    def methods(self, path: str) -> tuple[str, ...]:
        """What the path may be asked with. Raises NotFound."""
        return tuple(self._find(path)[0])

    def _find(self, path: str) -> tuple[Mapping[str, Route], PathParameters]:
        bare = f"/{path.strip('/')}"
        for pattern, methods in self._by_template.values():
            if found := pattern.fullmatch(bare):
                return methods, {name: value or "" for name, value in found.groupdict().items()}
        raise NotFound(f"unknown route {path[:200]}")


def _pattern(template: str) -> re.Pattern[str]:
    """`/v2/models/{model}[/versions/{version}]` as a regular expression."""
    parts = re.split(r"([][]|\{\w+\})", template)
    return re.compile("".join(map(_part, parts)))


def _part(part: str) -> str:
    if part == "[":
        return "(?:"
    if part == "]":
        return ")?"
    if name := _NAME.fullmatch(part):
        return f"(?P<{name[1]}>[^/]+)"
    return re.escape(part)
