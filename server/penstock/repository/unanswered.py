"""What requests are told that are not run to their end."""

from __future__ import annotations

from typing import Final

CLIENT_GONE: Final = "the client is gone"
IN_A_CIRCLE: Final = (
    "model '{model}' has no idle instance, and a call of it can't wait for one: the model that calls holds an instance "
    "that others wait for, which would be a deadlock. More instances of the models that call each other help"
)
UNLOADED: Final = "the model was unloaded"
