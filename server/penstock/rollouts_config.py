"""`[rollouts]`: how new versions of models are tried, where nobody says it of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, field_validator

from penstock.config_section import Pattern, Section, state_folder

MAX_STEPS: Final = 100

Percent = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] | Literal["off"]
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)] | Literal["off"]
Alias = Annotated[str, StringConstraints(pattern=r"^@[^@/]{1,256}$")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RolloutGuards(Section):
    """`[rollouts.guards]`: what a candidate may do worse than the stable version; `off`: anything."""

    error_rate: Share = 0.002
    """Share of requests that may fail beyond the share that fails with the stable version."""
    p99_ratio: Ratio = 1.15
    """How many times as long as the stable version's the candidate's latencies may be."""
    drift: Share = 0.05
    """Share of outputs that may be distributed otherwise."""
    mismatches: Share = 0.01
    """In shadow mode: share of requests whose outputs may differ beyond the tolerance."""
    non_finite: Share = 0.0
    """Share of answers with NaN or infinity beyond the share that the stable version gives."""
    min_windows: Annotated[int, Field(ge=0)] = 10
    """How often the versions are compared in a step, at least, before the next one begins; with fewer a bad candidate
    may not be told from a good one."""
    false_alarm: Annotated[float, Field(ge=1e-9, le=0.5)] = 0.01
    """Chance that a candidate is taken back that is as good as allowed, over a whole roll-out."""


class RolloutsSettings(Section):
    """How new versions of models are tried."""

    folder: Path | None = None
    """Folder where roll-outs are kept that outlive the server, for one server alone; none: one for these repositories,
    or registered models, in $XDG_STATE_HOME/penstock/rollouts, which is in ~/.local/state unless it says otherwise."""
    hold: tuple[Pattern, ...] = ()
    """Models whose new versions get no requests but by a roll-out. Repeatable; `,` in the environment."""
    steps: tuple[Percent, ...] = (1.0, 10.0, 50.0, 100.0)
    """Percentages of requests that a candidate gets, one after the other. Repeatable; `,` in the environment."""
    step_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    """How long each step lasts at least."""
    min_requests: Annotated[int, Field(ge=0)] = 100
    """Requests that a candidate has answered in a step before the next one begins."""
    mode: Literal["canary", "shadow"] = "canary"
    """canary: clients get the candidate's answers. shadow: it gets copies of their requests, and its outputs are
    compared."""
    promote: bool = True
    """Promote a candidate when all steps have gone well; false: wait until somebody does."""
    fallback: bool = True
    """Run a request that the candidate fails on the stable version again."""
    sticky: bool = True
    """A tenant's requests of one id go to the same version; false: each request is drawn anew."""
    absent_secs: Amount = 30
    """How long a candidate may take no requests, as while its worker is started anew, before it is taken back."""
    follow: Mapping[str, Alias] = Field(default_factory=dict)
    """Model → alias of the registry, such as `@challenger`: a version that it comes to mean, and that was not tried
    yet, is rolled out by itself."""
    guards: RolloutGuards = Field(default_factory=RolloutGuards)
    """What a candidate may do worse."""

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(one < other for one, other in pairwise(value))
        if not value or len(value) > MAX_STEPS or not rising:
            raise ValueError(
                f"expected 1 to {MAX_STEPS} percentages that rise, such as 1,10,50,100"
            )
        return value


def rollouts_state() -> Path:
    """Where folders of roll-outs lie, unless settings name one."""
    return state_folder() / "rollouts"
