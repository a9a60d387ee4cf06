"""What the gateway looks up of models: which are known, which are served, and the lines of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.errors import InvalidRequest, NotFound, Unavailable
from penstock.repository.entries import Entries, ModelEntry, report_lines
from penstock.repository.folders import MAX_VERSION
from penstock.repository.rolled import RolledOut
from penstock.repository.served_model import ServedModel
from penstock.workers.supervisor_messages import UNLOADED, ModelReport


class ModelIndex:
    """All models by name. `on_change` is called whenever a line of the index changes."""

    def __init__(self) -> None:
        self._entries = Entries()
        self.on_change: Callable[[], None] = lambda: None
        self._defaults: dict[str, int] = {}
        """Model → which version answers requests that name none, while it has that; of others the highest does that is
        ready."""
        self.rollouts: dict[str, RolledOut] = {}
        """Models of which two versions share the requests that name none. Change it by `roll_out`."""
        self.generation = 0
        """Counts changes: what was looked up before is to be looked up again."""
        self._starting = True
        """Models may still come that nobody knows yet."""

    def get(self, name: str, version: str = "") -> ServedModel:
        """The model's version; with none named its default one, or else its highest that is ready; while none is, one
        whose crashed worker is about to be back. Raises NotFound, Unavailable, InvalidRequest."""
        entry = self._entries.get(name)
        if self._starting and not (entry and entry.versions):
            raise Unavailable(f"model '{name}' can't be served yet: the server is starting")
        return self.find(name, version)

    def find(self, name: str, version: str = "") -> ServedModel:
        """As `get`, for those who know that the model would be there by now."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"Request for unknown model: '{name}' is not found")
        if version:
            return self._get_version(entry, _version_number(version))
        default = self._defaults.get(name)
        if default in entry.versions:
            # also when it can't answer: none that was not chosen takes its place
            return self._get_version(entry, default)
        if entry.only_default:
            why = f": {entry.reason}" if entry.reason else ""
            raise Unavailable(f"Request for unknown model: '{name}' has no default version{why}")
        models = [v.model for v in entry.versions.values() if v.model is not None]
        usable = [m for m in models if m.ready] or [m for m in models if m.accepts]
        if not usable:
            soon = bool(models) or any(v.state == "LOADING" for v in entry.versions.values())
            error = Unavailable if soon else NotFound
            why = "".join(f": {model.pool.last_crash}" for model in models[:1])
            raise error(f"Request for unknown model: '{name}' has no available versions{why}")
        return max(usable, key=lambda model: model.version)

    def default_version(self, name: str) -> int | None:
        """Which version `set_default` chose; None: none."""
        return self._defaults.get(name)

    def set_default(self, name: str, version: int | None) -> None:
        """Have that version answer requests that name none, from the next one on, for as long as the model has it.
        None: the highest that is ready, as it was. Raises NotFound, and Unavailable where it can't take requests."""
        if version is not None:
            self.get(name, str(version))
        self.expect_default(name, version)

    def expect_default(self, name: str, version: int | None) -> None:
        """As `set_default`, of a version that need not be there yet: when it comes, no other one answers before it."""
        if self._defaults.get(name) == version:
            return
        if version is None:
            del self._defaults[name]
        else:
            self._defaults[name] = version
        self._changed()

    def made_of(self, name: str, version: int) -> bytes:
        """Equal for what was loaded from the same files and configuration; empty: it is not served."""
        entry = self._entries.get(name)
        found = None if entry is None else entry.versions.get(version)
        return b"" if found is None or found.model is None else found.key

    def settled(self) -> list[tuple[str, int]]:
        """Models of which no version is being loaded, and the version that answers requests which name none."""
        calm = [
            name
            for name, entry in self._entries.items()
            if entry.serves and all(each.state != "LOADING" for each in entry.versions.values())
        ]
        return [(name, self.find(name).version) for name in calm if self.is_ready(name)]

    def roll_out(self, name: str, rollout: RolledOut | None) -> None:
        """Have that decide which version of the model answers, from the next request on; None: the default one does."""
        if rollout is None:
            self.rollouts.pop(name, None)
        else:
            self.rollouts[name] = rollout
        self._changed()

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether what `get` gives can take work now. Raises InvalidRequest on a version that is no number."""
        try:
            return self.get(name, version).ready
        except (NotFound, Unavailable):
            return False

    def versions(self, name: str) -> list[int]:
        """The loaded versions of a model, lowest first."""
        entry = self._entries.get(name)
        return sorted(v for v, e in entry.versions.items() if e.model) if entry else []

    def knows(self, name: str) -> bool:
        """Whether the index has the model, served or not."""
        return name in self._entries

    def why_not(self, name: str) -> str:
        """Why the model is not served, for a message; empty where nobody knows."""
        entry = self._entries.get(name)
        return "" if entry is None else "; ".join(entry.reasons)

    def matching(self, name: str = "", version: str = "") -> list[ServedModel]:
        """The served models of that name and version; empty means all. Raises as `get`, where it names one."""
        if name and version:
            return [self.get(name, version)]
        if name:
            self.get(name)
        return [model for model in self.served() if name in ("", model.name)]

    def served(self) -> Iterator[ServedModel]:
        """All loaded versions of all models."""
        for entry in self._entries.values():
            for version in entry.versions.values():
                if version.model is not None:
                    yield version.model

    def index(self) -> list[ModelReport]:
        """A line for each version of each model, also those that can't be served."""
        return report_lines(self._entries.values())

    def lines_of(self, name: str) -> list[ModelReport]:
        """Those of one model's versions."""
        entry = self._entries.get(name)
        return [line for line in report_lines([entry]) if line.version] if entry else []

    def wanted(self) -> dict[str, bool]:
        """Models that should be served, whether they can be or not → whether they were asked for by their names."""
        return {entry.name: entry.explicit for entry in self._entries.values() if entry.wanted}

    @property
    def all_ready(self) -> bool:
        """No model is unavailable, but for those that were unloaded on request."""
        return all(report.state == "READY" or report.reason == UNLOADED for report in self.index())

    def _changed(self) -> None:
        self.generation += 1
        self.on_change()

    def _get_version(self, entry: ModelEntry, number: int) -> ServedModel:
        version = entry.versions.get(number)
        if version is None:
            raise NotFound(
                f"Request for unknown model: '{entry.name}' version {number} is not found"
            )
        if version.model is None or not version.model.accepts:
            raise Unavailable(
                f"Request for unknown model: '{entry.name}' version {number} is not at ready state"
            )
        return version.model


def _version_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > MAX_VERSION:
        raise InvalidRequest(
            f"failed to get model version from specified version string '{text[:80]}', expected a number"
        )
    return int(text)
