"""Local sockets that listen, with the rules of kubectl's ``--address``."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence

from kubews.errors import ConfigError
from kubews.transport import forks

# Connections that may wait until they are accepted.
_BACKLOG = 1024

# A port that the kernel picked for one address may be taken at another.
_TRIES = 20


def listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listen at the same port of each address.

    Args:
        addresses: IP addresses, or ``localhost``, which is 127.0.0.1 and ::1 as far as they are there.
        port: 0 lets the kernel pick one.

    Raises:
        ConfigError: not an IP address, or no port.
        OSError: the port is in use, or an address is not of this machine.

    Threads: any; does not block.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"{port} is not a valid port: 0 to 65535 are")
    hosts: dict[str, bool] = {}  # with whether it has to work
    for address in addresses:
        if address == "localhost":
            for host in ("127.0.0.1", "::1"):
                hosts.setdefault(host, False)
        else:
            hosts[_checked(address)] = True
    for last in [False] * (_TRIES - 1) + [True]:
        try:
            return _listen(hosts, port)
        except OSError as exc:
            if port or last or exc.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last try returns or raises")


def _checked(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ConfigError(f"{address!r} is not a valid IP address, nor localhost") from None


def _listen(hosts: dict[str, bool], port: int) -> list[socket.socket]:
    made: list[socket.socket] = []
    failure: OSError = OSError("no address to listen at was given")
    try:
        for host, needed in hosts.items():
            try:
                made.append(_bind(host, made[0].getsockname()[1] if made and not port else port))
            except OSError as exc:
                failure = OSError(exc.errno, f"cannot listen at {host} port {port}: {exc.strerror}")
                if needed or (not port and exc.errno == errno.EADDRINUSE):
                    raise failure from exc
        if not made:
            raise failure
    except BaseException:
        for sock in made:
            forks.close(sock)
        raise
    return made


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = forks.own(lambda: socket.socket(family, socket.SOCK_STREAM))
    try:
        if os.name == "posix":  # on Windows it would let others take the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        forks.close(sock)
        raise
    return sock
