"""Where a model version comes from, for a person: a tree of what the server and its registry say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text
from rich.tree import Tree

from penstock.logs import without_controls

MOST_FILES: Final = 20
"""Of a version; JSON has all of them."""
_SHORT: Final = 12
_DATA: Final = ("penstock.data.uri", "penstock.data.version")
_CODE: Final = ("penstock.git.revision", "penstock.git.dirty", "penstock.config.digest")
_CHECKS: Final = ("penstock.gates", "penstock.onnx.max_error", "penstock.report")
_PROMOTED: Final = ("penstock.promoted.by", "penstock.promoted.at", "penstock.rollout")
_TOLD: Final = frozenset((*_DATA, *_CODE, *_CHECKS, *_PROMOTED, "penstock.model_digest"))


def as_tree(lineage: Mapping[str, Any]) -> Tree:
    """All that was told."""
    tree = Tree(Text(f"{lineage['model']} {lineage['version']}", "bold"))
    _files(tree, lineage)
    _release(tree, lineage.get("release"))
    if steps := lineage.get("steps"):
        _branch(tree, "steps", ((each["model"], _step(each)) for each in steps))
    registry = lineage.get("registry")
    if registry:
        _registry(tree, registry, str(lineage.get("digest", "")))
    elif problem := lineage.get("registry_problem"):
        tree.add(_line("registry", problem, "red"))
    else:
        tree.add(_line("registry", "it comes from a folder, not from a registry", "dim"))
    return tree


def _files(tree: Tree, lineage: Mapping[str, Any]) -> None:
    digest = lineage.get("digest") or lineage.get("digest_problem") or "not known"
    files = lineage.get("files", [])
    branch = tree.add(_line("digest", str(digest)))
    for each in files[:MOST_FILES]:
        branch.add(_line(each["sha256"][:_SHORT], each["path"]))
    if len(files) > MOST_FILES:
        branch.add(Text(f"and {len(files) - MOST_FILES} more", "dim"))


def _release(tree: Tree, release: Mapping[str, Any] | None) -> None:
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


def _step(step: Mapping[str, str]) -> str:
    version = step.get("version", "")
    return f"{version}  {step.get('digest', '')}".strip() if version else "not served"


def _registry(tree: Tree, registry: Mapping[str, Any], digest: str) -> None:
    tags: Mapping[str, str] = registry.get("tags", {})
    rows = {
        "version": f"{registry.get('name')}/{registry.get('version')}",
        "aliases": ", ".join(registry.get("aliases", ())),
        "registered": _by_and_at(registry.get("registered_by"), registry.get("registered_at_ms")),
        "description": registry.get("description"),
        "source": registry.get("source"),
    }
    branch = _branch(tree, "registered", rows.items())
    trained = tags.get("penstock.model_digest", "")
    if trained and digest and trained != digest:
        branch.add(_line("digest", f"another one was trained: {trained}", "red"))
    if run := registry.get("run"):
        _run(tree, run)
    _data(tree, registry, tags)
    code = {**registry.get("code", {}), **_named(tags, _CODE)}
    _branch(tree, "code", code.items())
    _branch(tree, "checks", _named(tags, _CHECKS).items())
    _branch(tree, "promoted", _named(tags, _PROMOTED).items())
    others = {name: text for name, text in tags.items() if name not in _TOLD}
    _branch(tree, "tags", others.items())


def _run(tree: Tree, run: Mapping[str, Any]) -> None:
    name = " ".join(filter(None, (run.get("name"), run.get("run_id"))))
    branch = tree.add(_line("run", name))
    rows = {
        "status": run.get("status"),
        "started": _by_and_at(run.get("user"), run.get("started_at_ms")),
        "ended": _by_and_at("", run.get("ended_at_ms")),
    }
    for label, text in rows.items():
        if text:
            branch.add(_line(label, str(text)))
    _branch(branch, "metrics", ((n, f"{v:g}") for n, v in sorted(run.get("metrics", {}).items())))
    _branch(branch, "parameters", sorted(run.get("params", {}).items()))


def _data(tree: Tree, registry: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    branch = _branch(tree, "data", _named(tags, _DATA).items())
    sets = registry.get("data", ())
    if sets and branch is tree:
        branch = tree.add(Text("data", "cyan"))
    for each in sets:
        told = "  ".join(str(each[key]) for key in ("source", "digest", "context") if each.get(key))
        branch.add(_line(str(each.get("name", "dataset")), told))


def _named(tags: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those that are there, by the last parts of their names."""
    return {
        name.removeprefix("penstock.").split(".", 1)[-1].replace("_", " "): tags[name]
        for name in names
        if tags.get(name)
    }


def _branch(tree: Tree, label: str, rows: Iterable[tuple[str, Any]]) -> Tree:
    """A branch of the rows that have something to say; none of them: there is no branch, and the tree comes back."""
    told = [(name, str(text)) for name, text in rows if text not in (None, "", 0)]
    if not told:
        return tree
    branch = tree.add(Text(label, "cyan"))
    for name, text in told:
        branch.add(_line(name, text))
    return branch


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
