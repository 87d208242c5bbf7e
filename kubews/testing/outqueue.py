"""How much of what was sent the other side's kernel has not taken yet."""

from __future__ import annotations

import socket
import struct


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes of a TCP connection were sent and not acknowledged.

    Raises:
        OSError: not everywhere does a socket know.

    Threads: any; does not block.
    """
    import fcntl
    import termios

    # SIOCOUTQ, which is TIOCOUTQ.
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return count
