"""Peers that vanish, proxies that cut what is idle, and readers that pause: over real sockets."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import PING, PONG, SUCCESS, Peer, close_frame, data, server_frame
from player import Script, playing
from support import eventually, in_thread, seconds

from kubews import PIPE, Client, Config, Pod, errors
from kubews.config import Cluster
from kubews.transport import heartbeat

MIB = 1 << 20


def answer_pings(sock: Any, *, until: float = 1000.0) -> int:
    """Be there and say nothing but pongs, until the client closes; return how many."""
    peer, count = Peer(sock), 0
    sock.settimeout(until)
    with contextlib.suppress(EOFError, OSError):
        while True:
            opcode, payload = peer.read_frame()
            if opcode == PING:
                count += 1
                peer.send(server_frame(payload, PONG))
    return count


# -- a peer that vanishes

# A server in a network of its own, which can be unplugged.
SERVER = """
import socket, sys
sys.path[:0] = sys.argv[2:]
from peers import data
from player import _read_head, upgrade_answer
from test_liveness import answer_pings
with socket.create_server((sys.argv[1], 4430)) as server:
    print("listening", flush=True)
    sock = server.accept()[0]
    sock.sendall(upgrade_answer(_read_head(sock), "v5.channel.k8s.io") + data(1, b"early"))
    answer_pings(sock)
"""


def ip(*words: str, may_exist: bool = False) -> bool:
    """Set something up; return False if it may exist and does."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if may_exist and "File exists" in done.stderr:
        return False
    if done.returncode:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return True


def new_network() -> int:
    """Make a network namespace, ``kubews-N``, whose number no test of this machine has now."""
    return next(n for n in range(250) if ip("netns", "add", f"kubews-{n}", may_exist=True))


class Plug:
    """A cable to a server, and the name of the network behind it."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self.address = name, address

    def pull(self) -> None:
        """From now on packets go nowhere, and nobody is told."""
        subprocess.run(["ip", "-n", self._name, "link", "set", "there", "down"], check=True)


@pytest.fixture
def unpluggable() -> Iterator[Plug]:
    """A server behind a cable."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("making a network namespace needs root and the command ip")
    number = new_network()
    name, near, network = f"kubews-{number}", f"kubews{number}", f"10.219.{number}"
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", "there", "netns", name)
        ip("addr", "add", f"{network}.1/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{network}.2/30", "dev", "there")
        ip("-n", name, "link", "set", "there", "up")
        here = Path(__file__).parent
        server = subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-c", SERVER, f"{network}.2"),
                *(str(here), str(here.parent)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            try:
                yield Plug(name, f"http://{network}.2:4430")
            finally:
                server.kill()
    finally:
        # Its address goes with it, before another test can have the number.
        subprocess.run(["ip", "link", "delete", near], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "delete", name], check=True)


def vanish(plug: Plug, quiet: float) -> float:
    """Use a server for some seconds, unplug it, and return how long it took to be told."""
    with Client(Config(Cluster(plug.address))) as client:
        process = client.pod("web-0").popen(["x"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert process.stdout.read(5) == b"early"
        time.sleep(quiet)  # it is silent, and alive
        assert process.poll() is None
        reader = in_thread(process.stdout.read)
        plug.pull()
        begin = time.monotonic()
        with pytest.raises(errors.ConnectionLost, match="no sign of life"):
            process.wait()
        took = time.monotonic() - begin
        with pytest.raises(errors.ConnectionLost):
            reader.result()
        with pytest.raises(errors.StreamBroken):
            process.stdin.write(b"x")
        process.close()
    return took


def test_a_peer_that_vanishes_is_told_of_r10(unpluggable: Plug, monkeypatch: Any) -> None:
    """R-10: packets into nowhere; before that, silence with pongs is no reason."""
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(1.0))
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.1)
    took = vanish(unpluggable, seconds(1.5))
    print(f"told after {took:.2f} s of {heartbeat.DEAD_AFTER}")
    assert took < seconds(2)


