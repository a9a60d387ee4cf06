"""Files of PyTorch models that are wrong, damaged, or of another machine, and the classes of state dicts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch

import torch_models as made
from model_files import load_spec, write_python
from penstock.backends.registry import backend_for, load
from penstock.backends.torch_files import Kind, check_compiled, kind_of
from penstock.errors import LoadFailed
from penstock.model_config import ConfigDict
from penstock.trust.pickles import MAX_CODE_BYTES, find_pickle

TENSORS = {
    "input": [{"name": n, "data_type": "TYPE_FP32", "dims": [4]} for n in ("A", "B")],
    "output": [{"name": n, "data_type": "TYPE_FP32", "dims": [4]} for n in ("SUM", "SCALED")],
}


def refused(model_dir: Path, told: str, **given: object) -> None:
    config: ConfigDict = {"backend": "torch", "max_batch_size": 8, **TENSORS, **given}
    with pytest.raises(LoadFailed, match=told):
        load(load_spec(model_dir, config))


def archive(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"backend": "torch"}, []),
        ({"backend": "pytorch"}, []),
        ({"platform": "pytorch_libtorch"}, []),
        ({"default_model_filename": "net.pt"}, []),
        ({"default_model_filename": "net.pt2"}, []),
        ({}, ["model.pt"]),
        ({}, ["model.pt2"]),
        ({}, ["model.pt", "model.pt2"]),
    ],
)
def test_the_backend_is_found(config: ConfigDict, names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert backend_for(config, tmp_path) == "torch"


def test_a_python_model_stays_one_unless_it_is_said(tmp_path: Path) -> None:
    for name in ("model.py", "model.safetensors"):
        (tmp_path / name).touch()
    assert backend_for({}, tmp_path) == "python"
    assert backend_for({"backend": "torch"}, tmp_path) == "torch"


def test_kinds_by_content(model_dir: Path) -> None:
    script = made.save_script(made.torch_script(made.AsDict()), model_dir)
    program = made.save_program(made.exported(made.AsDict()), model_dir)
    weights = model_dir / "1" / "weights.pt"
    torch.save({}, weights)
    old = model_dir / "1" / "old.pt"
    torch.save({}, old, _use_new_zipfile_serialization=False)
    found = [kind_of(path) for path in (script, program, weights, old, Path("x.safetensors"))]
    assert found == [Kind.TORCHSCRIPT, Kind.EXPORTED, *[Kind.WEIGHTS] * 3]
    # whatever they are called
    assert kind_of(program.rename(model_dir / "1" / "model.bin")) is Kind.EXPORTED


def test_an_exported_program_under_any_name(model_dir: Path) -> None:
    made.save_program(made.exported(made.AsDict()), model_dir).rename(model_dir / "1" / "net.bin")
    spec = load_spec(model_dir, {"backend": "torch", "default_model_filename": "net.bin"})
    assert load(spec).config["input"][0]["name"] == "A"


def test_no_file_or_several(model_dir: Path) -> None:
    refused(model_dir, r"no model file: expected model\.pt or model\.pt2, or model\.safetensors or")
    refused(model_dir, r"expected .*/net\.pt", default_model_filename="net.pt")
    for name in ("model.pt", "model.pt2"):
        (model_dir / "1" / name).touch()
    refused(model_dir, r"holds model\.pt and model\.pt2: say which by default_model_filename")


@pytest.mark.parametrize("cut", [0, 100, -200])
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_damaged_files(kind: str, cut: int, model_dir: Path) -> None:
    made.WRITERS[kind](model_dir)
    (path,) = (model_dir / "1").iterdir()
    path.write_bytes(path.read_bytes()[:cut])
    refused(model_dir, "is damaged, or no file of PyTorch's: expected TorchScript, a program of")


def change(path: Path, name: str, content: bytes | None) -> None:
    """Put something else in place of a member of an archive; None: nothing."""
    before = path.read_bytes()
    with zipfile.ZipFile(BytesIO(before)) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(name):
                new.writestr(member, old.read(member))
            elif content is not None:
                new.writestr(member, content)


@pytest.mark.parametrize(
    ("kind", "name", "content", "told"),
    [
        ("torchscript", "data.pkl", None, "can't load .* as TorchScript: RuntimeError: .*data.pkl"),
        (
            "torchscript",
            "torch_models.py",
            b"def f(",
            "can't load .* as TorchScript: RuntimeError: ",
        ),
        ("exported", "models/model.json", None, "is an archive of .*expected TorchScript"),
        ("exported", "models/model.json", b"{}", "can't load .* as program of torch.export"),
    ],
)
def test_archives_that_lack_something(
    kind: str, name: str, content: bytes | None, told: str, model_dir: Path
) -> None:
    made.WRITERS[kind](model_dir)
    (path,) = (model_dir / "1").iterdir()
    change(path, name, content)
    refused(model_dir, told)


def test_other_archives(model_dir: Path) -> None:
    archive(model_dir / "1" / "model.pt", **{"x/readme.txt": "hello"})
    refused(model_dir, r"is an archive of readme\.txt: expected TorchScript")
    archive(model_dir / "1" / "model.pt", **{"serialized_exported_program.json": "{}"})
    refused(model_dir, "was written by a version of torch before 2.8")


def package(path: Path, **metadata: str) -> Path:
    """What an AOTInductor package is, as far as it is looked at before its code is run."""
    place = "m/data/aotinductor/model/x"
    members = {
        "m/archive_format": "pt2",
        f"{place}.wrapper_metadata.json": json.dumps(metadata),
        f"{place}.wrapper.so": "ELF" * 100,
    }
    return archive(path, **members)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"AOTI_DEVICE_KEY": "cuda"}, "was compiled for cuda, and this instance runs on cpu"),
        ({"AOTI_MACHINE": "sparc64"}, "was compiled for sparc64, and this is"),
        ({"AOTI_CPU_ISA": "AVX2 AMX_TILE"}, "was compiled for a CPU with A"),
    ],
)
def test_packages_of_other_machines(
    metadata: dict[str, str], told: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.backends.torch_files._cpu_flags", lambda: frozenset({"sse4_2"}))
    path = package(model_dir / "1" / "model.pt2", **metadata)
    assert kind_of(path) is Kind.COMPILED
    refused(model_dir, told)


def test_damaged_packages(model_dir: Path) -> None:
    """The code in it would end the worker."""
    path = package(model_dir / "1" / "model.pt2")
    check_compiled(path, "cpu")
    path.write_bytes(path.read_bytes().replace(b"ELFELF", b"ELFELX"))
    refused(model_dir, "is damaged: Bad CRC-32 for file 'm/data/aotinductor/model/x.wrapper.so'")


# state dicts


CLASSES = """
    import torch

    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(2))

        def forward(self, A, B):
            return A + B, A * 2

    class Two(One):
        def __init__(self, size):
            raise ValueError("no size")
