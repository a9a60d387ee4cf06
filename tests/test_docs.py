"""The pages under docs/: what is made from the code is up to date, what they name is there, their examples load."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import doc_tables
from extensions import advertised, lacking
from markdown import blocks, flags, headings, links
from penstock.backends import registry
from penstock.backends.base import Batch, LoadedModel, LoadSpec, RequestInfo
from penstock.commands import triton_tls
from penstock.commands.serve import ALIASES, NOT_YET
from penstock.config import SECTIONS, flag_of, flagged_settings
from penstock.config_sources import load_settings
from penstock.errors import ConfigError
from penstock.repository.config_file import read_config
from penstock.repository.dependencies import needs_of
from penstock_loadtest.marked import between

PAGES: Final = [doc_tables.README, *sorted(doc_tables.DOCS.glob("*.md"))]
MODELS: Final = doc_tables.DOCS / "models.md"
FLAGS: Final = {
    *(flag_of(name) for name, _ in flagged_settings()),
    *(spelling for spellings in ALIASES.values() for spelling in spellings),
    *NOT_YET,
    *triton_tls.FLAGS,
    *("--config", "--input", "--ca-file"),
    # of penstock check
    *("--no-load", "--strict", "--verbose"),
    # of penstock certs
    *("--all", "--dir", "--dns", "--ip", "--key-type", "--lifetime", "--passphrase-from"),
    *("--replace", "--retire", "--rotate", "--uri"),
    # of penstock rollout
    *("--to", "--from", "--shadow", "--no-sticky", "--no-fallback", "--guard", "--watch"),
    *("--steps", "--step-seconds", "--min-requests", "--despite-gates"),
    # of penstock models tune
    *("--goal", "--p99-ms", "--seconds", "--concurrency", "--shape", "--dry-run"),
    # of penstock-train
    *("--engine", "--processes", "--resume", "--set"),
    # of penstock audit
    *("--public-key", "--at-least", "--json", "--action", "--since"),
    # of penstock tenants
    "--none",
}


@pytest.mark.parametrize(("page", "name", "make"), doc_tables.GENERATED)
def test_generated_part_is_up_to_date(page: Path, name: str, make: Callable[[], str]) -> None:
    assert between(page.read_text(), name) == make(), "run: python tests/support/doc_tables.py"


def test_what_is_advertised_is_tested_through_clients_on_both_fronts() -> None:
    assert lacking(advertised()) == {}


def test_benchmark_table_has_the_benchmarks_rows() -> None:
    written = between(doc_tables.README.read_text(), "benchmark")
    empty = doc_tables.benchmark_table({})
    assert [line.split(" | ")[:2] for line in written.splitlines()] == [
        line.split(" | ")[:2] for line in empty.splitlines()
    ]


def test_benchmark_table_shows_what_was_measured() -> None:
    spread = {"median": 2.104, "min": 2.0, "max": 2.25, "rounds": [2.0, 2.104, 2.25]}
    comparison = {
        "case": {"name": "identity-grpc-64"},
        "baseline": "triton",
        "throughput": spread,
        "median_latency": None,
        "server_cpu": spread,
    }
    lines = doc_tables.benchmark_table({"comparisons": [comparison]}).splitlines()
    (line,) = [line for line in lines if "gRPC, 64 at a time" in line]
    assert line.endswith("| Triton 2.51 | 2.10 (2.00 - 2.25) | - | 2.10 (2.00 - 2.25) |")


@pytest.mark.parametrize(
    ("file", "heading"), sorted({link for page in PAGES for link in links(page)})
)
def test_link_leads_somewhere(file: Path, heading: str) -> None:
    assert file.exists()
    assert not heading or heading in headings(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_are_those_of_the_server(page: Path) -> None:
    assert flags(page) <= FLAGS


def test_the_settings_file_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = [b for b in blocks(doc_tables.DOCS / "configuration.md") if b.language == "toml"]
    (tmp_path / "penstock.toml").write_text(example.text)
    settings = load_settings({})
    assert settings.load_model == ("digits", "embedder")
    assert settings.model_repository[0] == tmp_path / "models"


def test_the_rules_of_capture_are_some(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(doc_tables.DOCS / "capture.md") if b.language == "toml"]
    file = tmp_path / "penstock.toml"
    file.write_text(example.text)
    capture = load_settings({}, file).capture
    rule = capture.rule_for("support-de", "team-a")
    assert rule is not None and rule.hashes("USER_ID")
    assert capture.rule_for("support-de", "team-b") is None


@pytest.mark.parametrize("page", ["certs.md", "secrets.md"])
def test_tables_of_the_settings_file_are_some(page: str, tmp_path: Path) -> None:
    (example,) = [b for b in blocks(doc_tables.DOCS / page) if b.language == "toml"]
    file = tmp_path / "penstock.toml"
    file.write_text(example.text)
    settings = load_settings({}, file)
    assert settings.tls.certs_dir == tmp_path / "certs" or settings.secrets.vault_address


def test_the_file_for_production_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = blocks(doc_tables.DOCS / "security.md")
    (example,) = [block for block in page if block.language == "toml"]
    (tmp_path / "penstock.toml").write_text(example.text)
    settings = load_settings({})
    # each table is shown
    assert set(SECTIONS) <= set(tomllib.loads(example.text))
    assert settings.access.jwt[0].role_map["ml-operators"] == ("operator",)


def test_both_configuration_files_say_the_same(tmp_path: Path) -> None:
    found = {}
    for language, filename in (("pbtxt", "config.pbtxt"), ("yaml", "config.yaml")):
        example = next(block for block in blocks(MODELS) if block.language == language)
        folder = tmp_path / language / "digits"
        folder.mkdir(parents=True)
        (folder / "labels.txt").write_text("zero")
        (folder / filename).write_text(example.text)
        found[language] = read_config(folder)
    assert found["pbtxt"] is not None
    assert found["pbtxt"] == found["yaml"]


def test_the_ensemble_is_one(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(MODELS) if "ensemble_scheduling {" in b.text]
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "config.pbtxt").write_text(example.text)
    assert needs_of(read_config(tmp_path / "reader")) == ("pixels", "digits", "winner")


def test_the_stateful_model_is_one(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(MODELS) if "sequence_batching {" in b.text]
    (tmp_path / "config.pbtxt").write_text(f'backend: "python"\n{example.text}')
    config = read_config(tmp_path)
    assert config is not None
    assert config["sequence_batching"]["oldest"]["max_candidate_sequences"] == 64


def test_a_wrong_key_is_told_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batchsize: 4\n')
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path)
    (example,) = [b.text.strip() for b in blocks(MODELS) if "max_batchsize" in b.text]
    assert str(caught.value).endswith(f"/{example}")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], LoadedModel]]:
    """`load(name)`: the example whose class is called so, without any configuration."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    def load_example(name: str) -> LoadedModel:
        (example,) = [
            b for b in blocks(MODELS) if b.language == "python" and f"class {name}" in b.text
        ]
        folder = tmp_path / name.lower()
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(example.text)
        config = {"name": folder.name}
        return registry.load(LoadSpec(folder.name, 1, folder, config, "0", "cpu", threads=1))

    yield load_example


def test_our_own_class(load: Callable[[str], LoadedModel]) -> None:
    answer = load("Mean").execute(
        Batch({"X": np.array([[1, 3], [4, 8]], np.float32)}, [RequestInfo(1), RequestInfo(1)])
    )
    assert isinstance(answer, dict)
    assert answer["MEAN"].tolist() == [[2], [6]]


def test_tritons_class(load: Callable[[str], LoadedModel]) -> None:
    model = load("TritonPythonModel")
    assert model.config["max_batch_size"] == 8
    answer = model.execute(Batch({"X": np.array([[1, 3]], np.float32)}, [RequestInfo(1)]))
    assert isinstance(answer, list)
    assert isinstance(answer[0], dict)
    assert answer[0]["Y"].tolist() == [[2, 6]]