@pytest.mark.long
def test_a_peer_that_vanishes_is_told_of_within_70_s_r10(unpluggable: Plug) -> None:
    """R-10: with the limits that users have."""
    took = vanish(unpluggable, 90)
    print(f"told after {took:.1f} s")
    assert took < 75


def test_a_peer_that_vanishes_amid_its_output_is_told_of_r10(monkeypatch: Any) -> None:
    """R-10: it never was silent, and once it was sent something."""
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", seconds(1.0))
    monkeypatch.setattr("kubews.client.PING_INTERVAL", seconds(0.4))
    there = threading.Event()

    def act(sock: Any) -> None:
        peer = Peer(sock)

        def read() -> None:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    opcode, payload = peer.read_frame()
                    if opcode == PING and there.is_set():
                        peer.send(server_frame(payload, PONG))

        there.set()
        reading = in_thread(read)
        # No pause is half an interval, in which any ping goes out; each is long for a busy machine, too.
        for _ in range(16):
            sock.sendall(data(1, b"."))
            time.sleep(seconds(0.15))
        there.clear()
        reading.thread.join(seconds(30))

    with playing() as (player, pod):
        player.play(Script(act))
        with pod.popen(["x"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
            process.stdin.write(b"x")
            with pytest.raises(errors.ConnectionLost, match="no sign of life"):
                process.communicate(timeout=seconds(10))


# -- a proxy that cuts what is idle


class Impatient:
    """A proxy that cuts a connection on which nothing was said for some seconds."""

    def __init__(self, target: tuple[str, int], patience: float) -> None:
        self._target, self._patience = target, patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut = False
        self._thread = in_thread(self._serve)

    def _serve(self) -> None:
        client, server = self._listener.accept()[0], socket.create_connection(self._target)
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while ready := selector.select(self._patience):
                for key, _ in ready:
                    piece = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not piece:
                        return
                    key.data.sendall(piece)
            self.cut = True

    def __enter__(self) -> Impatient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self._thread.thread.join(seconds(10))


def idle(patience: float, duration: float) -> bool:
    """Be idle behind an impatient proxy; return whether the connection survived."""
    over = threading.Event()

    def act(sock: Any) -> None:
        answering = in_thread(answer_pings, sock)
        over.wait(duration + 10)
        with contextlib.suppress(OSError):
            sock.sendall(data(1, b"late") + data(3, SUCCESS) + close_frame())
        answering.thread.join(seconds(5))

    with playing() as (player, _):
        cluster = player.config.cluster
        with Impatient((cluster.host, cluster.port), patience) as proxy:
            with Client(Config(Cluster(proxy.address))) as client:
                player.play(Script(act))
                process = client.pod("web-0").popen(["x"], stdout=PIPE, stderr=PIPE)
                end = time.monotonic() + duration
                while time.monotonic() < end and not proxy.cut:
                    time.sleep(0.05)
                over.set()
                try:
                    return process.communicate(timeout=seconds(10)) == (b"late", b"")
                except errors.ConnectionLost:
                    assert proxy.cut
                    return False
                finally:
                    process.close()


def test_idle_behind_an_impatient_proxy_r10(monkeypatch: Any) -> None:
    """R-10: the pings keep it open, and nothing else does."""
    monkeypatch.setattr("kubews.client.PING_INTERVAL", seconds(0.2))
    assert idle(seconds(1.5), seconds(2.5))
    monkeypatch.setattr("kubews.client.PING_INTERVAL", None)
    assert not idle(seconds(0.8), seconds(2.5))


@pytest.mark.long
def test_ten_minutes_idle_behind_a_proxy_of_a_minute_r10() -> None:
    """R-10: with the interval that users have."""
    assert idle(60, 600)


# -- a reader that pauses


def pause(duration: float) -> tuple[int, int]:
    """Leave 64 MiB unread for some seconds; return the pings in that time and the most that was held."""
    total, pings = 64 * MIB, 0

    def act(sock: Any) -> None:
        peer = Peer(sock)
        sock.settimeout(duration + 60)

        def count() -> None:
            # The pongs stand behind the output, as on a real server.
            nonlocal pings
            with contextlib.suppress(EOFError, OSError):
                while True:
                    pings += peer.read_frame()[0] == PING

        counting = in_thread(count)
        for _ in range(total // 32768):
            sock.sendall(data(1, bytes(32768)))
        sock.sendall(data(2, b"behind it") + data(3, SUCCESS) + close_frame())
        socket.socket.shutdown(sock, socket.SHUT_WR)
        counting.thread.join(duration + 60)

    with playing() as (player, pod):
        player.play(Script(act))
        process = pod.popen(["x"], stdout=PIPE, stderr=PIPE, bufsize=0)
        count = len(process.stdout.read(1))
        # A glance may catch the moment in which it only might pause; a ping may be on its way.
        assert eventually(lambda: process._connection._paused)
        time.sleep(seconds(0.3))
        assert process._connection._paused
        before = pings
        time.sleep(duration)
        heard, held = pings - before, process.stdout._pipe.size
        assert process._connection._paused
        while piece := process.stdout.read(MIB):
            count += len(piece)
        assert count == total
        assert process.stderr.read() == b"behind it"
        assert process.wait(seconds(10)) == 0
        process.close()
    return heard, held


def test_a_reader_that_pauses_loses_nothing_r25(monkeypatch: Any) -> None:
    """R-8, R-25: several times as long as a peer may be silent, and nothing is asked of it meanwhile."""
    monkeypatch.setattr(heartbeat, "DEAD_AFTER", 0.4)
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.1)
    heard, held = pause(2)
    print(f"{held} bytes held")
    assert heard == 0
    assert held < 8 * MIB


def test_the_end_is_not_lost_when_the_reader_pauses_and_the_server_has_closed_r1_r25(
    monkeypatch: Any,
) -> None:
    """R-1, R-25: what reaches a server that has closed is answered with a reset, which takes the rest along."""
    monkeypatch.setattr("kubews.client.PING_INTERVAL", 0.2)
    total = 32 * MIB
    closed = threading.Event()

    def act(sock: Any) -> None:
        sock.settimeout(seconds(30))
        for _ in range(total // 32768):
            sock.sendall(data(1, bytes(32768)))
        sock.sendall(data(3, SUCCESS) + close_frame())
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.recv(4096)  # what this machine was too slow for; the buffers are full by now
        socket.socket.close(sock)  # as servers do, whatever is still on its way
        closed.set()

    with playing() as (player, pod):
        player.play(Script(act))
        with pod.popen(["x"], stdout=PIPE, bufsize=0) as process:
            count = 0
            while not closed.is_set():
                count += len(process.stdout.read(65536))
                time.sleep(0.002)  # the kernels' buffers stay full
            time.sleep(0.5)
            while piece := process.stdout.read(MIB):
                count += len(piece)
            assert count == total
            assert process.wait(seconds(10)) == 0


@pytest.mark.long
def test_a_reader_that_pauses_for_five_minutes_loses_nothing_r25() -> None:
    """R-8, R-25."""
    heard, held = pause(300)
    print(f"{held} bytes held")
    assert heard == 0
    assert held < 8 * MIB


def test_an_exit_code_behind_unread_output_r12(pod: Pod) -> None:
    """R-8, R-12, R-25: who waits gets it, whatever is unread; and what is unread can be read then."""
    script = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 7"
    process = pod.popen(script, shell=True, stdout=PIPE, stderr=PIPE)
    assert process.wait(seconds(30)) == 7
    assert len(process.stderr.read()) == len(process.stdout.read()) == 20_000_000
    process.close()
