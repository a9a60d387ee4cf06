"""Reads config.pbtxt: protobuf's text format, into a tree that knows its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

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

TOKEN: Final = re.compile(
    r"""
      (?P<space> [ \t\r\f\v]+ | \#[^\n]* )
    | (?P<line> \n )
    | (?P<word> [A-Za-z_][A-Za-z0-9_]*
              | -?[ \t]* (?: \.?[0-9](?:[eE][+-]|[0-9A-Za-z_.])* | inf\w* | nan\b ) )
    | (?P<text> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
    | (?P<mark> [][{}<>:,;] )
    """,
    re.VERBOSE,
)

ESCAPE: Final = re.compile(
    rb"""\\(?: (?P<octal>[0-7]{1,3}) | [xX](?P<hex>[0-9a-fA-F]{1,2})
             | u(?P<short>[0-9a-fA-F]{4}) | U(?P<long>[0-9a-fA-F]{8}) | (?P<other>.) )""",
    re.VERBOSE | re.DOTALL,
)

ESCAPED: Final = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))

CLOSING: Final = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is word, text, mark or end."""

    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        return "the end of the file" if self.kind == "end" else repr(self.text)


def parse_pbtxt(source: Source) -> Block:
    """The whole file as one block. Raises ConfigError that names the line."""
    parser = _Parser(source)
    return Block(tuple(parser.entries("")), 1)


class _Parser:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._tokens = _tokens(source)
        self._next = next(self._tokens)
        self._depth = 0

    def entries(self, closing: str) -> Iterator[Entry]:
        while not self._at(closing):
            key = self._take()
            if key.kind != "word" or not key.text.isidentifier():
                self._fail(f"a key{f' or {closing!r}' if closing else ''}", key)
            yield Entry(key.text, key.line, self._value(key.text))
            if self._at(",") or self._at(";"):
                self._take()

    def _value(self, key: str) -> Node:
        colon = self._at(":")
        if colon:
            self._take()
        elif not (self._at("{") or self._at("<") or self._at("[")):
            self._fail(f"':' or '{{' after {key!r}", self._next)
        return self._items() if self._at("[") else self._single()

    def _single(self) -> Scalar | Block:
        token = self._take()
        if token.text in CLOSING and token.kind == "mark":
            return self._block(token)
        if token.kind == "word":
            return Scalar(token.text, Style.WORD, token.line)
        if token.kind == "text":
            return self._text(token)
        self._fail("a value", token)

    def _block(self, opening: Token) -> Block:
        if self._depth == MAX_DEPTH:
            raise self._source.error(opening.line, f"nested more than {MAX_DEPTH} blocks deep")
        self._depth += 1
        closing = CLOSING[opening.text]
        entries = tuple(self.entries(closing))
        self._depth -= 1
        self._take()
        return Block(entries, opening.line)

    def _items(self) -> Items:
        line = self._take().line
        nodes: list[Node] = []
        while not self._at("]"):
            if nodes:
                self._expect(",", "',' or ']'")
            nodes.append(self._single())
        self._take()
        return Items(tuple(nodes), line)

    def _text(self, first: Token) -> Scalar:
        parts = [first]
        while self._next.kind == "text":
            parts.append(self._take())
        raw = b"".join(self._unescape(part) for part in parts)
        try:
            return Scalar(raw.decode(), Style.TEXT, first.line)
        except UnicodeDecodeError as error:
            text = f"the escapes in this text give {raw!r}, which is not UTF-8"
            raise self._source.error(first.line, text) from error

    def _unescape(self, token: Token) -> bytes:
        def replace(match: re.Match[bytes]) -> bytes:
            try:
                return _escaped(match)
            except (ValueError, KeyError, OverflowError) as error:
                text = f"{match[0].decode(errors='replace')} is not an escape in quoted text"
                raise self._source.error(token.line, text) from error

        return ESCAPE.sub(replace, token.text[1:-1].encode())

    def _at(self, mark: str) -> bool:
        kind = "mark" if mark else "end"
        return self._next.kind == kind and self._next.text == mark

    def _take(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _expect(self, mark: str, expected: str) -> None:
        if not self._at(mark):
            self._fail(expected, self._next)
        self._take()

    def _fail(self, expected: str, found: Token) -> NoReturn:
        raise self._source.error(found.line, f"found {found}; expected {expected}")


def _tokens(source: Source) -> Iterator[Token]:
    position, line = 0, 1
    while position < len(source.text):
        match = TOKEN.match(source.text, position)
        if match is None:
            character = source.text[position]
            quote = character in "\"'"
            wrong = "a quote is not closed in its line" if quote else f"found {character!r}"
            raise source.error(line, wrong if quote else f"{wrong}; expected a key or a value")
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "line":
            line += 1
        elif kind == "word":
            # "- 5" is a number too.
            yield Token(kind, re.sub(r"[ \t]", "", match[0]), line)
        elif kind != "space":
            yield Token(kind, match[0], line)
    yield Token("end", "", line)


def _escaped(match: re.Match[bytes]) -> bytes:
    if match["octal"] is not None:
        return bytes([int(match["octal"], 8)])
    if match["hex"] is not None:
        return bytes([int(match["hex"], 16)])
    if match["other"] is not None:
        return bytes([ESCAPED[match["other"][0]]])
    return chr(int(match["short"] or match["long"], 16)).encode()
