"""`[tracking]`: where runs are noted. train-register's part of the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from penstock.config_section import Section


class TrackingSettings(Section):
    """MLflow."""

    uri: str = ""
    """Tracking server or store (`http://…`, `sqlite:///mlflow.db`); empty: the run is noted in its folder only."""
    experiment: str = "penstock"
    """Experiment that the run belongs to."""
    run_name: str = ""
    """Name of the run; empty: MLflow makes one up."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    """Tags of the run."""
