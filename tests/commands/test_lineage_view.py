"""A lineage as a tree: all that is told, nothing that is not, and no control character of a name."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from penstock.commands.lineage_view import MOST_FILES, as_tree

DIGEST = "sha256:" + "ab" * 32
WHOLE: Mapping[str, Any] = {
    "model": "digits",
    "version": "3",
    "digest": DIGEST,
    "files": [{"path": "model.onnx", "sha256": "0123456789abcdef"}],
    "release": {
        "signer": "ops@example.org",
        "serial": 5,
        "created": "2026-11-28",
        "encrypted": True,
    },
    "steps": [{"model": "inner", "version": "2", "digest": "sha256:1"}, {"model": "gone"}],
    "registry": {
        "name": "team.digits",
        "version": 3,
        "aliases": ["champion", "best"],
        "registered_at_ms": 1_795_824_000_000,
        "registered_by": "ann",
        "source": "models:/m-1",
        "tags": {
            "penstock.data.uri": "lake/digits",
            "penstock.data.version": "7",
            "penstock.git.dirty": "true",
            "penstock.model_digest": DIGEST,
            "penstock.gates": "passed",
            "penstock.promoted.by": "rollout",
            "penstock.promoted.at": "2026-11-29",
            "stage": "x",
        },
        "run": {
            "run_id": "r1",
            "name": "brave-cat",
            "status": "FINISHED",
            "user": "ann",
            "started_at_ms": 1_795_824_000_000,
            "metrics": {"accuracy": 0.98125},
            "params": {"lr": "0.1"},
        },
        "data": [{"name": "digits", "digest": "d1", "source": "s3://lake", "context": "train"}],
        "code": {"revision": "abc123", "branch": "main"},
    },
}


def shown(lineage: Mapping[str, Any]) -> list[str]:
    """Its lines, without what draws the tree."""
    console = Console(file=io.StringIO(), width=300)
    console.print(as_tree(lineage))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.strip("│├└─ \u00a0") for line in text.splitlines()]


def test_the_whole_of_it() -> None:
    assert shown(WHOLE) == [
        "digits 3",
        f"digest  {DIGEST}",
        "0123456789ab  model.onnx",
        "signature",
        "signer  ops@example.org",
        "release  5",
        "created  2026-11-28",
        "encrypted  yes",
        "steps",
        "inner  2  sha256:1",
        "gone  not served",
        "registered",
        "version  team.digits/3",
        "aliases  champion, best",
        "registered  2026-11-28 00:00:00 UTC by ann",
        "source  models:/m-1",
        "run  brave-cat r1",
        "status  FINISHED",
        "started  2026-11-28 00:00:00 UTC by ann",
        "metrics",
        "accuracy  0.98125",
        "parameters",
        "lr  0.1",
        "data",
        "uri  lake/digits",
        "version  7",
        "digits  s3://lake  d1  train",
        "code",
        "revision  abc123",
        "branch  main",
        "dirty  true",
        "checks",
        "gates  passed",
        "promoted",
        "by  rollout",
        "at  2026-11-29",
        "tags",
        "stage  x",
    ]


def test_a_folder_alone() -> None:
    files = [{"path": f"f{n}", "sha256": "0" * 64} for n in range(MOST_FILES + 3)]
    lines = shown(
        {"model": "m", "version": "1", "digest": DIGEST, "files": files, "registry": None}
    )
    assert lines[-3:] == [
        "and 3 more",
        "signature  none was asked for",
        "registry  it comes from a folder, not from a registry",
    ]


def test_another_model_than_the_one_that_was_trained() -> None:
    tags = {"penstock.model_digest": "sha256:other"}
    registry = {"name": "m", "version": 1, "tags": tags, "data": [{"name": "d", "digest": "1"}]}
    lines = shown({"model": "m", "version": "1", "digest": DIGEST, "registry": registry})
    assert "digest  another one was trained: sha256:other" in lines
    assert lines[-2:] == ["data", "d  1"]


def test_what_is_not_known_is_said() -> None:
    lines = shown(
        {"model": "m", "version": "1", "digest_problem": "gone", "registry_problem": "it is away"}
    )
    assert lines[1] == "digest  gone" and lines[-1] == "registry  it is away"


def test_names_move_no_cursor() -> None:
    files = [{"path": "a\x1b[2Jb\nc", "sha256": "0" * 64}]
    (line,) = [
        x for x in shown({"model": "m", "version": "1", "files": files}) if x.startswith("000")
    ]
    assert line.endswith("a\\x1b[2Jb\\nc")
