"""Class labels of a model's outputs, for the classification extension."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import ConfigError


def label_path(model_dir: Path, filename: str) -> Path:
    """The label file, which must lie in the model's folder. Raises ConfigError where it doesn't."""
    path = model_dir / filename
    try:
        inside = path.resolve().is_relative_to(model_dir.resolve())
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"label file {filename!r} can't be looked up: {error}") from error
    if not inside:
        raise ConfigError(f"label file {filename!r} is outside the model's folder {model_dir}")
    if not is_file:
        raise ConfigError(f"label file {filename!r} is not in the model's folder {model_dir}")
    return path


def read_labels(model_dir: Path, filename: str) -> tuple[str, ...]:
    """One label a line, in the order of classes. Raises ConfigError when the file can't be read."""
    path = label_path(model_dir, filename)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; expected one label a line") from error
    lines = text.removesuffix("\n").split("\n") if text else []
    return tuple(lines)
