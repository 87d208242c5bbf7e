"""The port numbers of a port-forward, and what servers made with Go say of those that are none.

Threads: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

from kubews.testing import objects
from kubews.testing.access import Refused

_MAX = 0xFFFF


def parse_port(text: str) -> Optional[int]:
    """Return the number of a port, or None if it is none (``httpstream.go: httpStreamReceived``)."""
    number = _uint16(text)
    return number if isinstance(number, int) and number else None


def _uint16(text: str) -> int | str:
    """Return the number, or what ``strconv.ParseUint(text, 10, 16)`` says."""
    if not re.fullmatch("[0-9]+", text):
        return "invalid syntax"
    number = int(text) if len(text.lstrip("0")) <= 5 else _MAX + 1
    return number if number <= _MAX else "value out of range"


def decode_ports(values: Iterable[str]) -> list[int]:
    """Decode the query as the API server does (``Convert_Slice_string_To_Slice_int32``).

    Raises:
        Refused: 400.
    """
    ports = []
    for text in ",".join(values).split(",") if values else []:
        number = _uint16(text)
        if isinstance(number, str):
            problem = f'strconv.ParseUint: parsing "{text}": {number}'
            raise Refused(objects.bad_request(f"cannot convert to []int32: {problem}"))
        ports.append(number)
    return ports


def ports_problem(ports: list[int]) -> str:
    """Return what the kubelet has against the ports of a legacy request; nothing if it has nothing.

    The API server sends it one parameter with all of them (``portforward/websocket.go: NewV4Options``).
    """
    if not ports:
        return 'query parameter "port" is required'
    if 0 in ports:
        return f'port "{",".join(map(str, ports))}" must be > 0'
    return ""
