"""One request to anywhere: real servers on loopback, with TLS, behind a proxy, slow, and gone."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import proxying
import pytest
from peers import authority
from support import seconds

from kubews.errors import ConfigError, ConnectFailed, ConnectTimeout
from kubews.transport import fetch as fetch_module
from kubews.transport.fetch import fetch

Asked = tuple[str, str, dict[str, str], bytes]


class Server:
    """Answers with a code of the path, and notes what it was asked."""

    def __init__(self, tls: Optional[ssl.SSLContext] = None) -> None:
        self.asked: list[Asked] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(seconds(10))
        self._server.server_close()


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.asked.append((self.command, self.path, headers, body))
            self.send_response(302 if self.path.startswith("/moved") else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"answer")

        do_GET = do_POST = _answer

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(tls: Optional[ssl.SSLContext] = None) -> Iterator[Server]:
    server = Server(tls)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_what_is_asked_and_what_comes() -> None:
    with serving() as server:
        answer = fetch(
            "POST", f"http://{server.address}/a/b?c=d", {"X-Of": "mine"}, b"body", None, None
        )
        assert answer == (200, b"answer")
        ((method, path, headers, body),) = server.asked
    assert (method, path, body) == ("POST", "/a/b?c=d", b"body")
    assert headers["host"] == server.address
    assert headers["x-of"] == "mine"


def test_without_a_path_the_root_is_asked_and_no_credentials_of_the_url_are_sent() -> None:
    with serving() as server:
        assert fetch("GET", f"http://user:secret@{server.address}", {}, None, None, 10)[0] == 200
        ((_, path, headers, _),) = server.asked
    assert path == "/"
    assert "secret" not in str(headers)


def test_a_redirect_is_not_followed() -> None:
    with serving() as server:
        assert fetch("GET", f"http://{server.address}/moved", {}, None, None, None)[0] == 302
        assert [path for _, path, _, _ in server.asked] == ["/moved"]


def test_over_tls_with_the_authority_that_is_named() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(tls)
    with serving(tls) as server:
        url = f"https://{server.address}/x"
        ours = authority().cert_pem.bytes().decode()
        assert fetch("GET", url, {}, None, ours, None) == (200, b"answer")
        with pytest.raises(ConnectFailed, match="certificate"):
            fetch("GET", url, {}, None, None, None)
        others = proxying.authority().cert_pem.bytes().decode()
        with pytest.raises(ConnectFailed, match="certificate"):
            fetch("GET", url, {}, None, others, None)
        assert len(server.asked) == 1


def test_through_the_https_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R-29: a proxy that only the system's authorities vouch for; loopback by a name that is no address."""
    proxying.trust(monkeypatch, tmp_path)
    with serving() as server, proxying.http_proxy(tls=True) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        named = server.address.replace("127.0.0.1", "127.1")
        assert fetch("GET", f"http://{named}/x", {}, None, None, None) == (200, b"answer")
        proxy.close()
        with pytest.raises(ConnectFailed, match="the proxy https://"):
            fetch("GET", f"http://{named}/x", {}, None, None, None)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "host/x", "https://", "https:///x", "http://host:port/", "", "http://["]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of http or https"):
        fetch("GET", url, {}, None, None, None)


def test_a_header_that_is_none() -> None:
    with pytest.raises(ConfigError, match="the value of Authorization") as caught:
        fetch("GET", "http://host/", {"Authorization": "s3cret\r\nX: y"}, None, None, None)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("given", [None, 0.3])
def test_a_server_that_says_nothing_is_given_up_r9(
    monkeypatch: pytest.MonkeyPatch, given: Optional[float]
) -> None:
    """R-9: within the caller's limit, or else within the one that everybody has."""
    if given is None:
        monkeypatch.setattr(fetch_module, "FETCH_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begin = time.monotonic()
        with pytest.raises(ConnectTimeout):
            fetch("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, None, None, given)
    assert time.monotonic() - begin < seconds(5)
