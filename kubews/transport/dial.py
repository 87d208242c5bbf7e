"""TCP, a proxy and TLS under one deadline: the only way to a socket, for streams and REST alike."""

from __future__ import annotations

import functools
import os
import selectors
import socket
import ssl
from typing import Any, Optional

from kubews.config.proxies import Proxy
from kubews.errors import ConnectFailed, ConnectTimeout
from kubews.transport import forks, proxied
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.patience import ready
from kubews.transport.tls import reason, secure
from kubews.transport.tlssockets import Socket
from kubews.transport.wait import DaemonThread, Expired, Outcome

# A silent network is noticed by the kernel after IDLE + COUNT * INTERVAL seconds.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


def dial(
    host: str,
    port: int,
    *,
    context: Optional[ssl.SSLContext],
    server_hostname: Optional[str] = None,
    proxy: Optional[Proxy] = None,
    proxy_context: Optional[ssl.SSLContext] = None,
    deadline: Deadline,
) -> Socket:
    """Connect to a server.

    Args:
        host: a name or an IP address without brackets.
        port: of TCP.
        context: for TLS; None for plain TCP.
        server_hostname: the name to send and to verify in place of ``host``.
        proxy: what to go through; it is told the name, and looks it up. None to connect directly.
        proxy_context: for TLS to an ``https`` proxy.
        deadline: for name lookup, TCP, the proxy's answer and TLS together.

    Returns:
        A connected socket that never waits.

    Raises:
        ConnectTimeout: the deadline passed.
        ConnectFailed: anything else.
        ConfigError: the proxy's kind needs a package that is not installed.

    Threads: blocks.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock: Socket
    if proxy is None:
        sock = _connect(host, port, where, deadline)
    else:
        sock = _connect(proxy.host, proxy.port, f"the proxy {proxy}", deadline)
    try:
        if proxy is not None:
            if proxy.scheme == "https":
                assert proxy_context is not None
                sock = secure(
                    sock, proxy_context, proxy.host, f"the proxy {proxy}", deadline, to_proxy=True
                )
            proxied.lead_on(sock, proxy, host, port, deadline)
            where += f" through the proxy {proxy}"
        if context is not None:
            sock = secure(sock, context, server_hostname or host, where, deadline)
    except BaseException:
        forks.close(sock)
        raise
    return sock


def _connect(host: str, port: int, where: str, deadline: Deadline) -> socket.socket:
    found = _look_up(host, port, where, deadline)
    failure: Optional[OSError] = None
    for index, (family, kind, protocol, _, address) in enumerate(found):
        remaining = deadline.remaining()
        if remaining == 0.0:
            break
        try:
            sock = forks.own(functools.partial(socket.socket, family, kind, protocol))
        except OSError as exc:  # such as an IPv6 address where there is no IPv6
            failure = exc
            continue
        try:
            # Each address gets a fair share, so that a dead first one does not use up all the time.
            share = NEVER if remaining is None else Deadline(remaining / (len(found) - index))
            _connect_to(sock, address, share)
            _tune(sock)
        except OSError as exc:
            forks.close(sock)
            failure = exc
        except BaseException:
            forks.close(sock)
            raise
        else:
            return sock
    if deadline.expired() or isinstance(failure, TimeoutError):
        raise ConnectTimeout(f"no connection to {where} within the time limit") from failure
    raise ConnectFailed(f"cannot connect to {where}: {reason(failure)}") from failure


def _connect_to(sock: socket.socket, address: Any, deadline: Deadline) -> None:
    sock.setblocking(False)
    try:
        sock.connect(address)
    except BlockingIOError:
        if not ready(sock, selectors.EVENT_WRITE, deadline):
            raise TimeoutError("timed out") from None
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code)) from None


def _look_up(host: str, port: int, where: str, deadline: Deadline) -> list[Any]:
    # Bytes, where that is the same: getaddrinfo imports a codec for each str.
    name = host.encode() if host.isascii() else host
    look_up = functools.partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM)
    found: Outcome[list[Any]] = Outcome()

    def ask() -> None:
        try:
            found.set(look_up())
        except Exception as exc:
            found.set_exception(exc)

    try:
        return look_up(flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass  # a name: the system may take minutes for it, and hears neither deadlines nor Ctrl-C
    DaemonThread(ask, f"kubews name lookup {host}").start()
    try:
        return found.get(deadline)
    except Expired as exc:
        raise ConnectTimeout(f"no address of {where} within the time limit") from exc
    except (OSError, UnicodeError) as exc:
        raise ConnectFailed(f"cannot find the address of {where}: {exc}") from exc


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
