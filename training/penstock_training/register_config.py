"""`[register]`: what becomes of a trained model. train-register's part of the configuration."""

from __future__ import annotations

from penstock.config_section import Section


class RegisterSettings(Section):
    """The registered model, and what a version has to be good for."""

    name: str
    """Registered model that the run makes a version of."""
    alias: str = "challenger"
    """Alias of a version that passes all gates."""
