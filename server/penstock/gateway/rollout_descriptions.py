"""What the routes of roll-outs ask of their caller, and what `/openapi.json` says of them."""

from __future__ import annotations

from typing import Final

from penstock.access.rules import of, of_model
from penstock.gateway.route_table import Description
from penstock.verbs import Verb

_TAG: Final = "rollouts"
_RULE: Final = of_model(Verb.ROLLOUT)

ROLLOUTS: Final = Description(
    tag=_TAG,
    rule=of(Verb.ROLLOUT),
    summary="The last roll-out of each model, also those that are over",
    response="Rollouts",
    errors=(403,),
)
START: Final = Description(
    tag=_TAG,
    rule=_RULE,
    action="rollout.start",
    summary="Try another version of a model on a share of its requests; 409 while one is tried already",
    request="NewRollout",
    response="Rollout",
    errors=(400, 403, 404, 409, 503),
)
SHOW: Final = Description(
    tag=_TAG,
    rule=_RULE,
    summary="A model's last roll-out: its step, what was seen of both versions, and the evidence",
    response="Rollout",
    errors=(403, 404),
)
FORGET: Final = Description(
    tag=_TAG,
    rule=_RULE,
    action="rollout.forget",
    summary="Go back to the stable version if it is not decided yet, and forget the roll-out",
    response="Rollout",
    errors=(403, 404, 409, 503),
)


def _change(action: str, summary: str) -> Description:
    return Description(
        tag=_TAG,
        rule=_RULE,
        action=f"rollout.{action}",
        summary=summary,
        response="Rollout",
        errors=(400, 403, 404, 503),
    )


PAUSE: Final = _change("pause", "Stay at the step; guards go on")
RESUME: Final = _change("resume", "Go on with the step")
PROMOTE: Final = _change("promote", "Have the candidate answer all requests that name no version")
ABORT: Final = _change("abort", "Go back to the stable version")
