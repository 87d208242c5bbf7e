"""Requests to others than the API server, such as the issuer of a token."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional
from urllib.parse import urlsplit

from kubews.config import proxies
from kubews.errors import ConfigError
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.dial import dial
from kubews.transport.http import check_headers, request
from kubews.transport.tls import tls_context

FETCH_TIMEOUT = 30.0


def fetch(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Optional[bytes],
    ca_pem: Optional[str],
    timeout: Optional[float],
) -> tuple[int, bytes]:
    """Make one request to anywhere.

    Args:
        method: such as ``GET``.
        url: of http or https.
        headers: beside ``Host``.
        body: or None.
        ca_pem: the only authorities to trust; None for those of the system.
        timeout: seconds, at most ``FETCH_TIMEOUT``.

    Returns:
        Code and body of the answer. Redirects are not followed: credentials are not meant for others.

    Raises:
        ConfigError: the URL cannot be used.
        ConnectFailed: there was no answer.

    Threads: blocks.
    """
    try:
        parts = urlsplit(url)
        secure, host = {"http": False, "https": True}[parts.scheme], parts.hostname
        port = parts.port or (443 if secure else 80)
    except (KeyError, ValueError):
        host = None
    if not host:
        raise ConfigError(f"{url!r} is no URL of http or https that could be asked")
    sent = check_headers([("Host", parts.netloc.rpartition("@")[2]), *headers.items()])
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = Deadline(timeout).at_most(FETCH_TIMEOUT)
    context = tls_context(ca_pem=ca_pem) if secure else None
    proxy = proxies.from_environment(parts.scheme, host, port, os.environ)
    to_proxy = tls_context(and_system=True) if proxy and proxy.scheme == "https" else None
    sock = dial(host, port, context=context, proxy=proxy, proxy_context=to_proxy, deadline=deadline)
    try:
        response = request(sock, method, target, sent, body, deadline)
    finally:
        forks.close(sock)
    return response.code, response.body
