"""What proxies answer instead of a connection, and what is made of it: one line, and no credentials."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import proxying
import pytest
from faults import Relay, reset
from proxying import PASSWORD, USER, RealProxy
from support import answer, seconds, unused_port

from kubews import errors
from kubews.config import proxies
from kubews.transport.deadline import Deadline
from kubews.transport.dial import dial
from kubews.transport.tls import tls_context

SECRETS = (USER, PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
QUOTED = "http://pro%20xy%40user:pass%3Aw%25rd%2F%23%3F@"

Talk = Callable[[Any], None]


def via(url: str, target: tuple[str, int] = ("server.example", 6443), timeout: float = 10) -> Any:
    """Dial through a proxy, without TLS to the server."""
    proxy = proxies.of_cluster(url, "c")
    context = tls_context() if proxy.scheme == "https" else None
    return dial(
        *target,
        context=None,
        proxy=proxy,
        proxy_context=context,
        deadline=Deadline(seconds(timeout)),
    )


def refused(url: str, *target: tuple[str, int], timeout: float = 10) -> errors.ConnectFailed:
    """Return the error; it is one line, and what led to it shows no credentials either."""
    with pytest.raises(errors.ConnectFailed) as caught:
        via(url, *target, timeout=timeout)
    shown: BaseException | None = caught.value
    assert "\n" not in str(shown)
    while shown is not None:
        assert not any(secret in f"{shown} {shown!r}" for secret in SECRETS)
        shown = shown.__cause__ or shown.__context__
    return caught.value


@pytest.fixture
def nobody() -> tuple[str, int]:
    """An address where nobody listens."""
    return "127.0.0.1", unused_port()


# -- real proxies


def test_a_name_that_socks_cannot_carry(socks5_proxy: RealProxy) -> None:
    """SOCKS has one byte for the length of a name (RFC 1928, 5)."""
    error = refused(socks5_proxy.url(), ("x" * 300 + ".example", 6443))
    assert "cannot be asked for xxx" in str(error)


def test_without_credentials_r29(http_proxy: RealProxy, https_proxy: RealProxy) -> None:
    for proxy in (http_proxy, https_proxy):
        error = refused(f"{proxy.scheme}://127.0.0.1:{proxy.port}")
        assert "HTTP 407" in str(error)
        assert "wants a user name and a password: put them into its URL" in str(error)


@pytest.mark.parametrize("kind", ["http", "https"])
def test_with_wrong_credentials_r29(request: pytest.FixtureRequest, kind: str) -> None:
    proxy = request.getfixturevalue(f"{kind}_proxy")
    error = refused(f"{kind}://{QUOTED[7:-1]}x@127.0.0.1:{proxy.port}")
    assert "HTTP 407" in str(error)
    assert "does not accept the user name and the password" in str(error)


@pytest.mark.parametrize("userinfo", ["", "someone:else@", f"{QUOTED[7:-1]}x@"])
def test_wrong_credentials_of_socks(socks5_proxy: RealProxy, userinfo: str) -> None:
    error = refused(f"socks5://{userinfo}127.0.0.1:{socks5_proxy.port}")
    assert "does not connect to server.example:6443" in str(error)
    assert "authentication" in str(error)


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_a_server_that_the_proxy_does_not_reach(
    request: pytest.FixtureRequest, kind: str, nobody: tuple[str, int]
) -> None:
    proxy = request.getfixturevalue(f"{kind}_proxy")
    error = refused(proxy.url(), nobody)
    assert f"does not connect to 127.0.0.1:{nobody[1]}" in str(error)
    assert "refused" in str(error).lower() or "HTTP 502" in str(error)


@pytest.mark.parametrize(
    ("start", "target"),
    # proxy.py itself takes no address in brackets; what it is asked is looked at below.
    [(proxying.http_proxy, "127.0.0.1"), (proxying.tiny_proxy, "::1")],
    ids=["http", "socks5"],
)
def test_ipv6_of_proxies_and_servers_r29(start: Any, target: str) -> None:
    with start(host="::1", credentials=False) as proxy, echoing(target) as address:
        assert proxy.url() == f"{proxy.scheme}://[::1]:{proxy.port}"
        with contextlib.closing(via(proxy.url(), address[:2])) as sock:
            assert answer(sock, b"hello") == b"hello"


@contextlib.contextmanager
def echoing(host: str) -> Iterator[Any]:
    with serving(lambda sock: sock.sendall(sock.recv(100)), host) as address:
        yield address


@contextlib.contextmanager
def serving(talk: Talk, host: str = "127.0.0.1") -> Iterator[Any]:
    """Give the address of a server that serves one connection."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as sock:
                sock.settimeout(seconds(10))
                talk(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # if nobody has come
            thread.join(seconds(20))
        assert not thread.is_alive()


# -- what they may say


def answering(*pieces: bytes, hold: bool = False) -> Talk:
    def talk(sock: Any) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        for piece in pieces:
            sock.sendall(piece)
        while hold and sock.recv(1000):
            pass

    return talk


def answered(*pieces: bytes, hold: bool = False, timeout: float = 10) -> str:
    with serving(answering(*pieces, hold=hold)) as address:
        return str(refused(f"{QUOTED}127.0.0.1:{address[1]}", timeout=timeout))


def test_what_a_proxy_is_asked() -> None:
    """RFC 9110, 9.3.6 and 11.7.1: the authority as target, credentials percent-decoded."""
    heads = []

    def talk(sock: Any) -> None:
        heads.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n")
        sock.sendall(sock.recv(5))

    with serving(talk) as address:
        with via(f"{QUOTED}127.0.0.1:{address[1]}", ("fe80::1%eth0", 6443)) as sock:
            assert answer(sock, b"hello") == b"hello"
    lines = heads[0].decode().split("\r\n")
    assert lines[:2] == ["CONNECT [fe80::1]:6443 HTTP/1.1", "Host: [fe80::1]:6443"]
    assert f"Proxy-Authorization: Basic {SECRETS[2]}" in lines
    assert lines[-2:] == ["", ""]


@pytest.mark.parametrize("framing", ["length", "chunked", "until the end"])
def test_the_text_of_a_refusal_is_told_r29(framing: str) -> None:
    page = (
        b"<html><head><title>no</title></head><body><h1>Denied &amp; logged</h1>\n<p>by  squid</p>"
    )
    heads = {
        "length": b"Content-Length: %d\r\n\r\n" % len(page),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(page),
        "until the end": b"\r\n",
    }
    ends = {"chunked": b"\r\n0\r\n\r\n"}
    said = answered(b"HTTP/1.1 403 Forbidden\r\n" + heads[framing], page, ends.get(framing, b""))
    assert said.endswith(
        "does not connect to server.example:6443: HTTP 403 Forbidden: Denied & logged by squid"
    )
    assert '(proxy-url of cluster "c")' in said


def test_a_proxy_that_sends_the_request_back() -> None:
    said = answered(
        b"HTTP/1.1 400 Bad\r\n\r\nProxy-Authorization: Basic ",
        SECRETS[2].encode(),
        b" ",
        PASSWORD.encode(),
    )
    assert said.endswith("HTTP 400 Bad: Proxy-Authorization: Basic [hidden] [hidden]")
    assert said.isprintable()
    said = answered(b"HTTP/1.1 407 ", PASSWORD.encode(), b"\x1b[31m\r\n\r\n")
    assert "HTTP 407 [hidden] [31m. It does not accept" in said
    assert answered(b"HTTP/1.1 403 No\r\n\r\n", b"y" * 280 + PASSWORD.encode()).endswith("y[hidden")


def test_a_body_without_end_is_cut() -> None:
    begin = time.monotonic()
    said = answered(b"HTTP/1.1 503 No\r\n\r\n", b"x" * 100_000, hold=True)
    assert said.endswith("x" * 200)
    assert len(said) < 500
    said = answered(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n", b"short", hold=True)
    assert said.endswith("HTTP 503 No: short")
    assert time.monotonic() - begin < seconds(10)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "no answer of one"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "no answer of one"),
        ([b""], "no answer of one"),
        ([b"HTTP/1.1 200 OK\r\nX: "], "no answer of one"),
        ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000], "no answer of one"),
        ([b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101"], "says more than a proxy does"),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n"], "HTTP 302 Found"),
    ],
)
def test_what_is_no_proxy(pieces: list[bytes], said: str) -> None:
    assert said in answered(*pieces)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_resets(scheme: str) -> None:
    with serving(lambda sock: (sock.recv(1000), reset(sock))) as address:
        error = refused(f"{scheme}://{QUOTED[7:]}127.0.0.1:{address[1]}")
    assert "broke off" in str(error)


