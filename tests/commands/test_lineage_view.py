"""A lineage as a tree: what people ask for first, nothing that was not told, and no control character of a name."""

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
            "penstock.onnx.max_error": "5e-07",
            "penstock.promoted.by": "key:psk_ada",
            "penstock.promoted.at": "2026-11-29",
            "penstock.rollout": '{"status":"promoted","stable":2,"share":100.0,"at":"2026-11-29","reason":""}',
            "penstock.run.id": "r1",
            "penstock.run.host": "gpu7",
            "penstock.signed.by": "ops",
            "penstock.deployment.vm:8000": '{"state":"READY","since":"2026-11-29","share":100.0,"healthy":true}',
            "stage": "x",
        },
        "run": {
            "run_id": "r1",
            "name": "brave-cat",
            "status": "FINISHED",
            "user": "ann",
            "started_at_ms": 1_795_824_000_000,
            "metrics": {"accuracy": 0.98125, "system/cpu": 98.0},
            "params": {"lr": "0.1", "seed": "7"},
        },
        "data": [
            {"name": "other", "digest": "d1", "source": "s3://lake", "context": "train"},
            {
                "name": "digits",
                "digest": "7",
                "source": '{"uri": "lake/digits", "version": "7", "columns": ["a"], "filter": ""}',
                "context": "test",
            },
        ],
        "code": {"revision": "abc123", "branch": "main"},
    },
}


def shown(lineage: Mapping[str, Any], **how: Any) -> list[str]:
    """Its lines, without what draws the tree."""
    console = Console(file=io.StringIO(), width=300)
    console.print(as_tree(lineage, **how))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.strip("│├└─ \u00a0") for line in text.splitlines()]


def test_the_whole_of_it() -> None:
    assert shown(WHOLE) == [
        "digits 3",
        "promoted  2026-11-29 by key:psk_ada",
        "rollout  promoted, beside version 2, at 100 %, 2026-11-29",
        "gates  passed",
        "ONNX max error  5e-07",
        "data",
        "uri  lake/digits",
        "version  7",
        "other  s3://lake  d1  train",
        'digits  columns ["a"]  test',
        "code",
        "revision  abc123",
        "branch  main",
        "dirty  true",
        "run  brave-cat r1",
        "status  FINISHED",
        "started  2026-11-28 00:00:00 UTC by ann",
        "host  gpu7",
        "metrics",
        "accuracy  0.98125",
        "parameters (2), metrics of the machine (1): shown by --all",
        "steps",
        "inner  2  sha256:1",
        "gone  not served",
        "registered",
        "version  team.digits/3",
        "aliases  champion, best",
        "registered  2026-11-28 00:00:00 UTC by ann",
        "signed by  ops",
        "source  models:/m-1",
        "served",
        "vm:8000  READY, 100 % of the requests, since 2026-11-29",
        "signature",
        "signer  ops@example.org",
        "release  5",
        "created  2026-11-28",
        "encrypted  yes",
        f"digest  {DIGEST}",
        "0123456789ab  model.onnx",
        "tags",
        "stage  x",
    ]


def test_all_of_it() -> None:
    lines = shown(WHOLE, everything=True)
    at = lines.index("metrics")
    assert lines[at : at + 6] == [
        "metrics",
        "accuracy  0.98125",
        "system/cpu  98",
        "parameters",
        "lr  0.1",
        "seed  7",
    ]


def of_tags(**tags: str) -> list[str]:
    """What is shown of the first ones."""
    given = {f"penstock.{name.replace('_', '.')}": text for name, text in tags.items()}
    return shown({"model": "m", "version": "1", "registry": {"name": "m", "tags": given}})


def test_what_was_not_promoted() -> None:
    told = (
        '{"status":"rolled_back","stable":2,"share":10.0,"at":"2026-11-29","reason":"it is slow"}'
    )
    assert of_tags(rollout=told, gates="failed: accuracy 0.5")[1:3] == [
        "rollout  rolled back, beside version 2, at 10 %, 2026-11-29: it is slow",
        "gates  failed: accuracy 0.5",
    ]


def test_a_promotion_of_nobody_who_is_known() -> None:
    (line,) = [x for x in of_tags(promoted_by="rollout", promoted_at="now") if "promoted" in x]
    assert line.startswith("promoted  now by its roll-out (who began it is not known")
    (line,) = [x for x in of_tags(promoted_by="hand", promoted_at="now") if "promoted" in x]
    assert line.startswith("promoted  now by hand (whose is not known")


def test_tags_that_others_have_written() -> None:
    lines = of_tags(rollout="by hand", deployment_x="yes")
    assert "rollout  by hand" in lines and "x  yes" in lines


def test_a_folder_alone() -> None:
    files = [{"path": f"f{n}", "sha256": "0" * 64} for n in range(MOST_FILES + 3)]
    lines = shown(
        {"model": "m", "version": "1", "digest": DIGEST, "files": files, "registry": None}
    )
    assert lines[1:4] == [
        "registry  it comes from a folder, not from a registry",
        "signature  none was asked for",
        f"digest  {DIGEST}",
    ]
    assert lines[-1] == "and 3 more: shown by --all" and len(lines) == 5 + MOST_FILES


def test_another_model_than_the_one_that_was_trained() -> None:
    tags = {"penstock.model_digest": "sha256:other"}
    registry = {"name": "m", "version": 1, "tags": tags, "data": [{"name": "d", "digest": "1"}]}
    lines = shown({"model": "m", "version": "1", "digest": DIGEST, "registry": registry})
    assert "digest  another one was trained: sha256:other" in lines
    assert lines[1:3] == ["data", "d  1"]


def test_a_version_that_is_not_served() -> None:
    registry = {"name": "m", "version": 1, "tags": {"penstock.model_digest": DIGEST}}
    problem = "this server does not serve the version"
    lines = shown({"model": "m", "version": "1", "digest_problem": problem, "registry": registry})
    assert f"digest  {DIGEST}" in lines and lines[-1] == f"digest  {problem}"


def test_what_is_not_known_is_said() -> None:
    lines = shown(
        {"model": "m", "version": "1", "digest_problem": "gone", "registry_problem": "it is away"}
    )
    assert lines[1] == "registry  it is away" and lines[-1] == "digest  gone"


def test_names_move_no_cursor() -> None:
    files = [{"path": "a\x1b[2Jb\nc", "sha256": "0" * 64}]
    (line,) = [
        x for x in shown({"model": "m", "version": "1", "files": files}) if x.startswith("000")
    ]
    assert line.endswith("a\\x1b[2Jb\\nc")
