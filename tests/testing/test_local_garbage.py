"""What is no HTTP, no TLS, no WebSocket or no ASCII, and clients that die in the middle."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from rawclient import SCALE, RawClient, client_context, port_of
from websockets.frames import Opcode

from kubews.testing import LocalCluster

PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /version HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"\x16\x03\x01\x02\x00" + b"\0" * 100, 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"x" * ((1 << 20) - 4), 431),
        (b"GET /" + b"x" * (2 << 20), 431),
        (b"\r\n\r\n\r\nnonsense\r\n\r\n", 400),
    ],
    ids=[
        "no-host", "tls-in-tls", "version", "blank", "length", "encoding", "long", "endless",
        "nonsense",
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused(cluster: LocalCluster, data: bytes, code: int) -> None:
    with RawClient(cluster) as client:
        try:
            client.sock.sendall(data)
            answer = client.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            # Refused long before its end: the reset for the rest can take the answer away.
            assert len(data) > 2 << 20
        else:
            assert answer.startswith(b"HTTP/1.1 %d " % code)
    cluster.wait_idle()


def test_what_is_not_tls(cluster: LocalCluster) -> None:
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff", b""):
        with socket.create_connection(("127.0.0.1", port_of(cluster)), 5 * SCALE) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
    cluster.wait_idle()


def test_garbage_after_the_upgrade(cluster: LocalCluster) -> None:
    for data in (b"\xff" * 100, b"\x8f\x80\0\0\0\0", b"\x82\xff" + b"\x7f" + b"\xff" * 7):
        with RawClient(cluster) as client:
            client.exec("cat", stdin=True)
            client.sock.sendall(data)
            client.run_out()
            assert client.close_codes()[0] in (b"\x03\xea", b"\x03\xe8")
    cluster.wait_idle()


def test_a_certificate_of_another_authority(cluster: LocalCluster) -> None:
    with LocalCluster() as other:
        context = client_context(other)
        context.load_verify_locations(cadata=cluster.ca_pem.decode())
    with socket.create_connection(("127.0.0.1", port_of(cluster)), 5 * SCALE) as plain:
        with pytest.raises(OSError):
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
                sock.recv(1)
    cluster.wait_idle()


@pytest.fixture
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Collect what connection threads raise: it would fail the test of a user."""
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    yield errors
    assert errors == []


@pytest.mark.parametrize("rest", [b"", b"Content-Length: 9\r\n\r\nabc"])
def test_a_client_that_dies_in_a_request(
    cluster: LocalCluster, thread_errors: list[object], rest: bytes
) -> None:
    with RawClient(cluster) as client:
        client.sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n" + rest)
        plain = socket.socket(fileno=client.sock.detach())
    plain.close()  # without close_notify
    cluster.wait_idle()


@pytest.mark.parametrize("frame", [(b"x", Opcode.PING), (b"\x03\xe8", Opcode.CLOSE)])
def test_a_client_that_dies_in_a_stream(
    cluster: LocalCluster, thread_errors: list[object], frame: tuple[bytes, Opcode]
) -> None:
    with RawClient(cluster) as client:
        client.exec("sh", "-c", "echo on; read x; sleep 0.5; echo $x > fate", stdin=True)
        client.until(b"on\n")
        client.send(*frame)
        plain = socket.socket(fileno=client.sock.detach())
    plain.close()
    cluster.wait_idle()
    end = time.monotonic() + 10 * SCALE
    while cluster.execs and time.monotonic() < end:
        time.sleep(0.01)
    with RawClient(cluster) as client:  # the process has lived on to its end
        client.exec("cat", "fate")
        assert client.run_out().channel(1) == b"\n"


def test_what_is_not_ascii(cluster: LocalCluster, thread_errors: list[object]) -> None:
    token = cluster.add_user("eve", verbs={"get", "create"})
    head = (
        b"GET " + PODS.encode() + b"/box/exec?container=main&command=true&stdout=1 HTTP/1.1\r\n"
        b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    )
    bearer = b"Authorization: Bearer " + token.encode() + b"\r\n"
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    protocol = b"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.\xe9, v5\r\n"
    for headers, code in [
        (bearer + b"Sec-WebSocket-Key: \xe9\xe9==\r\n", b"400"),
        (key + protocol, b"401"),
        (key + b"Authorization: Bearer \xe9\r\n", b"401"),
        (key + bearer + b"Impersonate-User: \xe9\r\n", b"403"),
    ]:
        with RawClient(cluster, cert=False) as client:
            client.sock.sendall(head + headers + b"\r\n")
            assert client.sock.recv(65536).split()[1] == code
