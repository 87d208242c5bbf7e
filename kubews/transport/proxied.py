"""The first words to a proxy: HTTP CONNECT, or SOCKS5; after them the connection leads to the server."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Optional

from kubews.errors import ConfigError, ConnectFailed, ConnectTimeout, RemoteProtocolError
from kubews.transport.http import END_OF_HEAD, MAX_ERROR_BODY, DeadlineSocket, read_refusal
from kubews.transport.tls import reason

if TYPE_CHECKING:
    from kubews.config.proxies import Proxy
    from kubews.transport.deadline import Deadline
    from kubews.transport.http import Response
    from kubews.transport.tlssockets import Socket

_MAX_HEAD = 64 * 1024
_MAX_SAID = 300  # characters of a refusal: proxies send whole pages
_SUCCESS = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9][ \r\n]")
_TAG = re.compile(r"<([^<>]*)>")


def lead_on(sock: Socket, proxy: Proxy, host: str, port: int, deadline: Deadline) -> None:
    """Have a proxy connect this connection to it on to a server.

    Args:
        sock: connected to the proxy, with TLS if it is an ``https`` one. The caller closes it.
        proxy: for the kind and the credentials.
        host: of the server: a name, which the proxy looks up, or an address without brackets.
        port: of the server.
        deadline: for the whole conversation.

    Raises:
        ConnectTimeout: the deadline passed.
        ConnectFailed: the proxy refused, or is none.
        ConfigError: for SOCKS5 the package python-socks is not installed, or cannot send the password.

    Threads: blocks.
    """
    talk = _socks if proxy.scheme.startswith("socks") else _connect
    stream = DeadlineSocket(sock, deadline, _MAX_HEAD + MAX_ERROR_BODY)
    # A zone has a meaning on this machine only.
    host = host.partition("%")[0]
    try:
        talk(stream, proxy, host, port)
    except TimeoutError as exc:
        raise ConnectTimeout(f"no answer from the proxy {proxy} within the time limit") from exc
    except OSError as exc:
        if isinstance(exc, ConnectFailed):
            raise
        raise ConnectFailed(f"the proxy {proxy} broke off: {reason(exc)}") from exc
    except (EOFError, RemoteProtocolError) as exc:
        raise ConnectFailed(f"what came from the proxy {proxy} is no answer of one") from exc
    if stream.rest():
        # The server speaks second, with TLS as with HTTP: this is not from there.
        raise ConnectFailed(f"the proxy {proxy} says more than a proxy does")


def _connect(stream: DeadlineSocket, proxy: Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: kubews\r\n"
    if proxy.username is not None:
        head += f"Proxy-Authorization: Basic {_basic(proxy)}\r\n"
    stream.sendall(f"{head}\r\n".encode("ascii"))
    while not (end := END_OF_HEAD.search(stream.received())):
        if len(stream.received()) > _MAX_HEAD or not stream.recv(_MAX_HEAD):
            raise EOFError
    if _SUCCESS.match(stream.received()):
        stream.rewind()
        stream.recv(end.end())
        return
    refusal = read_refusal(stream)
    if refusal is None:
        raise RemoteProtocolError("no HTTP")
    raise ConnectFailed(_explain(refusal, proxy, target))


def _explain(refusal: Response, proxy: Proxy, target: str) -> str:
    said = f"HTTP {refusal.code} {refusal.reason}"
    cure = ""
    if refusal.code != 407:
        page = _without_credentials(refusal.body.decode("utf-8", "replace"), proxy)
        said += f": {_text(page)}" if page else ""
    elif proxy.username is None:
        cure = ". It wants a user name and a password: put them into its URL"
    else:
        cure = ". It does not accept the user name and the password of its URL"
    if cure:
        cure += f", {proxy.scheme}://USER:PASSWORD@HOST:PORT"
    said = "".join(c if c.isprintable() else " " for c in _without_credentials(said, proxy))
    said = " ".join(said.split()).rstrip(":")[:_MAX_SAID]
    return f"the proxy {proxy} does not connect to {target}: {said}{cure}"


def _text(page: str) -> str:
    """Take the markup out of a page, and what is not to be read."""
    import html  # a dictionary of all characters with names, for the answer of a proxy that refuses

    parts = _TAG.split(page)
    kept, inside = [parts[0]], ""
    for tag, text in zip(parts[1::2], parts[2::2], strict=True):
        name = (tag.split() or [""])[0].lower()
        if not inside and name in ("head", "script", "style"):
            inside = f"/{name}"
        elif name == inside:
            inside = ""
        if not inside:
            kept.append(text)
    return html.unescape(" ".join(kept))


def _basic(proxy: Proxy) -> str:
    return base64.b64encode((proxy.username or b"") + b":" + proxy.password).decode("ascii")


def _without_credentials(text: str, proxy: Proxy) -> str:
    """Take out what a proxy has sent back of the request."""
    if proxy.username is not None:
        for secret in (_basic(proxy), proxy.password.decode("utf-8", "replace")):
            text = text.replace(secret, "[hidden]") if secret else text
    return text


def _socks(stream: DeadlineSocket, proxy: Proxy, host: str, port: int) -> None:
    try:
        from python_socks import ProxyError, ProxyTimeoutError, ProxyType
        from python_socks.sync import Proxy as Client
    except ImportError:
        raise ConfigError(
            f'the proxy {proxy} needs the package python-socks: pip install "kubews[socks]"'
        ) from None
    username, password = _for_socks(proxy)
    client = Client(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username,
        password,
        rdns=True,  # the proxy looks the name up, as Go has it for socks5 and socks5h alike
        forward=_Dialled(stream),  # type: ignore[arg-type]
    )
    try:
        client.connect(host, port)
    except ProxyTimeoutError as exc:
        raise TimeoutError from exc
    except ProxyError as exc:
        raise ConnectFailed(f"the proxy {proxy} does not connect to {host}:{port}: {exc}") from exc
    except ValueError as exc:
        raise ConnectFailed(f"the proxy {proxy} cannot be asked for {host}: {exc}") from exc


def _for_socks(proxy: Proxy) -> tuple[Optional[str], Optional[str]]:
    if proxy.username is None:
        return None, None
    pair = (proxy.username, proxy.password)
    if not all(0 < len(part) < 256 and part.isascii() for part in pair):
        # RFC 1929 has a byte for each length; python-socks knows ASCII only.
        raise ConfigError(
            f"the proxy {proxy} needs a user name and a password of 1 to 255 ASCII characters"
        )
    return proxy.username.decode("ascii"), proxy.password.decode("ascii")


class _Dialled:
    """What python-socks takes for a proxy before its own: it gives the connection that there is."""

    def __init__(self, stream: DeadlineSocket) -> None:
        self._stream = stream

    def connect(self, *args: Any, **options: Any) -> DeadlineSocket:
        return self._stream
