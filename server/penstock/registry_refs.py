"""References to models of a registry: `[NAME=]models:/MODEL`, `…/3`, `…@champion,challenger`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from penstock.errors import InvalidRequest

SCHEME: Final = "models:/"
EXPECTED: Final = "expected models:/NAME, models:/NAME/VERSION or models:/NAME@ALIAS[,ALIAS…]"
MAX_NAME_BYTES: Final = 255
"""Of a file's or folder's name, as file systems have it: a model is served from a folder of its name."""

_OWN_NAME: Final = re.compile(r"([^/=:]+)=(models:/.*)", re.DOTALL)
_ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_RESERVED: Final = re.compile(r"latest|v[0-9]+", re.IGNORECASE)
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")
# quotes would end a name in the registry's own filters
_FORBIDDEN: Final = frozenset("/:\"'`\\\0@,")


@dataclass(frozen=True, slots=True)
class RegistryRef:
    """What is to be served of a registered model. Without aliases and version: its latest version."""

    name: str
    """Under which it is served."""
    model: str
    """Its name in the registry."""
    aliases: tuple[str, ...] = ()
    version: int | None = None

    def __str__(self) -> str:
        own = f"{self.name}=" if self.name != self.model else ""
        what = f"/{self.version}" if self.version is not None else ""
        return (
            f"{own}{SCHEME}{self.model}{what}{'@' if self.aliases else ''}{','.join(self.aliases)}"
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """What it names one by one, in the form that `Part` has: `@champion`, `3`, or empty for the latest."""
        if self.aliases:
            return tuple(f"@{alias}" for alias in self.aliases)
        return (str(self.version) if self.version is not None else "",)


def is_ref(text: str) -> bool:
    """Whether a word of the command line is a reference, good or bad, and no folder."""
    return text.startswith("models:") or _OWN_NAME.fullmatch(text) is not None


def parse_ref(text: str, name: str = "") -> RegistryRef:
    """`name`: under which it is served, unless the text says. Raises InvalidRequest that says what was expected."""
    shown = f"{text[:200]!a}"
    own, uri = name, text
    if found := _OWN_NAME.fullmatch(text):
        own, uri = found[1], found[2]
    if not uri.startswith(SCHEME):
        raise InvalidRequest(f"{shown} is no reference to a registered model: {EXPECTED}")
    rest = uri.removeprefix(SCHEME)
    model, at, aliases = rest.partition("@")
    if at:
        ref = RegistryRef(own or model, model, _aliases(aliases, shown))
    else:
        model, slash, version = rest.partition("/")
        ref = RegistryRef(own or model, model, (), _version(version, shown) if slash else None)
    _check_name(ref.model, shown)
    _check_served_name(ref.name, shown)
    return ref


def parse_refs(texts: Iterable[str]) -> tuple[RegistryRef, ...]:
    """All of them. Raises InvalidRequest, also where two registered models would be served under one name."""
    refs = tuple(dict.fromkeys(map(parse_ref, texts)))
    check_together(refs)
    return refs


def check_together(refs: Iterable[RegistryRef]) -> None:
    """Raises InvalidRequest where two registered models would be served under one name."""
    models: dict[str, RegistryRef] = {}
    for ref in refs:
        first = models.setdefault(ref.name, ref)
        if first.model != ref.model:
            raise InvalidRequest(
                f"{first} and {ref} would be served under the same name, '{ref.name}':"
                f" expected another one, as OTHER={SCHEME}{ref.model}"
            )


def parse_part(text: str) -> str:
    """One of a reference's `parts`, as a person may write it: `@challenger`, `4`, `latest`, or a whole reference of
    one part. Raises InvalidRequest."""
    if text.startswith("models:"):
        part, *more = parse_ref(text).parts
        if more:
            raise InvalidRequest(f"{text[:200]!a} names several versions, expected one")
        return part
    shown = f"{text[:200]!a}"
    if text.lower() in ("", "latest"):
        return ""
    if text.startswith("@"):
        return f"@{_alias(text[1:], shown)}"
    return str(_version(text, shown))


def _aliases(text: str, shown: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_alias(word, shown) for word in text.split(",")))


def _alias(text: str, shown: str) -> str:
    if not _ALIAS.fullmatch(text):
        raise InvalidRequest(
            f"{shown}: {text[:200]!a} is no alias, expected letters, digits, `-` and `_`"
        )
    if _RESERVED.fullmatch(text):
        raise InvalidRequest(
            f"{shown}: MLflow has no alias {text}: expected models:/NAME for the latest version,"
            " models:/NAME/3 for version 3"
        )
    return text


def _version(text: str, shown: str) -> int:
    if not _VERSION.fullmatch(text):
        raise InvalidRequest(f"{shown}: {text[:200]!a} is no version, expected a number from 1 on")
    return int(text)


def _check_name(model: str, shown: str) -> None:
    if not model.strip() or not model.isprintable() or _FORBIDDEN & set(model):
        raise InvalidRequest(f"{shown} names no registered model: {EXPECTED}")


def _check_served_name(name: str, shown: str) -> None:
    bad = name.startswith((".", "__")) or _FORBIDDEN & set(name) or not name.isprintable()
    if bad or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise InvalidRequest(
            f"{shown}: a model can't be served as {name[:200]!a}, which is no name of a folder: expected another one,"
            f" as NAME={SCHEME}MODEL"
        )
