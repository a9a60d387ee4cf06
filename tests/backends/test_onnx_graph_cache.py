"""Graphs that ONNX Runtime has optimised are kept where it pays, and give the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_files import load_spec
from penstock.backends import disk_cache, onnx_graph_cache
from penstock.backends.onnx_graph_cache import KIND, cached_session
from penstock.trust.staging import Staging, Verified

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the cache lies; and it always pays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx_graph_cache, "GAIN", 1e9)
    yield tmp_path


def write_chain(model_dir: Path, scale: float = 2, external: bool = False) -> Path:
    """Y = X * scale + (1 + 1): with a constant to fold."""
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Mul", ["X", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "two"], ["Y"]),
    ]
    tensors = {"one": np.ones(4), "scale": np.full(4, scale)}
    floats = {name: array.astype(np.float32) for name, array in tensors.items()}
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in floats.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = model_dir / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "weights").unlink(missing_ok=True)  # they would be added to it
    onnx.save(model, path, save_as_external_data=external, location="weights", size_threshold=0)
    return path


def answer(session: Any) -> Any:
    return session.run(["Y"], {"X": X})[0]


def kept(home: Path) -> list[Path]:
    """The graphs that are kept, without what is kept of whether it pays."""
    folder = home / "cache" / "penstock" / KIND
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.stat().st_size > 10]


@pytest.mark.parametrize("external", [False, True])
def test_a_graph_is_kept_and_used(
    model_dir: Path, home: Path, external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_chain(model_dir, external=external)
    spec = load_spec(model_dir)
    first = answer(cached_session(spec, path, worth_s=0))
    (graph,) = kept(home)
    assert "two" not in [t.name for t in onnx.load(graph, load_external_data=False).graph.node]

    loaded: list[Path | bytes] = []
    plain = onnx_graph_cache._session

    def told(file: Path | bytes, options: Any) -> Any:
        loaded.append(file)
        return plain(file, options)

    monkeypatch.setattr(onnx_graph_cache, "_session", told)
    again = cached_session(spec, path, worth_s=0)
    assert loaded == [graph.read_bytes() if external else graph]
    np.testing.assert_array_equal(answer(again), first)
    np.testing.assert_array_equal(first, X * 2 + 2)
    plain_shapes = [i.shape for i in ort.InferenceSession(path).get_inputs()]
    assert [i.shape for i in again.get_inputs()] == plain_shapes


def test_a_model_that_changes_has_another_graph(model_dir: Path, home: Path) -> None:
    spec = load_spec(model_dir)
    path = write_chain(model_dir)
    cached_session(spec, path, worth_s=0)
    write_chain(model_dir, scale=5)
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 5 + 2)
    assert len(kept(home)) == 2


def test_weights_in_another_file_count(model_dir: Path, home: Path) -> None:
    spec = load_spec(model_dir)
    path = write_chain(model_dir, external=True)
    cached_session(spec, path, worth_s=0)
    before = path.read_bytes()
    write_chain(model_dir, scale=7, external=True)
    assert path.read_bytes() == before
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 7 + 2)


def test_other_options_have_another_graph(model_dir: Path, home: Path) -> None:
    path = write_chain(model_dir)
    cached_session(load_spec(model_dir), path, worth_s=0)
    basic = load_spec(model_dir, {"optimization": {"graph": {"level": -1}}})
    cached_session(basic, path, worth_s=0)
    assert len(kept(home)) == 2


def test_a_damaged_graph_is_made_again(model_dir: Path, home: Path) -> None:
    path, spec = write_chain(model_dir), load_spec(model_dir)
    cached_session(spec, path, worth_s=0)
    (graph,) = kept(home)
    graph.write_bytes(b"damaged, but long enough")
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 2 + 2)
    (graph,) = kept(home)
    onnx.load(graph)


def test_a_graph_that_onnx_runtime_refuses_does_no_harm(
    model_dir: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, spec = write_chain(model_dir), load_spec(model_dir)
    cached_session(spec, path, worth_s=0)
    (graph,) = kept(home)
    key = graph.name.partition(".")[0]
    graph.unlink()
    disk_cache.put(KIND, key, b"no model at all")
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 2 + 2)
    assert "is of no use" in caplog.text


def test_a_load_that_is_quick_leaves_nothing(model_dir: Path, home: Path) -> None:
    path = write_chain(model_dir)
    np.testing.assert_array_equal(answer(cached_session(load_spec(model_dir), path)), X * 2 + 2)
    assert not (home / "cache").exists()


def test_a_graph_that_gains_nothing_is_not_kept_nor_tried_again(
    model_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph_cache, "GAIN", 0.0)
    path, spec = write_chain(model_dir), load_spec(model_dir)
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 2 + 2)
    assert kept(home) == []
    monkeypatch.setattr(disk_cache, "make", None)
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 2 + 2)


def test_what_could_not_be_kept_is_tried_again(
    model_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk has room again one day."""
    path, spec = write_chain(model_dir), load_spec(model_dir)
    session = onnx_graph_cache._session

    def full(path: Path, options: Any) -> Any:
        if options.optimized_model_filepath:
            raise RuntimeError("Protobuf serialization failed.")
        return session(path, options)

    with monkeypatch.context() as patched:
        patched.setattr(onnx_graph_cache, "_session", full)
        found = answer(cached_session(spec, path, worth_s=0))
    np.testing.assert_array_equal(found, X * 2 + 2)
    assert "can't be kept: Protobuf serialization failed." in caplog.text
    assert kept(home) == []
    np.testing.assert_array_equal(answer(cached_session(spec, path, worth_s=0)), X * 2 + 2)
    assert len(kept(home)) == 1


@pytest.mark.parametrize("why", ["off", "too big", "encrypted"])
def test_what_may_not_be_kept_is_not(
    why: str, model_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = {}
    if why == "off":
        config["optimization"] = {"graph": {"level": 2}}
    elif why == "too big":
        monkeypatch.setattr(onnx_graph_cache, "MODEL_LIMIT_BYTES", 10)
    else:
        draft = Staging(None, home / "memory").draft("m", in_memory=True)
        verified = Verified(model="m", version=1, key=b"", encrypted=True)
        model_dir = draft.finish(verified).model_dir
    path = write_chain(model_dir)
    session = cached_session(load_spec(model_dir, config), path, worth_s=0)
    np.testing.assert_array_equal(answer(session), X * 2 + 2)
    assert not (home / "cache").exists()


def test_a_model_that_is_replaced_meanwhile(
    model_dir: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made of the new files isn't kept as if of the old ones, which may come back."""
    path = write_chain(model_dir, scale=2)
    session = onnx_graph_cache._session

    def replacing(path: Path, options: Any) -> Any:
        if options.optimized_model_filepath:
            write_chain(model_dir, scale=3)
        return session(path, options)

    monkeypatch.setattr(onnx_graph_cache, "_session", replacing)
    assert np.array_equal(answer(cached_session(load_spec(model_dir), path, worth_s=0)), X * 3 + 2)
    assert not kept(home)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    write_chain(model_dir, scale=2)
    assert np.array_equal(answer(cached_session(load_spec(model_dir), path, worth_s=0)), X * 2 + 2)