# -- SOCKS


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b"\x05\xff"], "No acceptable authentication methods"),
        ([b"\x05\x02", b"\x01\x01"], "authentication failure"),
        ([b"\x04\x00"], "SOCKS version"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "SOCKS version"),
        ([b"\x05"], "closed"),
        ([b"\x05\x00", b"\x05\x02\x00\x01\0\0\0\0\0\0"], "not allowed by ruleset"),
        ([b"\x05\x00", b"\x05\x00\x00\x01\0\0\0\0\0\0and more"], "says more than a proxy does"),
    ],
)
def test_what_is_no_socks_proxy(answers: list[bytes], said: str) -> None:
    def talk(sock: Any) -> None:
        for reply in answers:
            sock.recv(1000)
            sock.sendall(reply)

    with serving(talk) as address:
        assert said in str(refused(f"socks5://{QUOTED[7:]}127.0.0.1:{address[1]}"))


def test_socks_leaves_the_name_to_the_proxy() -> None:
    """As Go: ``socks5`` looks nothing up on this side (RFC 1928, address type 3)."""
    asked = []

    def talk(sock: Any) -> None:
        sock.recv(100)
        sock.sendall(b"\x05\x00")
        asked.append(sock.recv(100))
        sock.sendall(b"\x05\x00\x00\x01\0\0\0\0\0\0")

    with serving(talk) as address:
        via(f"socks5://127.0.0.1:{address[1]}").close()
    name = b"server.example"
    assert asked == [b"\x05\x01\x00\x03" + bytes((len(name),)) + name + struct.pack("!H", 6443)]