"""


def write_weights(model_dir: Path, state: object, source: str = CLASSES) -> Path:
    write_python(model_dir, source)
    path = model_dir / "1" / "weights.pt"
    torch.save(state, path)
    return path


def parameter(**values: str) -> dict[str, object]:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


GOOD = {"scale": torch.zeros(2)}


def test_a_class_by_its_name(model_dir: Path) -> None:
    write_weights(model_dir, {"state_dict": GOOD, "epoch": 3})
    refused(model_dir, r"expected one subclass of torch\.nn\.Module, .* found One, Two")
    refused(
        model_dir, r"a class 'Three' \(parameter model_class\)", **parameter(model_class="Three")
    )
    told = r"making Two of model\.py failed: TypeError: .* 'size'"
    refused(model_dir, told, **parameter(model_class="Two"))
    given = {"backend": "torch", "max_batch_size": 8, **TENSORS, **parameter(model_class="One")}
    load(load_spec(model_dir, given)).close()


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "is no state dict of One: it lacks scale$"),
        ({**GOOD, "a": torch.zeros(1), "b": torch.zeros(1)}, "it has a, b$"),
        ({"scale": torch.zeros(3)}, "it has other shapes of scale$"),
        ([torch.zeros(1)], "holds list, expected a state dict"),
        (torch.nn.Linear(1, 1), "holds more than tensors, or is damaged: expected what torch.save"),
    ],
)
def test_weights_that_are_not_the_classes(state: object, told: str, model_dir: Path) -> None:
    write_weights(model_dir, state)
    refused(model_dir, told, **parameter(model_class="One"))


def test_weights_without_a_class(model_dir: Path) -> None:
    write_weights(model_dir, GOOD)
    (model_dir / "1" / "model.py").unlink()
    refused(model_dir, r"holds weights only: expected model\.py beside it")
    write_python(model_dir, "import torch\nfrom torch.nn import Linear")
    refused(model_dir, "found none")
    write_python(model_dir, "1 / 0")
    refused(model_dir, r"importing model\.py failed: ZeroDivisionError")


def test_no_weights_of_safetensors(model_dir: Path) -> None:
    write_python(model_dir, CLASSES)
    (model_dir / "1" / "model.safetensors").write_bytes(b"\0" * 20)
    refused(
        model_dir, "can't load .* as state dict: SafetensorError", **parameter(model_class="One")
    )


# which of them may run code


class Saves(torch.nn.Module):
    def forward(self, A: torch.Tensor) -> torch.Tensor:
        torch.save(A, "/tmp/never-written")
        return A


class Reads(torch.nn.Module):
    def forward(self, A: torch.Tensor) -> torch.Tensor:
        return torch.from_file("/etc/hostname", False, 3, dtype=torch.uint8)


def seen(path: Path, name: str = "") -> str:
    with path.open("rb") as file:
        return find_pickle(file, f"1/{name or path.name}")


@pytest.mark.parametrize("module", [Saves(), Reads()])
def test_torchscript_that_deals_with_files(module: torch.nn.Module, model_dir: Path) -> None:
    path = made.save_script(made.torch_script(module), model_dir)
    assert "TorchScript that may read or write any file" in seen(path)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('_0 = getattr(self.layers, "0")', False),
        ('_0 = "it don\\\'t match"', False),
        ("saved = self.save_all(x)", False),
        ('_0 = getattr(torch, "sa\\x76e")', True),
        ("_0 = getattr(torch, name)", True),
        ("torch.\\\n  save(x)", True),
        pytest.param(" " * (MAX_CODE_BYTES + 1), True, id="too long"),
        ("_0 = ops.aten.from_file(x)", True),
    ],
)
def test_how_torchscript_may_name_them(code: str, found: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    archive(path, **{"m/constants.pkl": "", "m/code/__torch__.py": code})
    assert bool(seen(path)) is found


def test_which_kinds_need_to_be_allowed(model_dir: Path) -> None:
    write: dict[str, Callable[[], Path]] = {
        "": lambda: made.save_script(made.torch_script(made.AsDict()), model_dir),
        "torch.export": lambda: made.save_program(made.exported(made.AsDict()), model_dir),
        "AOTInductor": lambda: package(model_dir / "1" / "other.bin"),
        ".pkl": lambda: write_weights(model_dir, GOOD),
    }
    for told, writer in write.items():
        why = seen(writer())
        assert told in why and bool(why) is bool(told)
    made.write_state_dict(model_dir)
    assert seen(model_dir / "1" / "model.safetensors") == ""


def test_a_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/archive_format", b"\0" * (1 << 21))
    with pytest.raises(LoadFailed, match=r"is damaged.*m/archive_format has more than 1048576"):
        kind_of(path)


@pytest.mark.parametrize("place", ["compressed oddly", "encrypted"])
def test_archives_that_cannot_be_read(place: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "model.pt2", **{"m/archive_format": "pt2"})
    content = bytearray(path.read_bytes())
    listed = content.index(b"PK\x01\x02")
    if place == "encrypted":
        content[6] |= 1
        content[listed + 8] |= 1
    else:
        content[8] = content[listed + 10] = 97
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match="is damaged, or no file of PyTorch's"):
        kind_of(path)


@pytest.mark.parametrize("name", ["/tmp/x_metadata.json", "m/data/aotinductor/model/../../../../x"])
def test_a_package_with_files_for_elsewhere(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "model.pt2", **{"m/archive_format": "pt2", name: "{}"})
    with pytest.raises(LoadFailed, match=f"it would unpack '{name}' outside of its folder"):
        check_compiled(path, "cpu")
