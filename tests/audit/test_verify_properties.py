"""Whatever is changed in a log, one byte, one line, or one file, `verify` finds it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import log_files, write_log
from penstock.audit.signing import Signer
from penstock.audit.verify import verify

SIGNER = Signer.generate()

texts = st.text(max_size=30)
groups = st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=8)
signers = st.sampled_from([None, SIGNER])
a_half = settings(max_examples=60, deadline=None)


@contextmanager
def a_log(written: list[list[str]], signer: Signer | None) -> Iterator[Path]:
    """A log that is whole."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "audit"
        write_log(folder, written, signer)
        assert verify(folder).is_whole
        yield folder


def change(file: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change a file's lines."""
    file.write_bytes(b"".join(edit(file.read_bytes().splitlines(keepends=True))))


@a_half
@given(groups, signers, st.data())
def test_a_flipped_byte_is_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        file = data.draw(st.sampled_from([*log_files(folder), folder / "head.json"]))
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        verdict = verify(folder)
        assert not verdict.is_whole
        # what is damaged is told by file, though damage of a head is told by the file that it no longer fits, too
        assert file.name in {problem.file for problem in verdict.problems}


@a_half
@given(groups, signers, st.data())
def test_a_dropped_line_is_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        file = data.draw(st.sampled_from(log_files(folder)))
        change(file, lambda lines: _without(lines, data.draw(st.integers(0, len(lines) - 1))))
        assert not verify(folder).is_whole


@a_half
@given(groups, signers, st.data())
def test_a_repeated_line_is_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        source = data.draw(st.sampled_from(log_files(folder)))
        lines = source.read_bytes().splitlines(keepends=True)
        line = data.draw(st.sampled_from(lines))
        file = data.draw(st.sampled_from(log_files(folder)))
        at = data.draw(st.integers(0, len(file.read_bytes().splitlines())))
        change(file, lambda lines: [*lines[:at], line, *lines[at:]])
        assert not verify(folder).is_whole


@a_half
@given(groups, signers, st.data())
def test_swapped_lines_are_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        every = [
            (file, n)
            for file in log_files(folder)
            for n in range(len(file.read_bytes().splitlines()))
        ]
        if len(every) < 2:
            return
        (one, i), (other, j) = data.draw(
            st.lists(st.sampled_from(every), min_size=2, max_size=2, unique=True)
        )
        first, second = (
            file.read_bytes().splitlines(keepends=True)[n] for file, n in ((one, i), (other, j))
        )
        change(one, lambda lines: [*lines[:i], second, *lines[i + 1 :]])
        change(other, lambda lines: [*lines[:j], first, *lines[j + 1 :]])
        assert not verify(folder).is_whole


@a_half
@given(groups, signers, st.data())
def test_a_truncated_file_is_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        file = data.draw(st.sampled_from(log_files(folder)))
        content = file.read_bytes()
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert not verify(folder).is_whole


@a_half
@given(groups, signers, st.binary(min_size=1, max_size=200))
def test_what_is_appended_is_found(
    written: list[list[str]], signer: Signer | None, rest: bytes
) -> None:
    with a_log(written, signer) as folder:
        if rest.startswith(b"{"):
            rest = b" " + rest
        with log_files(folder)[-1].open("ab") as file:
            file.write(rest)
        assert not verify(folder).is_whole


@a_half
@given(groups, signers, st.data())
def test_a_removed_or_exchanged_file_is_found(
    written: list[list[str]], signer: Signer | None, data: st.DataObject
) -> None:
    with a_log(written, signer) as folder:
        files = log_files(folder)
        file = data.draw(st.sampled_from(files))
        other = data.draw(st.sampled_from(files))
        if other == file:
            file.unlink()
        else:
            one, two = file.read_bytes(), other.read_bytes()
            file.write_bytes(two)
            other.write_bytes(one)
        assert not verify(folder).is_whole


def _without(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]