def test_without_the_package_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with serving(lambda sock: sock.recv(1)) as address:
        with pytest.raises(errors.ConfigError, match=r'pip install "kubews\[socks\]"'):
            via(f"socks5://127.0.0.1:{address[1]}")


@pytest.mark.parametrize("userinfo", ["%C3%BCser:pass@", "user:@", f"user:{'x' * 256}@"])
def test_credentials_that_socks_cannot_carry(userinfo: str) -> None:
    with serving(lambda sock: sock.recv(1)) as address:
        with pytest.raises(errors.ConfigError, match="1 to 255 ASCII characters") as caught:
            via(f"socks5://{userinfo}127.0.0.1:{address[1]}")
    assert caught.value.__context__ is None
    assert "xxx" not in str(caught.value)


# -- time


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_proxy_that_says_nothing_is_waited_for_within_the_limit_r9(scheme: str) -> None:
    """R-9: one limit holds for the whole dial."""
    with serving(lambda sock: [None for _ in iter(lambda: sock.recv(1000), b"")]) as address:
        begin = time.monotonic()
        error = refused(f"{scheme}://127.0.0.1:{address[1]}", timeout=0.3)
        assert isinstance(error, errors.ConnectTimeout)
        assert f"the proxy {scheme}://127.0.0.1:{address[1]}" in str(error)
        assert time.monotonic() - begin < seconds(0.3 + 4)


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
def test_a_proxy_whose_answer_drips_r9(request: pytest.FixtureRequest, kind: str) -> None:
    proxy = request.getfixturevalue(f"{kind}_proxy")
    with Relay(proxy.address, piece=1, pause=0.2) as relay:
        begin = time.monotonic()
        error = refused(proxy.url(relay.address[1]), timeout=0.5)
        assert isinstance(error, errors.ConnectTimeout)
        assert time.monotonic() - begin < seconds(0.5 + 4)


# -- TLS to the proxy


def through_https(proxy: RealProxy, name: str, context: ssl.SSLContext) -> errors.ConnectFailed:
    chosen = proxies.of_cluster(f"https://{name}:{proxy.port}", "c")
    with pytest.raises(errors.ConnectFailed) as caught:
        dial(
            "server.example",
            1,
            context=None,
            proxy=chosen,
            proxy_context=context,
            deadline=Deadline(seconds(10)),
        )
    return caught.value


def test_an_https_proxy_whom_nobody_knows(https_proxy: RealProxy) -> None:
    import trustme

    stranger = tls_context(ca_pem=trustme.CA().cert_pem.bytes().decode())
    said = str(through_https(https_proxy, "127.0.0.1", stranger))
    assert f"the certificate of the proxy https://127.0.0.1:{https_proxy.port}" in said
    assert "must be known to the system, or stand in certificate-authority" in said


def test_an_https_proxy_of_another_name(https_proxy: RealProxy) -> None:
    said = str(through_https(https_proxy, "127.1", tls_context()))
    assert "cannot be trusted as 127.1: Hostname mismatch" in said
    assert said.endswith("Use a name that it has in the proxy's URL.")


def test_an_http_proxy_that_is_taken_for_an_https_one() -> None:
    def talk(sock: Any) -> None:
        sock.recv(65536)  # all of the hello, or closing would reset the connection
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(talk) as address:
        said = str(refused(f"https://127.0.0.1:{address[1]}"))
    assert "is its URL rather http://?" in said


def test_the_authority_of_the_cluster_may_vouch_for_the_proxy_too(https_proxy: RealProxy) -> None:
    """As client-go has it; and the system's authorities remain."""
    import trustme

    pem = trustme.CA().cert_pem.bytes().decode()
    for context in (
        tls_context(ca_pem=pem, and_system=True),
        tls_context(ca_pem=proxying.authority().cert_pem.bytes().decode()),
    ):
        assert "HTTP 407" in str(through_https(https_proxy, "127.0.0.1", context))
