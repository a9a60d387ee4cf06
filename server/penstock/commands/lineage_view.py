"""Where a model version comes from, for a person: what he asks for first, and what identifies it to the last file after
that. Parameters and metrics of the machine are many, and shown where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.text import Text
from rich.tree import Tree

from penstock.logs import without_controls

MOST_FILES: Final = 20
"""Of a version, unless all is asked for."""
_SHORT: Final = 12
_SYSTEM: Final = "system/"
"""Before MLflow's metrics of the machine."""

_GATES: Final = "penstock.gates"
_CHECKS: Final = {
    "penstock.onnx.max_error": "ONNX max error",
    "penstock.report": "report",
}
_ROLLOUT: Final = "penstock.rollout"
_PROMOTED_BY: Final = "penstock.promoted.by"
_PROMOTED_AT: Final = "penstock.promoted.at"
_UNKNOWN: Final = {
    "rollout": "its roll-out (who began it is not known: access was not controlled)",
    "hand": "hand (whose is not known: access was not controlled)",
}
"""What has promoted a version where nobody who is known has asked for it → what is told of that."""
_CODE: Final = {
    "penstock.git.revision": "revision",
    "penstock.git.dirty": "dirty",
    "penstock.config.digest": "configuration",
}
_RUN: Final = {"penstock.run.host": "host", "penstock.run.folder": "folder"}
_DATA: Final = "penstock.data."
_DEPLOYMENT: Final = "penstock.deployment."
_SIGNED_BY: Final = "penstock.signed.by"
_DIGEST: Final = "penstock.model_digest"
_TOLD: Final = frozenset(
    (
        *(_GATES, *_CHECKS, _ROLLOUT, _PROMOTED_BY, _PROMOTED_AT, *_CODE, *_RUN),
        *(_SIGNED_BY, _DIGEST, "penstock.run.id"),
    )
)
_TOLD_TOGETHER: Final = (_DATA, _DEPLOYMENT)


class _Rollout(msgspec.Struct):
    """The tag `penstock.rollout`, as far as it is shown."""

    status: str
    stable: int
    share: float
    at: str = ""
    reason: str = ""


class _Deployment(msgspec.Struct):
    """The tag `penstock.deployment.SERVER`."""

    state: str
    since: str = ""
    share: float = 0
    healthy: bool = True


def as_tree(lineage: Mapping[str, Any], *, everything: bool = False) -> Tree:
    """What was told. `everything`: parameters, metrics of the machine, and all files too."""
    tree = Tree(Text(f"{lineage['model']} {lineage['version']}", "bold"))
    registry = lineage.get("registry")
    digest = str(lineage.get("digest", ""))
    if registry:
        _origin(tree, registry, everything=everything)
    if steps := lineage.get("steps"):
        _branch(tree, "steps", ((each["model"], _step(each)) for each in steps))
    if registry:
        _registered(tree, registry, digest)
    elif problem := lineage.get("registry_problem"):
        tree.add(_line("registry", problem, "red"))
    else:
        tree.add(_line("registry", "it comes from a folder, not from a registry", "dim"))
    _release(tree, lineage)
    _files(tree, lineage, everything=everything)
    if registry:
        _branch(tree, "tags", _others(registry.get("tags", {})).items())
    return tree


# ── what is asked for first ─────────────────────────────────────────────────────────────────────────────────────────


def _origin(tree: Tree, registry: Mapping[str, Any], *, everything: bool) -> None:
    tags: Mapping[str, str] = registry.get("tags", {})
    _promoted(tree, tags)
    _branch(tree, "gates", _named(tags, _CHECKS).items(), tags.get(_GATES, ""))
    _data(tree, registry, tags)
    _branch(tree, "code", {**registry.get("code", {}), **_named(tags, _CODE)}.items())
    if run := registry.get("run"):
        _run(tree, run, tags, everything=everything)


def _promoted(tree: Tree, tags: Mapping[str, str]) -> None:
    by = tags.get(_PROMOTED_BY, "")
    by = _UNKNOWN.get(by, by)
    if told := " by ".join(filter(None, (tags.get(_PROMOTED_AT, ""), by))):
        tree.add(_line("promoted", told))
    text = tags.get(_ROLLOUT)
    if not text:
        return
    found = _read(text, _Rollout)
    if found is None:
        tree.add(_line("rollout", text))
        return
    why = f": {found.reason}" if found.reason else ""
    status = (
        f"{found.status.replace('_', ' ')}, beside version {found.stable}, at {found.share:g} %"
    )
    style = "red" if found.status in ("rolled_back", "aborted") else ""
    tree.add(_line("rollout", f"{status}, {found.at}{why}", style))


def _data(tree: Tree, registry: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    tables = {name.removeprefix(_DATA): tags[name] for name in tags if name.startswith(_DATA)}
    known = set(tables.values())
    sets = (
        (str(each.get("name", "dataset")), _dataset(each, known))
        for each in registry.get("data", ())
    )
    _branch(tree, "data", (*tables.items(), *sets))


def _dataset(told: Mapping[str, Any], known: set[str]) -> str:
    """Source, digest and what it was for, as far as nothing else has said that."""
    source = str(told.get("source") or "")
    fields = _read(source, dict[str, Any])
    parts = [source] if fields is None else _pairs(fields, known)
    digest = str(told.get("digest") or "")
    # MLflow cuts them
    if not any(each.startswith(digest) for each in known):
        parts.append(digest)
    return "  ".join(filter(None, (*parts, str(told.get("context") or ""))))


def _pairs(fields: Mapping[str, Any], known: set[str]) -> list[str]:
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in fields.items()
        if value
    }
    return [f"{name} {text}" for name, text in texts.items() if text not in known]


