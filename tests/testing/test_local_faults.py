"""Every fault, seen by a client that is not ours."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest
from rawclient import (
    SCALE,
    STATUS,
    STDERR,
    SUCCESS,
    V4,
    RawClient,
    client_context,
    exec_target,
    port_of,
)
from support import eventually
from websockets.frames import Opcode

from kubews.testing import FOREVER, Faults, LocalCluster

ECHO = ("sh", "-c", "echo out; echo err >&2")


def run(cluster: LocalCluster, *command: str, **options: object) -> RawClient:
    with RawClient(cluster) as client:
        assert client.exec(*(command or ECHO), **options).status == 101  # type: ignore[arg-type]
        return client.run_out()


def test_no_fault_is_the_default(cluster: LocalCluster) -> None:
    client = run(cluster)
    assert client.messages()[0] == b"\x01"
    assert (client.channel(1), client.channel(STDERR)) == (b"out\n", b"err\n")
    assert client.channel(STATUS) == SUCCESS
    assert client.close_codes() == [b"\x03\xe8"]
    assert client.ended == "close_notify"


def test_next_faults_apply_once_each_and_in_order(cluster: LocalCluster) -> None:
    cluster.faults = Faults(no_status=True)
    cluster.next_faults(Faults(close_frame=False), Faults(status=b"{"))
    first, second, third = run(cluster), run(cluster), run(cluster)
    assert (first.channel(STATUS), first.close_codes()) == (SUCCESS, [])
    assert second.channel(STATUS) == b"{"
    assert third.channel(STATUS) == b""
    assert cluster.faults == Faults(no_status=True)


def test_faults_may_match_a_target(cluster: LocalCluster) -> None:
    cluster.faults = Faults(match="/exec?", response=b"HTTP/1.1 500 No\r\n\r\nsorry")
    with RawClient(cluster) as client:
        assert client.request("/version").status == 200
        answer = client.exec("true")
        assert (answer.status, answer.body) == (500, b"sorry")


def test_faults_with_a_match_wait_for_their_request(cluster: LocalCluster) -> None:
    cluster.next_faults(
        Faults(match="/exec?", no_status=True),
        Faults(match="container=echo", status=b"{"),
        Faults(match="/exec?", status=b"["),
    )
    with RawClient(cluster) as client:
        for _ in range(3):
            assert client.request("/version").status == 200
    echo = run(cluster, container="echo")  # of those that match, the first in the queue
    assert echo.channel(STATUS) == b""
    assert run(cluster).channel(STATUS) == b"["
    assert run(cluster).channel(STATUS) == SUCCESS
    assert run(cluster, container="echo").channel(STATUS) == b"{"
    with RawClient(cluster) as client:  # also when it is not the connection's first request
        cluster.next_faults(Faults(match="/exec?", no_status=True))
        assert client.request("/version").status == 200
        assert client.exec("true").status == 101
        assert client.run_out().channel(STATUS) == b""


def test_faults_without_a_match_are_those_of_the_next_connection(cluster: LocalCluster) -> None:
    cluster.next_faults(
        Faults(match="/exec?", no_status=True), Faults(response_delay=0.2), Faults(body="chunked")
    )
    start = time.monotonic()
    assert run(cluster).channel(STATUS) == SUCCESS  # it has got its own: the second
    assert time.monotonic() - start >= 0.2
    with RawClient(cluster) as client:
        assert "transfer-encoding" in client.request("/version").headers
    assert run(cluster).channel(STATUS) == b""
    assert run(cluster).channel(STATUS) == SUCCESS


def test_a_match_covers_the_end_of_the_connection(cluster: LocalCluster) -> None:
    cluster.faults = Faults(match="/exec?", close_notify=False, record_size=1)
    with RawClient(cluster) as client:
        client.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(client.sock.recv(1000)) > 1
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while client.sock.recv(1000):  # an end without notice would be an SSLEOFError
                pass
    assert run(cluster).ended == "fin"


@pytest.mark.parametrize("name", ["accept_delay", "handshake_delay", "response_delay"])
def test_delays(cluster: LocalCluster, name: str) -> None:
    start = time.monotonic()
    cluster.faults = Faults(**{name: 0.3})
    assert run(cluster).channel(STATUS) == SUCCESS
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("name", ["accept_delay", "handshake_delay", "response_delay"])
def test_silence_ends_with_the_client(cluster: LocalCluster, name: str) -> None:
    cluster.faults = Faults(**{name: FOREVER})
    plain = socket.create_connection(("127.0.0.1", port_of(cluster)))
    with plain:
        plain.settimeout(0.3 * SCALE)
        with pytest.raises(TimeoutError):
            ask_version(client_context(cluster), plain)
    cluster.wait_idle()


def ask_version(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(1)


def test_silence_ends_with_the_cluster() -> None:
    with LocalCluster() as cluster:
        cluster.faults = Faults(accept_delay=FOREVER)
        sock = socket.create_connection(("127.0.0.1", port_of(cluster)))
        assert eventually(lambda: cluster.connections)
    with sock:
        sock.settimeout(5 * SCALE)
        assert sock.recv(1) == b""


def test_canned_response(cluster: LocalCluster) -> None:
    body = b"5\r\nhello\r\n0\r\n\r\n"
    cluster.next_faults(
        Faults(response=b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n" + body),
        Faults(response=b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
        Faults(response=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
    )
    answers = []
    for _ in range(3):
        with RawClient(cluster) as client:
            answers.append(client.exec("true"))
    assert [answer.status for answer in answers] == [403, 302, 401]
    assert answers[0].body == b"hello"
    assert run(cluster).channel(STATUS) == SUCCESS


def test_a_dripping_head(cluster: LocalCluster) -> None:
    cluster.faults = Faults(drip=0.01)
    with RawClient(cluster) as client:
        start = time.monotonic()
        assert client.exec("true").status == 101
        assert time.monotonic() - start > 1.0  # more than a hundred bytes
        assert client.run_out().channel(STATUS) == SUCCESS


@pytest.mark.parametrize("body", ["length", "chunked", "close"])
def test_bodies_of_refusals(cluster: LocalCluster, body: str) -> None:
    cluster.faults = Faults(body=body)  # type: ignore[arg-type]
    with RawClient(cluster) as client:
        answer = client.exec("true", pod="nope")
    assert answer.status == 404
    assert b'"message":"pods \\"nope\\" not found"' in answer.body
    assert ("content-length" in answer.headers) == (body == "length")
    assert (answer.headers.get("transfer-encoding") == "chunked") == (body == "chunked")


@pytest.mark.parametrize("how", ["reset", "fin", "close_notify"])
@pytest.mark.parametrize("count", [0, 1, 5, 40_000])
def test_drop_after(cluster: LocalCluster, how: str, count: int) -> None:
    cluster.faults = Faults(drop_after=count, drop=how)  # type: ignore[arg-type]
    with RawClient(cluster) as client:
        assert client.exec("head", "-c", "200000", "/dev/zero").status == 101
        received = len(client.http.trailing_data[0])
        while True:
            client.sock.settimeout(5 * SCALE)
            try:
                data = client.sock.recv(65536)
            except OSError as exc:
                ended = type(exc).__name__
                break
            received += len(data)
            if not data:
                ended = "close_notify"
                break
    assert received == count
    # OpenSSL may call a reset an unexpected end too.
    expected = {"reset": ("ConnectionResetError", "SSLEOFError"), "fin": ("SSLEOFError",)}
    assert ended in expected.get(how, ("close_notify",))


@pytest.mark.parametrize("how", ["fin", "close_notify"])
def test_a_fin_is_no_reset_though_the_client_still_writes(
    cluster: LocalCluster, how: str, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    cluster.faults = Faults(drop_after=40_000, drop=how)  # type: ignore[arg-type]
    with RawClient(cluster) as client:
        flood = f"until [ -e {full} ]; do sleep 0.05; done; head -c 200000 /dev/zero"
        assert client.exec("sh", "-c", flood, stdin=True).status == 101
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(64):
                client.send(bytes(1 << 22))  # which nobody in the pod reads
        full.touch()
        plain = socket.socket(fileno=client.sock.detach())
    with plain:  # OpenSSL may call a reset an unexpected end
        plain.settimeout(5 * SCALE)
        while plain.recv(1 << 16):
            pass


def test_a_reset_is_a_reset(cluster: LocalCluster) -> None:
    cluster.faults = Faults(drop_after=10)
    with RawClient(cluster) as client:
        client.exec("head", "-c", "1000", "/dev/zero")
        plain = socket.socket(fileno=client.sock.detach())
    with plain, pytest.raises(ConnectionResetError):
        plain.settimeout(5 * SCALE)
        while plain.recv(1000):
            pass


def test_drop_head_after(cluster: LocalCluster) -> None:
    cluster.faults = Faults(drop_head_after=20, drop="fin")
    with RawClient(cluster) as client:
        client.sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(100) == b"HTTP/1.1 200 OK\r\nCac"
        with pytest.raises(OSError):
            client.sock.recv(100)


def records(client: RawClient) -> list[int]:
    """Return the sizes in which plain text comes: one read gives one TLS record at most."""
    sizes = []
    while True:
        client.sock.settimeout(client.timeout)
        data = client.sock.recv(1 << 16)
        if not data:
            return sizes
        sizes.append(len(data))
        client._feed(data)


def test_records_can_be_split(cluster: LocalCluster) -> None:
    cluster.faults = Faults(record_size=2)
    with RawClient(cluster) as client:
        assert client.exec(*ECHO).status == 101
        assert max(records(client)) <= 2
        assert client.channel(1) == b"out\n"
        assert client.channel(STATUS) == SUCCESS


def test_records_can_be_joined(cluster: LocalCluster) -> None:
    cluster.faults = Faults(join=True)
    with RawClient(cluster) as client:
        assert client.exec(*ECHO).status == 101
        # The head of the 101, the output, the Status and Close came in one read.
        assert client.channel(STATUS) == SUCCESS
        assert client.close_codes() == [b"\x03\xe8"]
        assert records(client) == []


@pytest.mark.parametrize("count", [0, 1, 50, 30_000])
def test_what_is_joined_is_sent_before_a_drop(cluster: LocalCluster, count: int) -> None:
    cluster.faults = Faults(join=True, drop_after=count, drop="close_notify")
    with RawClient(cluster) as client:
        assert client.exec("head", "-c", "200000", "/dev/zero").status == 101
        received = len(client.http.trailing_data[0])
        assert received + sum(records(client)) == count


def test_joined_bulk_output_is_whole(cluster: LocalCluster) -> None:
    cluster.faults = Faults(join=True)
    client = run(cluster, "head", "-c", "1000000", "/dev/zero")
    assert client.channel(1) == bytes(1_000_000)


def test_fragments_with_pings_between(cluster: LocalCluster) -> None:
    cluster.faults = Faults(fragment=3, ping=b"?")
    client = run(cluster)
    opcodes = [frame.opcode for frame in client.frames]
    assert Opcode.CONT in opcodes
    assert opcodes[: opcodes.index(Opcode.CONT)][-2:] == [Opcode.BINARY, Opcode.PING]
    assert max(len(frame.data) for frame in client.frames) <= 3
    assert (client.channel(1), client.channel(2)) == (b"out\n", b"err\n")
    assert client.channel(STATUS) == SUCCESS


def test_frames_of_a_given_size(cluster: LocalCluster) -> None:
    cluster.faults = Faults(frame_size=150_000)
    client = run(cluster, "head", "-c", "400000", "/dev/zero", protocols=[V4])
    assert [len(data) for data in client.messages()[1:4]] == [150_001, 150_001, 100_001]
    assert client.channel(STATUS) == SUCCESS


def test_injected_bytes(cluster: LocalCluster) -> None:
    cluster.faults = Faults(inject=b"\x82\x03\x07hi\x81\x02\x01x")
    client = run(cluster)
    assert client.messages()[:3] == [b"\x01", b"\x07hi", b"\x01x"]


def test_another_subprotocol(cluster: LocalCluster) -> None:
    cluster.faults = Faults(subprotocol="v9.channel.k8s.io")
    with RawClient(cluster) as client:
        answer = client.exec("true")
    assert answer.headers["sec-websocket-protocol"] == "v9.channel.k8s.io"


def test_status_faults(cluster: LocalCluster) -> None:
    cluster.next_faults(
        Faults(status=b"not json"),
        Faults(status=b""),
        Faults(no_status=True),
        Faults(status_pieces=5),
        Faults(early_status=True),
    )
    replaced, empty, missing, pieces, early = [run(cluster) for _ in range(5)]
    assert replaced.channel(STATUS) == b"not json"
    assert empty.messages()[-1] == b"\x03"
    assert not any(message[0] == STATUS for message in missing.messages())
    assert pieces.channel(STATUS) == SUCCESS
    assert len([m for m in pieces.messages() if m[0] == STATUS]) == 7
    assert early.messages()[1] == b"\x03" + SUCCESS
    assert early.channel(1) == b"out\n"


def test_an_early_status_is_a_success_whatever_comes(cluster: LocalCluster) -> None:
    cluster.faults = Faults(early_status=True)
    client = run(cluster, "sh", "-c", "echo out; exit 3")
    assert (client.channel(STATUS), client.channel(1)) == (SUCCESS, b"out\n")


@pytest.mark.parametrize("tty", [False, True])
def test_an_early_status_is_the_real_one_where_there_is_no_output(
    cluster: LocalCluster, tty: bool
) -> None:
    cluster.faults = Faults(early_status=True)
    client = run(cluster, "/nope", tty=tty)
    assert b"stat /nope: no such file or directory" in client.channel(STATUS)


def test_closing_faults(cluster: LocalCluster) -> None:
    cluster.next_faults(
        Faults(close_frame=False), Faults(close_code=1011), Faults(close_code=0),
        Faults(close_notify=False),
    )  # fmt: skip
    none, internal, empty, rude = [run(cluster) for _ in range(4)]
    assert none.close_codes() == []
    assert internal.close_codes() == [b"\x03\xf3"]
    assert empty.close_codes() == [b""]
    assert (rude.close_codes(), rude.ended) == ([b"\x03\xe8"], "fin")


def test_no_pong(cluster: LocalCluster) -> None:
    cluster.faults = Faults(pong=False)
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(b"abc", Opcode.PING)
        client.send(b"\0hello")
        client.until(b"hello")
        client.send(b"\xff\0")
        client.run_out()
    assert Opcode.PONG not in [frame.opcode for frame in client.frames]


def test_stop_reading(cluster: LocalCluster) -> None:
    cluster.faults = Faults(stop_reading_after=6)
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(b"\0hello\n")
        client.until(b"hello\n")
        client.sock.settimeout(0.5 * SCALE)
        with pytest.raises(TimeoutError):
            client.send(b"\0" + bytes(30 << 20))
        # A FIN would wait behind what the kernel could not send; a reset does not.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cluster.wait_idle()
    end = time.monotonic() + 5 * SCALE
    while cluster.execs and time.monotonic() < end:
        time.sleep(0.01)
    assert cluster.execs == []  # its input has ended with the connection


def test_drop_while_input_comes(cluster: LocalCluster) -> None:
    cluster.faults = Faults(drop_after_stdin=6)
    with RawClient(cluster) as client:
        client.exec("cat", stdin=True)
        client.send(b"\0hello")
        client.until(b"hello")
        client.send(b"\0!")
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            while client.sock.recv(100):
                pass
    cluster.wait_idle()


def test_stop_reading_at_once(cluster: LocalCluster) -> None:
    cluster.faults = Faults(stop_reading_after=0)
    with RawClient(cluster) as client:
        client.exec("sh", "-c", "echo on; sleep 0.3; echo off", stdin=True)
        client.send(b"\0x")
        client.send(b"p", Opcode.PING)
        client.run_out()
    assert client.channel(1) == b"on\noff\n"
    assert Opcode.PONG not in [frame.opcode for frame in client.frames]


def test_the_target_helper_quotes() -> None:
    assert exec_target([("command", "a b&c")], "p") == (
        "/api/v1/namespaces/default/pods/p/exec?command=a+b%26c"
    )
