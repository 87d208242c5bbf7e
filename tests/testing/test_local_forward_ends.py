"""The pod of a port-forward, or what serves it, ends: what LocalCluster's client sees, and the pod's server.

As seen on real clusters (1.31 and 1.36, containerd 1.6.20).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from podservers import PodServer, echo
from rawclient import SCALE, RawClient
from spdyclient import FIN, LEGACY, SpdyClient, still_held, target

from kubews.testing import LocalCluster, forward

ECHO = 1


@pytest.fixture
def listens() -> Iterator[dict[int, int | None]]:
    with PodServer(echo) as server:
        yield {ECHO: server.port}


@pytest.fixture
def box(listens: dict[int, int | None]) -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        cluster.add_pod("box", listens=listens)
        yield cluster


def test_a_deleted_pod(box: LocalCluster, listens: dict[int, int | None]) -> None:
    """Its connections end; the tunnel stays, answers pings, and reaches neither it nor its successor."""
    with SpdyClient(box) as client:
        error, data = client.connect(ECHO)
        client.write(data, b"x")
        client.see((data, b"x"))
        box.delete_pod("box")
        client.see((FIN, data), (FIN, error))
        assert client.told(error) == b""
        box.add_pod("box", listens=listens)
        client.ping(1)
        client.see(("ping", 1))
        error, data = client.connect(ECHO)
        client.see((FIN, data))
        text = 'network namespace for sandbox "SANDBOX" is closed'
        assert client.text(error) == f"error forwarding port 1 to pod SANDBOX, uid : {text}"
        assert client.seen[-2:] == [(FIN, error), (FIN, data)]
        with SpdyClient(box) as new:
            data = new.connect(ECHO)[1]
            new.write(data, b"new")
            new.see((data, b"new"))


@pytest.mark.parametrize("streams", [0, 1])
def test_a_runtime_that_dies(box: LocalCluster, streams: int) -> None:
    with SpdyClient(box) as client:
        if streams:
            data = client.connect(ECHO)[1]
            client.write(data, b"x")
            client.see((data, b"x"))
        box.break_forwards()
        client.quiet(0.5)
        still_held(client)
    with SpdyClient(box) as client:
        data = client.connect(ECHO)[1]
        client.write(data, b"again")
        client.see((data, b"again"))


def test_a_client_that_leaves(box: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod's server sees the end, a second later, which takes three here: time for others to see theirs."""
    monkeypatch.setattr(forward, "GRACE", 3.0)
    ends: list[float] = []

    def note(sock: socket.socket) -> None:
        while sock.recv(100):
            pass
        ends.append(time.monotonic())

    with PodServer(note) as server:
        with SpdyClient(box) as client:
            data = client.connect(server.port)[1]
            client.write(data, b"x")
            client.ping(1)
            client.see(("ping", 1))
            left = time.monotonic()
        box.wait_idle()
        idle = time.monotonic()
        while not ends:
            assert time.monotonic() - left < 10 * SCALE
            time.sleep(0.01)
    assert ends[0] - left >= 2.9
    assert idle < ends[0]


def test_in_a_process_of_its_own(listens: dict[int, int | None]) -> None:
    with LocalCluster(process=True) as cluster:
        cluster.add_pod("box", listens=listens)
        with SpdyClient(cluster) as client:
            data = client.connect(ECHO)[1]
            client.write(data, b"x")
            client.see((data, b"x"))
            cluster.break_forwards()
            client.quiet()
            still_held(client)


def legacy(client: RawClient) -> None:
    """Open a legacy connection, and see that it is of use."""
    assert client.upgrade(target(ECHO), [LEGACY]).status == 101
    client.send(b"\0x")
    client.until(b"x", channel=0)


def test_a_deleted_pod_of_a_legacy_connection(box: LocalCluster) -> None:
    with RawClient(box) as client:
        legacy(client)
        begun = time.monotonic()
        box.delete_pod("box")
        assert client.run_out().close_codes() == [b"\x03\xe8"]
        assert time.monotonic() - begun >= 0.9
        assert client.channel(1)[2:] == b""


def test_a_runtime_that_dies_behind_a_legacy_connection(box: LocalCluster) -> None:
    with RawClient(box) as client:
        legacy(client)
        box.break_forwards()
        assert client.run_out().close_codes() == []
        assert client.ended == "close_notify"


@pytest.mark.parametrize("protocols", [[LEGACY], ["SPDY/3.1+portforward.k8s.io"]])
def test_a_cluster_that_is_closed(listens: dict[int, int | None], protocols: list[str]) -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("box", listens=listens)
        with RawClient(cluster) as client:
            assert client.upgrade(target(ECHO), protocols).status == 101
            begun = time.monotonic()
            cluster.close()
            assert time.monotonic() - begun < 3 * SCALE
            client.run_out()
            assert client.ended is not None
