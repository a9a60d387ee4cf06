"""`[registry]`: the MLflow registry that models are taken from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import ByteSize, Field, StringConstraints, field_validator, model_validator

from penstock.config_section import Section, state_folder
from penstock.errors import InvalidRequest
from penstock.registry_refs import RegistryRef, parse_refs
from penstock.secrets_config import SecretRef

ENTRY: Final = "registry.toml"
"""In a model's folder of a repository: the model is taken from the registry."""
VIEWS: Final = "views"
"""In the cache's folder: what each server that runs serves, as a repository of its own."""

_PASSWORD: Final = re.compile(r"://[^/@\s]*:[^/@\s]*@")


class RegistrySettings(Section):
    """The MLflow registry that models are taken from."""

    uri: Annotated[str, StringConstraints(pattern=r"^\S*$")] = ""
    """Of MLflow's tracking server, as https://mlflow:5000, or of its database; none: `penstock/mlflow.db` (SQLite) in
    $XDG_STATE_HOME, which is ~/.local/state unless it says otherwise."""
    uri_secret: SecretRef | None = None
    """Where the URI is kept, if it holds a password, as those of databases do."""
    models: tuple[str, ...] = ()
    """Model to take from it, as [NAME=]models:/MODEL@ALIAS[,ALIAS…], models:/MODEL/VERSION, or models:/MODEL for the
    latest version. Repeatable; `,` between references in the environment."""
    poll_secs: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 30
    """Seconds from one question to the registry to the next, give or take a fifth."""
    timeout_secs: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10
    """Seconds that the registry may take to answer, and to send some more of a file."""
    cache_folder: Path | None = None
    """Where files of models are kept; none: `penstock/registry` in $XDG_STATE_HOME, which is ~/.local/state unless it
    says otherwise. Servers may share it."""
    cache_size: Annotated[ByteSize, Field(ge=0)] = ByteSize(0)
    """How much it may hold, in bytes or as 20GiB: what is not served goes first; 0: no limit."""
    artifact_folders: tuple[Path, ...] = ()
    """Folders of this machine that files may be taken from where a registry on another one says so. Repeatable."""
    token: SecretRef | None = None
    """Where the token is that the tracking server asks for."""
    username: SecretRef | None = None
    """Where the user's name is, for a tracking server that asks for it with a password."""
    password: SecretRef | None = None
    """Where that password is."""
    ca_file: Path | None = None
    """Certificates by which the tracking server's own is checked; none: those of the system."""
    webhook_secret: SecretRef | None = None
    """Where the secret is that MLflow's webhooks are signed with; none: webhooks are refused."""
    server_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_. :/-]{0,100}$")] = ""
    """What this server is called in tags of versions; none: its host's name and HTTP port."""
    report_deployment: bool = True
    """Write to tags of versions how they are served here."""

    @field_validator("models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        # a comma is also between aliases: what follows it is a reference only if it looks like one
        if not isinstance(value, str):
            return value
        return tuple(filter(None, re.split(r",(?=\s*(?:[^,/=:@]+=)?models:)", value)))

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_refs(value)
        except InvalidRequest as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, value: str) -> str:
        if _PASSWORD.search(value):
            # not shown: the text would end in a log
            raise ValueError("holds a password: expected username and password, or uri_secret")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.uri and self.uri_secret is not None:
            raise ValueError("uri and uri_secret say the same: expected only one of them")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: expected both or none")
        if self.token is not None and self.username is not None:
            raise ValueError("token and username exclude each other: expected one of them")
        return self

    @property
    def given(self) -> bool:
        """Whether there is to be a registry, as far as settings say: entries of repositories may ask for one too."""
        return bool(self.models or self.uri or self.uri_secret)

    @property
    def default_uri(self) -> str:
        """`uri`, resolved where it is not kept as a secret."""
        return self.uri or f"sqlite:///{state_folder() / 'mlflow.db'}"

    @property
    def cache_path(self) -> Path:
        """`cache_folder`, resolved."""
        return self.cache_folder or state_folder() / "registry"

    def view_of(self, run_dir: Path) -> Path:
        """The repository of what the server of that run serves from the registry. It is there where an agent is."""
        return self.cache_path / VIEWS / run_dir.name

    @property
    def refs(self) -> tuple[RegistryRef, ...]:
        """`models`, parsed."""
        return parse_refs(self.models)
