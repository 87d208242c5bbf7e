"""R-37: one dialer, one set of TLS settings: a server cannot tell a request's connection from a stream's."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

import pytest
import trustme
from proxying import KINDS, RealProxy
from support import in_thread, seconds

from kubews import Client, Config, ConfigError, Forbidden
from kubews.config.cluster import Cluster, User

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you"


class Server:
    """An API server that refuses, and remembers who came how.

    Args:
        authority: has signed its certificate, and must have signed the client's.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.names: list[str | None] = []
        self.seen: list[tuple[Any, ...]] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("kubernetes.default").configure_cert(self._context)
        authority.configure_trust(self._context)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.sni_callback = lambda sock, name, context: self.names.append(name)

    def serve(self, listener: socket.socket) -> None:
        listener.settimeout(seconds(10))
        plain = listener.accept()[0]
        plain.settimeout(seconds(10))
        with self._context.wrap_socket(plain, server_side=True) as sock:
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            lines = head.decode().split("\r\n")
            kept = sorted(line for line in lines if line.startswith(("Auth", "Host", "User-")))
            certificate = sock.getpeercert() or {}
            self.seen.append((sock.version(), certificate["serialNumber"], kept))
            sock.sendall(REFUSAL)
            with contextlib.suppress(OSError):
                sock.recv(1)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_requests_and_streams_are_alike_r37(
    request: pytest.FixtureRequest, kind: str | None
) -> None:
    proxy: RealProxy | None = request.getfixturevalue(f"{kind}_proxy") if kind else None
    authority = trustme.CA()
    leaf = authority.issue_cert("client@example.com")
    server = Server(authority)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cluster = Cluster(
            f"https://127.0.0.1:{listener.getsockname()[1]}",
            certificate_authority_data=authority.cert_pem.bytes(),
            tls_server_name="kubernetes.default",
            proxy_url=proxy.url() if proxy else None,
        )
        user = User(
            token="t0ken",
            client_certificate_data=leaf.cert_chain_pems[0].bytes(),
            client_key_data=leaf.private_key_pem.bytes(),
        )
        with Client(Config(cluster, user)) as client:
            serving = in_thread(server.serve, listener)
            with pytest.raises(Forbidden):
                client.get("/version")
            serving.result()
            serving = in_thread(server.serve, listener)
            with pytest.raises(Forbidden):
                client.pod("web-0").run(["true"])
            serving.result()
    assert server.names == ["kubernetes.default"] * 2
    one, other = server.seen
    assert one == other
    assert "Authorization: Bearer t0ken" in one[2]


def test_an_argument_goes_before_the_kubeconfig_r29() -> None:
    config = Config(Cluster("https://server.example", proxy_url="http://one.example", name="c"))
    assert Client(config, proxy_url="http://two").config.cluster.proxy_url == "http://two"
    assert Client(config, proxy_url="").config.cluster.proxy_url == ""
    assert Client(config).config == config


def test_a_proxy_that_is_none_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(Cluster("https://server.example", name="c"))
    with pytest.raises(ConfigError, match="invalid 'proxy-url' for cluster \"c\""):
        Client(config, proxy_url="ftp://proxy.example")
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    with pytest.raises(ConfigError, match="environment variable HTTPS_PROXY is no URL of a proxy"):
        Client(config)
