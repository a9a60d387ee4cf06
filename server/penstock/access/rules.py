"""What a route or an RPC asks of who calls it."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.verbs import Verb


class Rule(msgspec.Struct, frozen=True):
    """Of one route or RPC. Where the request names a model, the verb must be allowed for that."""

    verb: Verb | None
    """None: whoever reaches the port may call it."""
    model: str = ""
    """The path's parameter, or the message's field, that names the model; empty: it is about none. A request that
    leaves it empty asks for all, and is answered for those that its sender may do this with."""


PUBLIC: Final = Rule(None)


def of(verb: Verb) -> Rule:
    """Of what is about no model."""
    return Rule(verb)


def of_model(verb: Verb, model: str = "model") -> Rule:
    """Of what is about the model that the parameter or field of that name says."""
    return Rule(verb, model)
