"""The decoder of the resize channel, with the two ways in which a real server wedges on it.

Threads: a Resizer belongs to one stream.
"""

from __future__ import annotations

import json
from typing import Any


class Wedged(Exception):
    """The server's read loop waits for ever: nobody takes the message."""


class Resizer:
    """Decode a stream of ``{"Width":80,"Height":24}`` as Go's json.Decoder does.

    Args:
        tty: whether anybody consumes the sizes.
        v5: whether the stream ends in the translator.
    """

    def __init__(self, tty: bool, v5: bool) -> None:
        self._consumed = tty or not v5
        self._buffer = ""
        self._messages = 0
        self._broken = False

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Return the sizes (width, height) that are complete now.

        Raises:
            Wedged: the decoder has ended on malformed JSON before, or (v5 without a tty) this is
                the second message and nobody has taken the first.
        """
        self._messages += 1
        if self._broken or (not self._consumed and self._messages > 1):
            raise Wedged
        self._buffer += data.decode("utf-8", "replace")
        sizes = []
        while text := self._buffer.lstrip():
            try:
                value, end = json.JSONDecoder().raw_decode(text)
                sizes.append(_size(value))
            except json.JSONDecodeError as exc:
                # An error at the end of the text: the rest comes with the next message.
                self._broken = exc.pos < len(text.rstrip())
                break
            except (ValueError, TypeError, AttributeError):
                self._broken = True
                break
            self._buffer = text[end:]
        return sizes


def _size(value: Any) -> tuple[int, int]:
    fields = {str(key).lower(): number for key, number in value.items()}
    width, height = fields.get("width", 0), fields.get("height", 0)
    for number in (width, height):
        if not isinstance(number, int) or not 0 <= number <= 65535:
            raise ValueError(f"not an unsigned 16-bit number: {number!r}")
    return width, height
