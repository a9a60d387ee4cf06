"""Reads a configuration that a load request gives: ModelConfig as JSON, in place of the model's file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict
from penstock.protobuf import fields_of, is_map, message_class
from penstock.repository.config_file import MAX_BYTES, checked
from penstock.repository.config_schema import to_message
from penstock.repository.config_tree import (
    MAX_DEPTH,
    Block,
    Entry,
    Items,
    Node,
    Scalar,
    Source,
    Style,
)

PREFIX: Final = "Invalid config override: "
"""As in Triton."""
LINE: Final = 1
"""JSON mostly comes as one line: paths tell where something is."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object whose keys may be given twice."""


@dataclass(frozen=True, slots=True)
class _Given(Source):
    """A configuration without a file."""

    def error(self, line: int, text: str) -> ConfigError:
        """What is wrong, for `raise`."""
        return ConfigError(PREFIX + text)


def given_config(text: str, model_dir: Path) -> ConfigDict:
    """The configuration of the model in that folder, checked as one in a file is, with all defaults.

    Raises ConfigError that names the key, what was wrong, what was expected.
    """
    source = _Given(Path("config"), text)
    root = _tree(_parsed(source), message_class("inference.ModelConfig").DESCRIPTOR, source, 0)
    if not isinstance(root, Block):
        raise source.error(LINE, f"found {root}; expected a JSON object of configuration keys")
    return checked(to_message(root, source, maps_are_mappings=True), model_dir)


def _parsed(source: Source) -> Any:
    if len(source.text) > MAX_BYTES:
        raise source.error(LINE, f"over {MAX_BYTES} characters; expected a model's configuration")
    try:
        return json.loads(source.text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise source.error(LINE, f"not JSON: {error}") from error


def _tree(value: Any, message: Any, source: Source, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise source.error(LINE, f"nests deeper than {MAX_DEPTH} levels")
    match value:
        case _Pairs():
            return _block(value, message, source, depth)
        case list():
            return Items(tuple(_tree(each, message, source, depth + 1) for each in value), LINE)
        case str():
            return Scalar(value, Style.PLAIN, LINE)
        case None:
            return Scalar("", Style.NOTHING, LINE)
        case _:
            return Scalar(json.dumps(value), Style.WORD, LINE)


def _block(pairs: _Pairs, message: Any, source: Source, depth: int) -> Block:
    fields = fields_of(message) if message is not None else {}
    # protobuf's own JSON writes maxBatchSize, and reads both
    names = {field.json_name: name for name, field in fields.items()}
    entries = []
    for key, value in pairs:
        name = names.get(key, key)
        field = fields.get(name)
        if field is not None and is_map(field) and isinstance(value, _Pairs):
            node: Node = _map(value, fields_of(field.message_type)["value"], source, depth + 1)
        else:
            node = _tree(value, field.message_type if field else None, source, depth + 1)
        entries.append(Entry(name, LINE, node))
    return Block(tuple(entries), LINE)


def _map(pairs: _Pairs, value: FieldDescriptor, source: Source, depth: int) -> Block:
    return Block(
        tuple(
            Entry(key, LINE, _tree(each, value.message_type, source, depth)) for key, each in pairs
        ),
        LINE,
    )
