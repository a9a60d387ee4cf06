"""Turns the tree of a configuration file into a ModelConfig message, checking key by key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from penstock.protobuf import fields_of, is_map, is_repeated, message_class
from penstock.repository.config_scalars import READERS, ScalarError, read_text
from penstock.repository.config_tree import Block, Entry, Items, Node, Scalar, Source, Style

PARAMETER: Final = "inference.ModelParameter"


@dataclass(frozen=True, slots=True)
class LocatedConfig:
    """A ModelConfig message, and where in the file its parts stand."""

    message: Message
    source: Source
    lines: Mapping[str, int]
    """Path of a key that was given (`input[0].dims[1]`, `parameters["a"]`) → line."""

    def line(self, path: str) -> int:
        """The line of a path, or of the innermost part of it that was given."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 1)


def to_message(root: Block, source: Source, *, maps_are_mappings: bool) -> LocatedConfig:
    """Check the tree against ModelConfig and fill one in.

    `maps_are_mappings`: maps are written `{key: value}` (YAML), not as entries with `key` and
    `value`.
    Raises ConfigError that names the line, what was wrong and what was expected.
    """
    message = message_class("inference.ModelConfig")()
    builder = _Builder(source, maps_are_mappings)
    builder.fill(message, root, "")
    return LocatedConfig(message, source, builder.lines)


@dataclass(slots=True)
class _Builder:
    source: Source
    maps_are_mappings: bool
    lines: dict[str, int] = field(default_factory=dict)

    def fill(self, message: Message, block: Block, path: str) -> None:
        keys = fields_of(message.DESCRIPTOR)
        seen: dict[str, int] = {}
        for entry in block.entries:
            key = keys.get(entry.key)
            if key is None:
                where = f" in {path}" if path else ""
                text = f"unknown key {entry.key!r}{where}; {_suggestion(entry.key, list(keys))}"
                raise self.source.error(entry.line, text)
            here = f"{path}.{entry.key}" if path else entry.key
            if not is_repeated(key):
                self._check_once(message, key, entry, here, seen.get(entry.key))
            seen[entry.key] = self.lines[here] = entry.line
            self._assign(message, key, entry.node, here)

    def _assign(self, message: Message, key: FieldDescriptor, node: Node, path: str) -> None:
        if is_map(key):
            for each in _each(node):
                self._add_to_map(getattr(message, key.name), key, each, path)
        elif is_repeated(key):
            for each in _each(node):
                self._append(getattr(message, key.name), key, each, path)
        elif key.message_type is not None:
            part = getattr(message, key.name)
            part.SetInParent()
            self.fill(part, self._block(key, node, path), path)
        else:
            setattr(message, key.name, self._scalar(key, node, path))

    def _check_once(
        self, message: Message, key: FieldDescriptor, entry: Entry, path: str, first: int | None
    ) -> None:
        if first is not None:
            text = f"{path} is given twice, first in line {first}"
            raise self.source.error(entry.line, text)
        choice = key.containing_oneof
        other = choice and message.WhichOneof(choice.name)
        if other:
            text = f"{path} can't be given beside {other}; expected only one of them"
            raise self.source.error(entry.line, text)

    def _append(self, items: Any, key: FieldDescriptor, node: Node, path: str) -> None:
        here = f"{path}[{len(items)}]"
        self.lines[here] = node.line
        if key.message_type is not None:
            self.fill(items.add(), self._block(key, node, here), here)
        else:
            items.append(self._scalar(key, node, here))

    def _add_to_map(self, items: Any, key: FieldDescriptor, node: Node, path: str) -> None:
        fields = fields_of(key.message_type)
        for name, value, line in self._map_entries(key, node, path):
            index = self._scalar(fields["key"], name, path)
            here = f"{path}[{name.text!r}]"
            self.lines[here] = line
            # As in protobuf, the last of two equal keys holds.
            items.pop(index, None)
            if fields["value"].message_type is None:
                items[index] = "" if value is None else self._scalar(fields["value"], value, here)
            else:
                self._fill_map_value(items[index], fields["value"], value, here)

    def _fill_map_value(
        self, part: Message, key: FieldDescriptor, node: Node | None, path: str
    ) -> None:
        if node is None:
            return
        if self.maps_are_mappings and isinstance(node, Scalar) and _is_parameter(key):
            part.string_value = self._read(read_text, node, path)  # type: ignore[attr-defined]
        else:
            self.fill(part, self._block(key, node, path), path)

    def _map_entries(
        self, key: FieldDescriptor, node: Node, path: str
    ) -> Iterable[tuple[Scalar, Node | None, int]]:
        block = self._block(key, node, path)
        if self.maps_are_mappings:
            for entry in block.entries:
                yield Scalar(entry.key, Style.PLAIN, entry.line), entry.node, entry.line
            return
        found: dict[str, Node] = {}
        for entry in block.entries:
            if entry.key not in ("key", "value") or entry.key in found:
                text = f"found {entry.key!r} in an entry of {path}; expected one 'key', one 'value'"
                raise self.source.error(entry.line, text)
            found[entry.key] = entry.node
        name = found.get("key")
        if not isinstance(name, Scalar):
            raise self.source.error(block.line, f"an entry of {path} has no 'key'; expected one")
        yield name, found.get("value"), name.line

    def _block(self, key: FieldDescriptor, node: Node, path: str) -> Block:
        if isinstance(node, Block):
            return node
        if isinstance(node, Scalar) and node.style is Style.NOTHING:
            return Block((), node.line)
        keys = ", ".join(fields_of(key.message_type))
        if is_map(key):
            keys = "names and values" if self.maps_are_mappings else keys
        raise self.source.error(node.line, f"{path} is {node}; expected a block of keys: {keys}")

    def _scalar(self, key: FieldDescriptor, node: Node, path: str) -> Any:
        if key.enum_type is not None:
            values = key.enum_type

            def read(scalar: Scalar) -> int:
                return _enum_value(values, scalar)

            return self._read(read, node, path)
        return self._read(READERS[key.type], node, path)

    def _read(self, read: Callable[[Scalar], Any], node: Node, path: str) -> Any:
        try:
            return read(node if isinstance(node, Scalar) else Scalar("", Style.NOTHING, node.line))
        except ScalarError as error:
            text = f"{path} is {node}; {error}"
            raise self.source.error(node.line, text) from error


def _each(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Items):
        return node.nodes
    if isinstance(node, Scalar) and node.style is Style.NOTHING:
        return ()
    return (node,)


def _is_parameter(key: FieldDescriptor) -> bool:
    return key.message_type is not None and key.message_type.full_name == PARAMETER


def _enum_value(enum: EnumDescriptor, scalar: Scalar) -> int:
    # TYPE_INVALID says that a datatype was left out, so nobody may write it.
    known = {value.name: value.number for value in enum.values if value.name != "TYPE_INVALID"}
    if scalar.text in known:
        return known[scalar.text]
    if scalar.text in map(str, known.values()):
        return int(scalar.text)
    raise ScalarError(_suggestion(scalar.text, list(known)))


def _suggestion(word: str, known: list[str]) -> str:
    # Words and keys are matched without regard to case: fp32 is near TYPE_FP32.
    by_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word[:60].lower(), by_case, n=1)
    if near:
        return f"did you mean {by_case[near[0]]!r}?"
    return f"expected one of {', '.join(known)}"
