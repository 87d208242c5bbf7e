"""The keys that let go of a terminal, found in what is typed.

As ``--detach-keys`` of kubectl and docker (``moby/term/ascii.go``): names with commas between them.
"""

from __future__ import annotations

from typing import Optional

#: Bytes that may be read at a time where no key is looked for.
ANY = 65536

_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def key_codes(names: str) -> bytes:
    """Return what the terminal sends for keys such as ``"ctrl-p,ctrl-q"`` or ``"~,."``.

    Args:
        names: each a character, ``ctrl-`` with a letter or one of ``@[\\]^_``, or ``DEL``.

    Raises:
        ValueError: a name is none of these.
    """
    codes = bytearray()
    for name in names.split(","):
        control = name.removeprefix("ctrl-")
        if len(name) == 1 and name.isascii():
            codes += name.encode()
        elif name == "DEL":
            codes.append(127)
        elif len(name) == 6 and len(control) == 1 and control in _CONTROL:
            codes.append(_CONTROL.index(control))
        else:
            raise ValueError(
                f"{names!r} are no detach keys, because of {name!r}: write a character, or ctrl- with a "
                r"letter or one of @ [ \ ] ^ _, with commas between them"
            )
    return bytes(codes)


class DetachKeys:
    """What is typed, without the keys that let go.

    The beginning of the sequence is held until it is known whether the rest follows, and passed on if not.

    Args:
        names: see ``key_codes``; None for no such keys.

    Raises:
        ValueError: they are none.

    Threads: one.
    """

    def __init__(self, names: Optional[str]) -> None:
        self._keys = b"" if names is None else key_codes(names)
        self._held = bytearray()

    @property
    def complete(self) -> bool:
        """Whether the sequence was typed."""
        return bool(self._keys) and self._held == self._keys

    @property
    def room(self) -> int:
        """The number of bytes that cannot reach behind the sequence: what follows it is not for the process."""
        return len(self._keys) - len(self._held) if self._keys else ANY

    def feed(self, typed: bytes) -> bytes:
        """Take what was typed, at most ``room`` bytes; return what to pass on."""
        if not self._keys:
            return typed
        passed = bytearray()
        for byte in typed:
            self._held.append(byte)
            while not self._keys.startswith(self._held):
                passed.append(self._held.pop(0))
        return bytes(passed)
