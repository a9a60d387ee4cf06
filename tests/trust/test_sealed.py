"""Files encrypted at rest: what goes in comes out, and whatever is done to the file in between is found."""

from __future__ import annotations

import io
import os
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError, EncryptionBroken, Untrusted, WrongKeyEncryptionKey
from penstock.trust.kek import EMPTY_SLOT, SLOT_BYTES, KeyEncryptionKey, KeyRing, parse_key
from penstock.trust.sealed import MAGIC, SLOTS, TAG_BYTES, rewrap, seal, unsealed

CHUNK: Final = 16
KEK: Final = KeyEncryptionKey(bytes(range(32)))
OTHER: Final = KeyEncryptionKey(bytes(32))
RING: Final = KeyRing((KEK,))

contents = st.binary(max_size=4 * CHUNK)


def sealed(content: bytes, path: str = "1/model", model: str = "m") -> bytes:
    target = io.BytesIO()
    seal(io.BytesIO(content), target, KEK, model, path, chunk_bytes=CHUNK)
    return target.getvalue()


def opened(file: bytes, ring: KeyRing = RING, path: str = "1/model", model: str = "m") -> bytes:
    return b"".join(unsealed(io.BytesIO(file), ring, model, path))


def chunks_of(file: bytes) -> tuple[bytes, list[bytes]]:
    """What comes before the chunks, and they."""
    at = len(MAGIC) + SLOTS * SLOT_BYTES
    end, size = at + 2 + int.from_bytes(file[at : at + 2]), CHUNK + TAG_BYTES
    return file[:end], [file[at : at + size] for at in range(end, len(file), size)]


@given(contents)
def test_what_goes_in_comes_out(content: bytes) -> None:
    file = sealed(content)
    assert opened(file) == content
    assert len(content) < 8 or content not in b"".join(chunks_of(file)[1])


def test_two_files_of_the_same_content_have_nothing_in_common() -> None:
    one, other = chunks_of(sealed(b"same"))[1], chunks_of(sealed(b"same"))[1]
    assert one != other


@given(contents, st.data())
def test_any_bit_that_flips_is_found(content: bytes, data: st.DataObject) -> None:
    file = bytearray(sealed(content))
    # the second slot is empty, and of no meaning
    free = len(MAGIC) + SLOT_BYTES
    spot = data.draw(st.sampled_from([*range(free), *range(free + SLOT_BYTES, len(file))]))
    file[spot] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Untrusted):
        opened(bytes(file))


@given(contents, st.data())
def test_any_cut_is_found(content: bytes, data: st.DataObject) -> None:
    file = sealed(content)
    with pytest.raises(EncryptionBroken):
        opened(file[: data.draw(st.integers(0, len(file) - 1))])


@given(contents, st.binary(min_size=1, max_size=40))
def test_anything_appended_is_found(content: bytes, more: bytes) -> None:
    with pytest.raises(EncryptionBroken):
        opened(sealed(content) + more)


@given(st.binary(min_size=CHUNK + 1, max_size=5 * CHUNK), st.data())
def test_any_other_order_or_number_of_chunks_is_found(content: bytes, data: st.DataObject) -> None:
    head, chunks = chunks_of(sealed(content))
    places = range(len(chunks))
    orders = st.lists(st.sampled_from(places), max_size=len(chunks) + 2)
    order = data.draw(orders.filter(lambda order: order != list(places)))
    with pytest.raises(EncryptionBroken):
        opened(head + b"".join(chunks[each] for each in order))


@given(st.binary(min_size=1, max_size=2 * CHUNK))
def test_chunks_of_another_file_are_found(content: bytes) -> None:
    """Of the same name and the same length."""
    head, _ = chunks_of(sealed(content))
    _, chunks = chunks_of(sealed(content))
    with pytest.raises(EncryptionBroken):
        opened(head + b"".join(chunks))


@pytest.mark.parametrize(("path", "model"), [("1/other", "m"), ("2/model", "m"), ("1/model", "n")])
def test_a_file_in_the_place_of_another(path: str, model: str) -> None:
    with pytest.raises(EncryptionBroken, match="put in another's place"):
        opened(sealed(b"x"), path=path, model=model)


def test_another_key() -> None:
    with pytest.raises(WrongKeyEncryptionKey, match=KEK.id.hex()):
        opened(sealed(b"x"), KeyRing((OTHER,)))
    assert opened(sealed(b"x"), KeyRing((OTHER, KEK))) == b"x"


class TestRewrapping:
    def rewrapped(self, file: bytes, *keys: KeyEncryptionKey) -> tuple[bytes, bool]:
        with Disk(file) as disk:
            changed = rewrap(disk, KeyRing(keys), "1/model")
            return disk.getvalue(), changed

    @given(contents)
    def test_the_new_key_opens_it_and_the_old_one_does_not(self, content: bytes) -> None:
        before = sealed(content)
        after, changed = self.rewrapped(before, OTHER, KEK)
        assert changed
        assert opened(after, KeyRing((OTHER,))) == content
        with pytest.raises(WrongKeyEncryptionKey):
            opened(after)
        start = len(MAGIC) + SLOTS * SLOT_BYTES
        assert after[start:] == before[start:]
        assert self.rewrapped(after, OTHER, KEK) == (after, False)
        back, _ = self.rewrapped(after, KEK, OTHER)
        assert opened(back) == content

    def test_at_each_moment_one_of_both_keys_opens_it(self) -> None:
        with Disk(sealed(b"content")) as disk:
            rewrap(disk, KeyRing((OTHER, KEK)), "1/model")
            assert len(disk.states) == 2
            for state in disk.states:
                assert opened(state, KeyRing((KEK, OTHER))) == b"content"
                # a machine that stopped there goes on from there
                after, _ = self.rewrapped(state, OTHER, KEK)
                assert opened(after, KeyRing((OTHER,))) == b"content"
                assert EMPTY_SLOT in after

    def test_without_the_old_key(self) -> None:
        with pytest.raises(WrongKeyEncryptionKey):
            self.rewrapped(sealed(b"x"), OTHER)


class Disk(io.BytesIO):
    """A file that remembers what was on the disk after each write that had to be there."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.states: list[bytes] = []
        self._descriptor = os.memfd_create("disk")

    def fileno(self) -> int:
        self.states.append(self.getvalue())
        return self._descriptor

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(32)),
        bytes(range(32)).hex().encode() + b"\n",
        b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_ways_to_write_a_key(content: bytes) -> None:
    assert parse_key(content, "env:KEK") == bytes(range(32))


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33, b"A" * 40])
def test_what_is_no_key(content: bytes) -> None:
    with pytest.raises(ConfigError, match="env:KEK: expected a key of 32 bytes") as raised:
        parse_key(content, "env:KEK")
    assert not content or content.decode() not in str(raised.value)


def test_a_key_does_not_show_itself() -> None:
    assert bytes(range(32)).hex() not in repr(KEK)
    assert repr(bytes(range(32))) not in repr(KEK)