def _run(tree: Tree, run: Mapping[str, Any], tags: Mapping[str, str], *, everything: bool) -> None:
    name = " ".join(filter(None, (run.get("name"), run.get("run_id"))))
    rows = {
        "status": run.get("status"),
        "started": _by_and_at(run.get("user"), run.get("started_at_ms")),
        "ended": _by_and_at("", run.get("ended_at_ms")),
        **_named(tags, _RUN),
    }
    branch = tree.add(_line("run", name))
    for label, text in rows.items():
        if text:
            branch.add(_line(label, str(text)))
    metrics: Mapping[str, float] = run.get("metrics", {})
    params: Mapping[str, str] = run.get("params", {})
    own = {n: v for n, v in metrics.items() if everything or not n.startswith(_SYSTEM)}
    _branch(branch, "metrics", ((name, f"{value:g}") for name, value in sorted(own.items())))
    if everything:
        _branch(branch, "parameters", sorted(params.items()))
        return
    left = {"parameters": len(params), "metrics of the machine": len(metrics) - len(own)}
    if told := ", ".join(f"{what} ({count})" for what, count in left.items() if count):
        branch.add(Text(f"{told}: shown by --all", "dim"))


# ── what it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _registered(tree: Tree, registry: Mapping[str, Any], digest: str) -> None:
    tags: Mapping[str, str] = registry.get("tags", {})
    rows = {
        "version": f"{registry.get('name')}/{registry.get('version')}",
        "aliases": ", ".join(registry.get("aliases", ())),
        "registered": _by_and_at(registry.get("registered_by"), registry.get("registered_at_ms")),
        "signed by": tags.get(_SIGNED_BY),
        "description": registry.get("description"),
        "source": registry.get("source"),
    }
    branch = _branch(tree, "registered", rows.items())
    trained = tags.get(_DIGEST, "")
    if trained and digest and trained != digest:
        branch.add(_line("digest", f"another one was trained: {trained}", "red"))
    elif trained and not digest:
        branch.add(_line("digest", trained))
    servers = ((n, text) for n, text in sorted(tags.items()) if n.startswith(_DEPLOYMENT))
    _branch(tree, "served", ((n.removeprefix(_DEPLOYMENT), _served(t)) for n, t in servers))


def _served(text: str) -> str:
    found = _read(text, _Deployment)
    if found is None:
        return text
    health = "" if found.healthy else ", not healthy"
    return f"{found.state}{health}, {found.share:g} % of the requests, since {found.since}"


def _step(step: Mapping[str, str]) -> str:
    version = step.get("version", "")
    return f"{version}  {step.get('digest', '')}".strip() if version else "not served"


def _release(tree: Tree, lineage: Mapping[str, Any]) -> None:
    release = lineage.get("release")
    if release is None:
        tree.add(_line("signature", "none was asked for", "dim"))
        return
    rows = {
        "signer": release.get("signer"),
        "release": release.get("serial"),
        "created": release.get("created"),
        "encrypted": "yes" if release.get("encrypted") else "",
    }
    _branch(tree, "signature", rows.items())


def _files(tree: Tree, lineage: Mapping[str, Any], *, everything: bool) -> None:
    digest = lineage.get("digest") or lineage.get("digest_problem") or "not known"
    files = lineage.get("files", [])
    shown = files if everything else files[:MOST_FILES]
    branch = tree.add(_line("digest", str(digest)))
    for each in shown:
        branch.add(_line(each["sha256"][:_SHORT], each["path"]))
    if len(files) > len(shown):
        branch.add(Text(f"and {len(files) - len(shown)} more: shown by --all", "dim"))


def _others(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in tags.items()
        if name not in _TOLD and not name.startswith(_TOLD_TOGETHER)
    }


# ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _named(tags: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Those that are there, by what people are told."""
    return {label: tags[name] for name, label in names.items() if tags.get(name)}


def _branch(tree: Tree, label: str, rows: Iterable[tuple[str, Any]], told: str = "") -> Tree:
    """A branch of the rows that have something to say; where nothing has, there is none, and the tree comes back."""
    lines = [(name, str(text)) for name, text in rows if text not in (None, "", 0)]
    if not lines and not told:
        return tree
    branch = tree.add(_line(label, told) if told else Text(label, "cyan"))
    for name, text in lines:
        branch.add(_line(name, text))
    return branch


def _read(text: str, kind: type[Any]) -> Any:
    """JSON of that kind; None: it is something else."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError:
        return None


def _by_and_at(who: object, at_ms: object) -> str:
    moment = ""
    if isinstance(at_ms, int) and at_ms:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return " by ".join(filter(None, (moment, str(who or ""))))


def _line(label: str, text: str, style: str = "") -> Text:
    # names of files and tags may be anything
    cells = (f"{without_controls(label)}  ", "cyan"), (without_controls(text), style)
    # nothing of a digest is ever cut
    return Text.assemble(*cells, overflow="fold")
