"""What one model's references mean, what of that is there, and what is to be brought. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.registry.manifest import Known, Manifest
from penstock.registry.messages import RegistryModel, RegistryVersion
from penstock.registry.source import ModelFacts
from penstock.registry_refs import RegistryRef

FIRST_RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 600.0
"""Until a fetch that failed is tried again: doubles with each failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Of a fetch."""

    text: str
    tries: int
    due_at: float


class Followed:
    """One model as it is served. Each method says what has become known."""

    def __init__(self, refs: Sequence[RegistryRef], known: Known) -> None:
        """`refs`: all of one served name. `known`: what they meant when a server last knew."""
        self.name: Final = refs[0].name
        self.registered: Final = refs[0].model
        self.refs: Final = tuple(map(str, refs))
        self.parts: Final = tuple(dict.fromkeys(part for ref in refs for part in ref.parts))
        self.meant: Final[dict[str, int]] = {p: int(p) for p in self.parts if p.isdigit()}
        """Part of a reference → the version that it means."""
        self.present: Final[dict[int, Manifest | None]] = {}
        """What lies in the view; None: what it consists of is not known any more."""
        self.bringing: Final[set[int]] = set()
        self.held: set[int] = set()
        """Versions that the gateway asked for."""
        self.default: int | None = None
        self.aliases: dict[str, int] = dict(known.aliases)
        self.gone = False
        self._known: Final = known
        self._answered = False
        """The registry has said what the parts mean, or it can't now."""
        self._may_bring = False
        """What parts mean is known, or it is not waited for any longer."""
        self._problem = ""
        self._missing: dict[str, str] = {}
        """Part → why it means nothing."""
        self._failures: Final[dict[int, Failure]] = {}
        self._revision = 0

    @property
    def needs_latest(self) -> bool:
        """The registry has to be asked for the latest version."""
        return "" in self.parts

    @property
    def wanted(self) -> set[int]:
        """Versions that are to be there."""
        return set(self.meant.values()) | self.held

    def adopt(self, present: Mapping[int, Manifest | None], before: RegistryModel | None) -> None:
        """Another agent has brought that, and has last said this."""
        self.present.update(present)
        if before is not None:
            self._revision = before.revision
            if before.default in present:
                self.default = before.default

    def take(self, facts: ModelFacts) -> None:
        """The registry has answered. What a part meant goes on where it means nothing now."""
        self._answered, self._problem, self._missing = True, "", {}
        self.aliases = dict(facts.aliases)
        for part in self.parts:
            if part.isdigit():
                continue
            found = facts.aliases.get(part[1:]) if part else facts.latest
            if found is None:
                what = f"alias '{part[1:]}'" if part else "version that is ready"
                self._missing[part] = f"registered model '{self.registered}' has no {what}"
            elif self.meant.get(part) != found:
                self.meant[part] = found
                self._failures.pop(found, None)
        self.fall_back()
        self._settle_default()

    def refuse(self, problem: str) -> None:
        """The registry has answered that there is no such model, or that it does not say."""
        self._answered, self._problem = True, problem
        self.fall_back()

    def away(self, problem: str) -> None:
        """It can't be asked now."""
        self._answered, self._problem = True, problem
        self.fall_back()

    def fall_back(self) -> None:
        """What the registry has not said, or says no more, means what it meant before, for as long as need be."""
        self._may_bring = True
        for part in self.parts:
            if part not in self.meant and part in self._known.meant:
                self.meant[part] = self._known.meant[part]
        self._settle_default()

    def due(self, now: float) -> list[int]:
        """Versions to be brought now."""
        if not self._may_bring:
            return []
        return [
            version
            for version in sorted(self.wanted - self.present.keys() - self.bringing)
            if version not in self._failures or self._failures[version].due_at <= now
        ]

    def begin(self, version: int) -> None:
        """It is on its way."""
        self.bringing.add(version)

    def brought(self, version: int, manifest: Manifest) -> None:
        """It is in the view."""
        self.bringing.discard(version)
        self._failures.pop(version, None)
        self.present[version] = manifest
        self._revision += 1
        self._settle_default()

    def failed(self, version: int, text: str, now: float) -> None:
        """It is not."""
        self.bringing.discard(version)
        tries = self._failures[version].tries + 1 if version in self._failures else 1
        delay_s: float = min(FIRST_RETRY_S * 2.0 ** (tries - 1), LONGEST_RETRY_S)
        self._failures[version] = Failure(text, tries, now + delay_s)

    def retry(self) -> None:
        """Somebody says that things have changed: what failed is due at once."""
        for version, failure in self._failures.items():
            self._failures[version] = Failure(failure.text, failure.tries, 0.0)

    def next_due_at(self) -> float | None:
        """When a fetch is to be tried again; None: none is."""
        awaited = self.wanted - self.bringing
        waiting = [
            failure.due_at for version, failure in self._failures.items() if version in awaited
        ]
        return min(waiting, default=None)

    def hold(self, versions: Collection[int]) -> None:
        """The gateway asks for exactly these, whatever references mean."""
        self.held = set(versions)
        for version in self._failures.keys() - self.wanted:
            del self._failures[version]

    def may_release(self, version: int) -> bool:
        """Nobody wants it, and there is something else to be served."""
        if self.gone:
            return version not in self.held
        known = all(part in self.meant for part in self.parts)
        return known and version not in self.wanted and version != self.default

    def released(self, version: int) -> None:
        """It is not in the view any more."""
        self.present.pop(version, None)
        self._revision += 1

    def beside_changed(self) -> None:
        """What lies beside the versions is another one."""
        self._revision += 1

    def known(self) -> Known:
        """What to remember: only what can be served without the registry."""
        here = {part: version for part, version in self.meant.items() if version in self.present}
        meant = {**self._known.meant, **here}
        return Known(meant=meant, aliases=self.aliases)

    def state(self) -> RegistryModel:
        """For the gateway."""
        wanted = self.wanted
        there_or_not = self.present.keys() | self._failures.keys()
        known = self._answered or all(part in self.meant for part in self.parts)
        return RegistryModel(
            name=self.name,
            registered=self.registered,
            refs=self.refs,
            versions=tuple(self._version(v) for v in sorted(self.present)),
            default=self.default,
            aliases=dict(sorted(self.aliases.items())),
            problem=self._why_not(),
            fetching=tuple(sorted(self.bringing)),
            gone=self.gone,
            settled=known and wanted <= there_or_not and not self.bringing & wanted,
            revision=self._revision,
        )

    def _version(self, version: int) -> RegistryVersion:
        manifest = self.present[version]
        return RegistryVersion(
            version=version,
            wanted=not self.may_release(version),
            digest=manifest.digest if manifest else "",
            run_id=manifest.run_id if manifest else "",
        )

    def _settle_default(self) -> None:
        """The first part's version, once it is there: until then the one before goes on."""
        first = self.meant.get(self.parts[0])
        if first in self.present:
            self.default = first

    def _why_not(self) -> str:
        texts = [self._problem, *self._missing.values()]
        texts += [
            f"version {version}: {failure.text}"
            for version, failure in sorted(self._failures.items())
            if version in self.wanted
        ]
        return "; ".join(filter(None, texts))
