"""Reads config.yaml: the keys of config.pbtxt, maps as mappings; into a tree with lines."""

from __future__ import annotations

from typing import Final

import yaml

from penstock.errors import ConfigError
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

MAX_NODES: Final = 20_000
"""Values and lists, with those that aliases repeat: a few aliases of aliases fill the memory."""

NULL_TAG: Final = "tag:yaml.org,2002:null"

KNOWN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "merge", "seq", "map")
)


def parse_yaml(source: Source) -> Block:
    """The whole file as one block. Raises ConfigError that names the line."""
    try:
        root = _Loader(source).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(source, error) from error
    except yaml.reader.ReaderError as error:
        text = f"character {error.character!r} can't stand in YAML"
        raise source.error(source.line_at(error.position), text) from error
    except (ValueError, OverflowError) as error:
        # The scanner turns escapes and version numbers into characters and integers unchecked.
        raise source.error(1, f"not YAML: {error}") from error
    if root is None:
        return Block((), 1)
    if not isinstance(root, yaml.MappingNode):
        found = _Converter(source).node(root, 0)
        raise source.error(found.line, f"found {found}; expected a mapping of configuration keys")
    return _Converter(source).block(root, 0)


class _Loader(yaml.SafeLoader):
    """A loader that ends nesting early: the composer recurses."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.text)
        self._source = source
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            raise _too_deep(self._source, self.line + 1)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Converter:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._nodes = 0

    def node(self, node: yaml.Node, depth: int) -> Node:
        self._check(node, depth)
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, _style(node), _line(node))
        if isinstance(node, yaml.SequenceNode):
            return Items(tuple(self.node(item, depth + 1) for item in node.value), _line(node))
        assert isinstance(node, yaml.MappingNode)
        return self.block(node, depth)

    def block(self, node: yaml.MappingNode, depth: int) -> Block:
        lines: dict[str, int] = {}
        entries = []
        for key, value in node.value:
            name, line = self._key(key), _line(key)
            if name in lines:
                text = f"{name} is given twice, first in line {lines[name]}"
                raise self._source.error(line, text)
            lines[name] = line
            entries.append(Entry(name, line, self.node(value, depth + 1)))
        return Block(tuple(entries), _line(node))

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._source.error(_line(node), "found a list or mapping; expected a key")
        return str(node.value)

    def _check(self, node: yaml.Node, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            text = f"more than {MAX_NODES} keys and values, with what aliases repeat"
            raise self._source.error(_line(node), text)
        if depth > MAX_DEPTH:
            raise _too_deep(self._source, _line(node))
        if node.tag not in KNOWN_TAGS:
            raise self._source.error(_line(node), f"tag {node.tag!r}; expected a value without tag")


def _style(node: yaml.ScalarNode) -> Style:
    if node.style is not None:
        return Style.TEXT
    return Style.NOTHING if node.tag == NULL_TAG else Style.PLAIN


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _too_deep(source: Source, line: int) -> ConfigError:
    return source.error(line, f"nested more than {MAX_DEPTH} levels deep")


def _syntax_error(source: Source, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    parts = [part for part in (error.context, error.problem) if part]
    return source.error(1 if mark is None else mark.line + 1, f"not YAML: {', '.join(parts)}")
