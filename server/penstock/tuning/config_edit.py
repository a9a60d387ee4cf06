"""Changes single values in the text of a config.pbtxt or config.yaml, and leaves the rest as its author wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from penstock.repository.config_pbtxt import TOKEN

Changes = Mapping[tuple[str, ...], Any]
"""Path of keys → new value; None: it is not to be there. Paths have one or two keys; the second one of `parameters` is
a parameter's, whose value is a string."""

OPENING: Final = {"{": "}", "<": ">", "[": "]"}
PARAMETERS: Final = "parameters"


def edit_pbtxt(text: str, changes: Changes) -> str:
    """The text with the changes. It is correct pbtxt before."""
    for path, value in changes.items():
        if path[0] == PARAMETERS and len(path) > 1:
            text = _set_parameter(text, path[1], value)
        else:
            text = _set(text, 0, len(text), path, value)
    return text


def edit_yaml(text: str, changes: Changes) -> str:
    """The text with the changes. It is correct YAML before, a mapping or nothing."""
    for path, value in changes.items():
        if path[0] == PARAMETERS and len(path) > 1 and value is not None:
            value = {"string_value": value}
        text = _set_yaml(text, path, value)
    return text


# ── pbtxt ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where `key: value` stands."""

    key: str
    start: int
    end: int
    inner: tuple[int, int] | None
    """Between the braces of a block."""


def _entries(text: str, start: int, end: int) -> Iterator[_Entry]:
    tokens = [m for m in TOKEN.finditer(text, start, end) if m.lastgroup not in ("space", "line")]
    at = 0
    while at < len(tokens):
        first = tokens[at]
        at += 1
        if first.lastgroup != "word":
            continue
        if at < len(tokens) and tokens[at].group() == ":":
            at += 1
        if at >= len(tokens):
            return
        value = tokens[at]
        inner = None
        if value.group() in OPENING:
            at = _closing(tokens, at)
            if value.group() != "[":
                inner = (value.end(), tokens[at].start())
        else:
            # strings side by side are one
            while value.lastgroup == "text" and _is_text(tokens, at + 1):
                at += 1
        last = tokens[at].end()
        at += 1
        yield _Entry(first.group(), first.start(), last, inner)


def _closing(tokens: list[re.Match[str]], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index].group() in OPENING:
            depth += 1
        elif tokens[index].group() in OPENING.values():
            depth -= 1
            if not depth:
                return index
    return len(tokens) - 1


def _is_text(tokens: list[re.Match[str]], at: int) -> bool:
    return at < len(tokens) and tokens[at].lastgroup == "text"


def _set(text: str, start: int, end: int, path: tuple[str, ...], value: Any) -> str:
    key, *rest = path
    found = [entry for entry in _entries(text, start, end) if entry.key == key]
    if rest and found and found[0].inner is not None:
        return _set(text, *found[0].inner, tuple(rest), value)
    if rest and value is None:
        return text
    line = f"{key} {{ {rest[0]}: {_pbtxt(value)} }}" if rest else f"{key}: {_pbtxt(value)}"
    for entry in reversed(found[1:] if value is not None else found):
        text = _without(text, entry)
    if value is None:
        return text
    if found:
        return text[: found[0].start] + line + text[found[0].end :]
    return _appended(text, end, line, whole=start == 0)


def _appended(text: str, end: int, line: str, *, whole: bool) -> str:
    if whole:
        return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"
    before = text[:end].rstrip()
    if "\n" in text[len(before) : end] or "#" in before.rpartition("\n")[2]:
        indent = re.search(r"[ \t]*$", text[:end])
        return f"{before}\n{indent.group() if indent else ''}  {line}{text[len(before) :]}"
    return f"{before} {line} {text[end:]}"


def _without(text: str, entry: _Entry) -> str:
    start, end = entry.start, entry.end
    while end < len(text) and text[end] in " \t,;":
        end += 1
    line = text.rfind("\n", 0, start) + 1
    if not text[line:start].strip() and (end == len(text) or text[end] == "\n"):
        return text[:line] + text[end + 1 :]
    return text[:start] + text[end:]


def _set_parameter(text: str, key: str, value: str | None) -> str:
    named = re.compile(rf"\bkey\s*:?\s*[\"']{re.escape(key)}[\"']")
    line = f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}'
    for entry in _entries(text, 0, len(text)):
        if entry.key == PARAMETERS and named.search(text, entry.start, entry.end):
            if value is None:
                return _without(text, entry)
            return text[: entry.start] + line + text[entry.end :]
    return text if value is None else _appended(text, len(text), line, whole=True)


def _pbtxt(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[ {', '.join(map(_pbtxt, value))} ]"
    if isinstance(value, Mapping):
        # the only texts in blocks that are written here are names of enumerations
        return f"{{ {' '.join(f'{key}: {item}' for key, item in value.items())} }}"
    return str(value)


# ── YAML ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _set_yaml(text: str, path: tuple[str, ...], value: Any) -> str:
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or not root.value:
        return text if value is None else f"{text}{_yaml(path, value)}\n"
    return _in_mapping(text, root, path, value)


def _in_mapping(text: str, node: yaml.MappingNode, path: tuple[str, ...], value: Any) -> str:
    key, *rest = path
    for key_node, item in node.value:
        if key_node.value != key:
            continue
        if rest and isinstance(item, yaml.MappingNode) and item.value:
            return _in_mapping(text, item, tuple(rest), value)
        if value is None:
            return text if rest else _cut(text, node, key_node, item)
        return text[: key_node.start_mark.index] + _yaml(path, value) + text[_end(item) :]
    return text if value is None else _added(text, node, _yaml(path, value))


def _added(text: str, node: yaml.MappingNode, line: str) -> str:
    if node.flow_style:
        at = node.start_mark.index + 1
        return f"{text[:at]}{line}, {text[at:]}"
    at = text.find("\n", _end(node.value[-1][1]))
    at = len(text) if at < 0 else at
    return f"{text[:at]}\n{' ' * node.value[0][0].start_mark.column}{line}{text[at:] or chr(10)}"


def _cut(text: str, node: yaml.MappingNode, key: yaml.Node, item: yaml.Node) -> str:
    start, end = key.start_mark.index, _end(item)
    if node.flow_style:
        while end < len(text) and text[end] in " ,":
            end += 1
        return text[:start] + text[end:]
    if len(node.value) == 1 and node.start_mark.column:
        # a block must not be left without a key
        return text[:start] + "{}" + text[end:]
    newline = text.find("\n", end)
    line = text.rfind("\n", 0, start) + 1
    return text[:line] + ("" if newline < 0 else text[newline + 1 :])


def _end(node: yaml.Node) -> int:
    """Where its text ends: a block's own mark stands behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _yaml(path: tuple[str, ...], value: Any) -> str:
    key, *rest = path
    return f"{key}: {_flow({rest[0]: value} if rest else value)}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_]+", value):
        return json.dumps(value)
    return str(value)
