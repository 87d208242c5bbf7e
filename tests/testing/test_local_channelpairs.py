"""Port-forward through the legacy protocols of LocalCluster, as seen on real clusters (1.28, 1.31, 1.36)."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from podservers import Deaf, PodServer, count, echo, greet, reset
from rawclient import SCALE, RawClient
from spdyclient import LEGACY, LEGACY64, target
from websockets.frames import Opcode

from kubews.testing import LocalCluster

ECHO, GREET, COUNT, RESET, REFUSED = 1, 2, 3, 5, 9
NORMAL = struct.pack(">H", 1000)


@pytest.fixture(params=["1.28", "1.36"])
def box(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    handlers = {ECHO: echo, GREET: greet, COUNT: count, RESET: reset}
    with ExitStack() as stack:
        servers = {port: stack.enter_context(PodServer(each)) for port, each in handlers.items()}
        cluster = stack.enter_context(LocalCluster(version=request.param))
        listens = {port: server.port for port, server in servers.items()}
        cluster.add_pod("box", listens={**listens, REFUSED: None})
        yield cluster


def headers(*ports: int) -> list[bytes]:
    pairs = [
        (channel, port)
        for index, port in enumerate(ports)
        for channel in (2 * index, 2 * index + 1)
    ]
    return [bytes((channel & 0xFF,)) + struct.pack("<H", port) for channel, port in pairs]


@pytest.mark.parametrize("protocols", [[LEGACY], [], ["v9.channel.k8s.io", LEGACY]])
def test_a_pair_of_channels_for_each_port(box: LocalCluster, protocols: list[str]) -> None:
    with RawClient(box) as client:
        answer = client.upgrade(target("1,3", 1), protocols)
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == (LEGACY if protocols else "")
        for channel in (4, 0):
            client.send(b"%chi %d" % (channel, channel))
            client.until(b"hi %d" % channel, channel)
        assert client.messages()[:6] == headers(1, 3, 1)
        assert [client.channel(each)[2:] for each in range(6)] == [
            b"hi 0",
            b"",
            b"",
            b"",
            b"hi 4",
            b"",
        ]


def test_base64(box: LocalCluster) -> None:
    with RawClient(box) as client:
        answer = client.upgrade(target(*[ECHO] * 41), [LEGACY64])
        assert answer.headers["sec-websocket-protocol"] == LEGACY64
        client.send(b"0" + base64.b64encode(b"hello"), Opcode.TEXT)
        wanted = b"0" + base64.b64encode(b"hello")
        while wanted not in client.messages():
            assert client.pump()
        assert {frame.opcode for frame in client.frames} == {Opcode.TEXT}
        # A channel is a character: the eightieth takes two bytes.
        assert [each.decode()[0] for each in client.messages()[:82]] == [
            chr(48 + n) for n in range(82)
        ]
        assert {each.decode()[1:] for each in client.messages()[:82]} == {"AQA="}


def test_with_more_than_128_ports_the_numbers_begin_again(box: LocalCluster) -> None:
    with RawClient(box) as client:
        assert client.upgrade(target(*[ECHO] * 129), [LEGACY]).status == 101
        while len(client.messages()) < 258:
            assert client.pump()
        assert client.messages() == headers(*[ECHO] * 129)


def test_the_last_port_that_ends_ends_the_connection(box: LocalCluster) -> None:
    with RawClient(box) as client:
        assert client.upgrade(target(GREET, ECHO), [LEGACY]).status == 101
        client.until(b"hello\n", 0)
        client.send(b"\2on")
        client.until(b"on", 2)
        time.sleep(1.2)
        client.send(b"\0nobody")  # its port has ended: dropped
        client.send(b"\2and on")
        client.until(b"and on", 2)
        assert [client.channel(each)[2:] for each in (1, 3)] == [b"", b""]
    with RawClient(box) as client:
        begun = time.monotonic()  # before it can have ended, however late this thread hears of it
        assert client.upgrade(target(GREET), [LEGACY]).status == 101
        client.until(b"hello\n", 0)
        heard = time.monotonic()
        assert client.run_out().close_codes() == [NORMAL]
        assert time.monotonic() - begun >= 0.9
        assert time.monotonic() - heard <= 1.0 + 3 * SCALE


def test_errors_of_one_port_and_of_the_last(box: LocalCluster) -> None:
    with RawClient(box) as client:
        assert client.upgrade(target(REFUSED, ECHO), [LEGACY]).status == 101
        client.until(b"connect: connection refused", 1)
        client.send(b"\2on")
        client.until(b"on", 2)
    with RawClient(box) as client:
        assert client.upgrade(target(RESET), [LEGACY]).status == 101
        client.send(b"\0x")
        assert client.run_out().close_codes() == [NORMAL]
        assert client.channel(1)[2:].startswith(b"error forwarding port 5 to pod ")
        assert client.channel(1).endswith(b"->127.0.0.1:5: read: connection reset by peer")


def test_frames_that_mean_nothing(box: LocalCluster) -> None:
    with RawClient(box) as client:
        assert client.upgrade(target(ECHO), [LEGACY]).status == 101
        for message in (b"\1to the error channel", b"\7to none", b"", b"\0"):
            client.send(message)
        client.send(b"\0as text", Opcode.TEXT)
        client.send(b"\0a", fin=False)
        client.send(b"\0b", Opcode.CONT)  # x/net: a message of its own
        client.send(b"alive", Opcode.PING)
        client.until(b"as textab", 0)
        assert [frame.data for frame in client.frames if frame.opcode is Opcode.PONG] == [b"alive"]
        client.send(struct.pack(">H", 1001), Opcode.CLOSE)
        assert client.run_out().close_codes() == [NORMAL]


def test_a_client_that_leaves_ends_the_pods_input(box: LocalCluster) -> None:
    box.wait_idle()
    with RawClient(box) as client:
        assert client.upgrade(target(COUNT), [LEGACY]).status == 101
        client.send(b"\0abc")
        client.send(NORMAL, Opcode.CLOSE)
        client.run_out()
        assert client.channel(0)[2:] == b""  # there is no half-close: what was counted is lost
    box.wait_idle()


def test_a_port_that_is_not_read_stops_all() -> None:
    deaf = Deaf()
    with PodServer(deaf) as server, PodServer(echo) as echoing, LocalCluster() as cluster:
        cluster.add_pod("box", listens={1: server.port, 2: echoing.port})
        with RawClient(cluster) as client:
            assert client.upgrade(target(1, 2), [LEGACY]).status == 101
            client.send(b"\2before")
            client.until(b"before", 2)
            total = 0
            client.sock.settimeout(0.5 * SCALE)
            with pytest.raises(TimeoutError):
                while total < 1 << 26:
                    client.send(b"\0" + bytes(1 << 18))
                    total += 1 << 18
            assert total < 1 << 25  # what the kernel's buffers hold
            client.pump(0.1)
            assert client.channel(2)[2:] == b"before"
        deaf.listen()
        cluster.wait_idle()
        deaf.wait_for(total - (1 << 18))  # the last message is not all underway
