"""The keys that let go: swallowed when complete, passed on when not, and nothing read behind them."""

from __future__ import annotations

import itertools

import pytest

from kubews.detach import DetachKeys, key_codes


@pytest.mark.parametrize(
    ("names", "codes"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        (
            "ctrl-@,ctrl-a,ctrl-z,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_",
            bytes((0, 1, 26, *range(27, 32))),
        ),
        ("~,.", b"~."),
        ("DEL", b"\x7f"),
        ("a,A, ", b"aA "),
    ],
)
def test_names_of_keys_are_those_of_kubectl(names: str, codes: bytes) -> None:
    assert key_codes(names) == codes


@pytest.mark.parametrize(
    "names", ["", "ctrl-", "ctrl-P", "ctrl-1", "ctrl-pq", "ab", "ä", "a,", "ctrl-,"]
)
def test_what_is_no_key_is_named(names: str) -> None:
    with pytest.raises(ValueError, match="are no detach keys, because of '"):
        key_codes(names)


def feed(names: str | None, typed: bytes) -> tuple[bytes, bytes | None]:
    """Type something; return what is passed on, and what is left once the keys were complete."""
    keys = DetachKeys(names)
    passed = b""
    while typed and not keys.complete:
        room = keys.room
        passed += keys.feed(typed[:room])
        typed = typed[room:]
    return passed, typed if keys.complete else None


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        (b"\x10\x11", b"", b""),
        (b"ab\x10\x11cd", b"ab", b"cd"),
        (b"a\x10\x11\x11", b"a", b"\x11"),
        (b"\x10a\x10", b"\x10a", None),
        (b"\x10\x10\x11x", b"\x10", b"x"),
        (b"\x11\x10", b"\x11", None),
    ],
)
def test_a_sequence_is_swallowed_and_its_beginning_is_not(
    typed: bytes, passed: bytes, left: bytes | None
) -> None:
    assert feed("ctrl-p,ctrl-q", typed) == (passed, left)


def test_without_keys_everything_is_passed_on() -> None:
    assert feed(None, bytes(range(256)) * 512) == (bytes(range(256)) * 512, None)


@pytest.mark.parametrize("names", ["a", "a,a,b", "a,b,a", "a,b,a,b,b"])
def test_it_finds_what_a_search_finds(names: str) -> None:
    """Every word of nine letters: also where one beginning of the sequence lies in another."""
    keys = key_codes(names)
    for letters in itertools.product(b"ab", repeat=9):
        typed = bytes(letters)
        where = typed.find(keys)
        passed, left = feed(names, typed)
        if where < 0:
            assert left is None
            assert typed.startswith(passed)
            assert keys.startswith(typed[len(passed) :])
        else:
            assert (passed, left) == (typed[:where], typed[where + len(keys) :])
