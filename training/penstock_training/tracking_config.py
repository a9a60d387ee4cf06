"""`[tracking]`: where runs are noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from penstock.config_section import Section

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrackingSettings(Section):
    """MLflow. Its own variables (`MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_TOKEN` and so on) say who is asking."""

    uri: str = ""
    """Tracking server or store (`http://…`, `sqlite:///mlflow.db`); empty: the run is noted in its folder only."""
    experiment: str = "penstock"
    """Experiment that the run belongs to."""
    run_name: str = ""
    """Name of the run; empty: MLflow makes one up."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    """Tags of the run."""
    checkpoints: Literal["link", "upload"] = "link"
    """link: the run says where they lie. upload: each becomes an artifact of the run too, also when newer ones come."""
    system_metrics_secs: Seconds = 10
    """Seconds from one sample of processor, memory, disk, network and GPU to the next; 0: none."""
    git_diff: bool = True
    """Keep what was changed since the last commit as an artifact of the run."""
    finish_secs: Seconds = 60
    """How long the end of a training waits for a server that is away. What is not sent by then stays in the run's
    folder, and `penstock-train register` sends it."""
