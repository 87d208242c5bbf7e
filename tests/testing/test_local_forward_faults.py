"""The faults of LocalCluster, on port-forwards."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from podservers import PodServer, echo, flood
from rawclient import SCALE, RawClient, client_context, port_of
from spdyclient import LEGACY, OPENED, TUNNEL, SpdyClient, target
from websockets.frames import Frame, Opcode

from kubews.testing import Faults, LocalCluster

ECHO, FLOOD = 1, 2
SIZE = 1000


@pytest.fixture
def box() -> Iterator[LocalCluster]:
    with PodServer(echo) as echoing, PodServer(flood) as flooding, LocalCluster() as cluster:
        cluster.add_pod("box", listens={ECHO: echoing.port, FLOOD: flooding.port})
        yield cluster


def tunnel_echo(cluster: LocalCluster) -> SpdyClient:
    """Send and get back through a tunnel."""
    with SpdyClient(cluster) as client:
        data = client.connect(ECHO)[1]
        client.write(data, b"x" * SIZE)
        client.see((data, b"x" * SIZE))
        return client


def legacy_echo(cluster: LocalCluster) -> RawClient:
    """Send and get back on a legacy connection."""
    with RawClient(cluster) as client:
        assert client.upgrade(target(ECHO), [LEGACY]).status == 101
        client.send(b"\0" + b"x" * SIZE)
        client.until(b"x" * SIZE, 0)
        assert client.channel(0)[2:] == b"x" * SIZE
        return client


@pytest.mark.parametrize("run", [tunnel_echo, legacy_echo])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(accept_delay=0.2),
        Faults(handshake_delay=0.2),
        Faults(match="portforward", response_delay=0.2),
        Faults(drip=0.001),
        Faults(record_size=1),
        Faults(record_size=7),
        Faults(join=True),
        Faults(frame_size=1),
        Faults(frame_size=100),
        Faults(fragment=1),
        Faults(fragment=100, ping=b"between"),
        Faults(frame_size=3, fragment=2, record_size=5),
    ],
    ids=lambda faults: "-".join(
        key for key, value in vars(faults).items() if value != vars(Faults())[key]
    ),
)
def test_what_is_only_slow_or_cut_up(box: LocalCluster, faults: Faults, run: object) -> None:
    box.faults = faults
    assert callable(run)
    begun = time.monotonic()
    client = run(box)
    taken = time.monotonic() - begun
    messages = client.messages()
    if delay := max(faults.accept_delay, faults.handshake_delay, faults.response_delay):
        assert taken >= delay
    if faults.frame_size:
        room = faults.frame_size + (run is legacy_echo)
        assert max(map(len, messages)) <= max(room, 3 * (run is legacy_echo))
    if faults.fragment:
        assert (
            max(len(each.data) for each in client.frames if each.opcode is not Opcode.PING)
            <= faults.fragment
        )
    pings = [each for each in client.frames if each.opcode is Opcode.PING]
    assert bool(pings) is (faults.ping is not None)


def test_joined_records(box: LocalCluster) -> None:
    """The head of the 101 comes with what follows it; after that nothing is held back."""
    import socket

    def first(faults: Faults) -> bytes:
        box.faults = faults
        with socket.create_connection(("127.0.0.1", port_of(box))) as plain:
            with client_context(box).wrap_socket(plain, server_hostname="127.0.0.1") as sock:
                sock.settimeout(10 * SCALE)
                lines = (
                    f"GET {target(ECHO)} HTTP/1.1",
                    "Host: x",
                    "Connection: Upgrade",
                    "Upgrade: websocket",
                    "Sec-WebSocket-Version: 13",
                    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                )
                sock.sendall("\r\n".join((*lines, "", "")).encode())
                return sock.recv(1 << 16)  # one record at most

    header = Frame(Opcode.BINARY, b"\1\1\0").serialize(mask=False)
    assert first(Faults(join=True)).endswith(header)
    assert not first(Faults()).endswith(header)


@pytest.mark.parametrize("drop", ["reset", "fin", "close_notify"])
@pytest.mark.parametrize("after", [0, 1, 29, 200, 300_000])
def test_drops(box: LocalCluster, drop: str, after: int) -> None:
    box.faults = Faults(drop_after=after, drop=drop)  # type: ignore[arg-type]
    with SpdyClient(box) as client:
        try:
            client.connect(FLOOD)
        except OSError:  # it was quicker
            assert after <= 29  # what the first of two streams is answered is more
        total = client.run_out()
        # OpenSSL may call a reset an unexpected end too.
        assert total.ended in {"reset": ("reset", "fin")}.get(drop, (drop,))
        sent = b"".join(frame.serialize(mask=False) for frame in client.frames)
        assert after - (1 << 16) < len(sent) <= after
    box.wait_idle()


def test_a_drop_in_the_head(box: LocalCluster) -> None:
    box.faults = Faults(drop_head_after=20, drop="fin")
    with RawClient(box) as client, pytest.raises(Exception, match=r"EOF|closed"):
        client.upgrade(target(ECHO), [TUNNEL])


def test_canned_answers_and_bodies(box: LocalCluster) -> None:
    box.next_faults(
        Faults(response=b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"),
        Faults(body="chunked"),
        Faults(body="close"),
    )
    for status, body in ((503, b"no"), (400, b"cannot convert"), (400, b"cannot convert")):
        with RawClient(box) as client:
            answer = client.upgrade(target("x"), [TUNNEL])
            assert answer.status == status
            assert body in answer.body


def test_another_subprotocol(box: LocalCluster) -> None:
    for name in ("", LEGACY):
        box.next_faults(Faults(subprotocol=name))
        with RawClient(box) as client:
            answer = client.upgrade(target(ECHO), [TUNNEL])
            assert answer.headers["sec-websocket-protocol"] == name


def test_what_does_not_belong_there(box: LocalCluster) -> None:
    box.faults = Faults(inject=Frame(Opcode.BINARY, b"\xff garbage").serialize(mask=False))
    with RawClient(box) as client:
        client.upgrade(target(ECHO), [TUNNEL])
        assert client.pump()
        assert client.messages() == [b"\xff garbage"]
    with RawClient(box) as client:
        client.upgrade(target(ECHO), [LEGACY])
        while len(client.messages()) < 3:
            assert client.pump()
        assert client.messages() == [b"\0\1\0", b"\1\1\0", b"\xff garbage"]


@pytest.mark.parametrize("protocol", [TUNNEL, LEGACY])
def test_closing(box: LocalCluster, protocol: str) -> None:
    box.next_faults(
        Faults(close_frame=False),
        Faults(close_code=1011),
        Faults(close_code=0),
        Faults(close_notify=False),
    )
    closes = []
    for _ in range(4):
        with RawClient(box) as client:
            client.upgrade(target(ECHO), [protocol])
            client.send(b"\x03\xe8", Opcode.CLOSE)
            closes.append((client.run_out().close_codes(), client.ended))
    assert closes == [
        ([], "close_notify"),
        ([b"\x03\xf3"], "close_notify"),
        ([b""], "close_notify"),
        ([b"\x03\xe8"], "fin"),
    ]


def test_no_more_is_read(box: LocalCluster) -> None:
    box.faults = Faults(stop_reading_after=1)
    with SpdyClient(box) as client:
        client.ping(1)
        client.see(("ping", 1))
        client.ping(3)
        client.send(b"x", Opcode.PING)
        client.quiet()
    box.wait_idle()
    with RawClient(box) as client:
        client.upgrade(target(ECHO), [LEGACY])
        client.send(b"\0a")
        client.until(b"a", 0)
        client.send(b"\0b")
        client.pump(0.2)
        assert client.channel(0)[2:] == b"a"
    box.wait_idle()


def test_pings_without_answers(box: LocalCluster) -> None:
    box.faults = Faults(pong=False)
    with SpdyClient(box) as client:
        client.ping(1)
        client.send(b"x", Opcode.PING)
        error, data = client.connect(ECHO)
        client.see((OPENED, data))
        assert client.seen == [(OPENED, error), (OPENED, data)]
        assert not [frame for frame in client.frames if frame.opcode is Opcode.PONG]
