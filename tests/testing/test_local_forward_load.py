"""Many connections, slow readers and stalls on LocalCluster's port-forwards."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from podservers import Deaf, PodServer, echo, flood, greet
from rawclient import SCALE, RawClient
from spdyclient import FIN, LEGACY, OPENED, SpdyClient, target
from support import eventually
from websockets.frames import Opcode

from kubews.protocol import spdy_frames as frames
from kubews.testing import LocalCluster
from kubews.testing.spdystream import Stream

ECHO, FLOOD, DEAF, GREET = 1, 2, 3, 4
PIECE = bytes(32 << 10)


@pytest.fixture
def deaf() -> Deaf:
    return Deaf()


@pytest.fixture
def box(deaf: Deaf) -> Iterator[LocalCluster]:
    with ExitStack() as stack:
        handlers = {ECHO: echo, FLOOD: flood, DEAF: deaf, GREET: greet}
        servers = {port: stack.enter_context(PodServer(each)) for port, each in handlers.items()}
        stack.callback(deaf.listen)
        cluster = stack.enter_context(LocalCluster())
        cluster.add_pod("box", listens={port: server.port for port, server in servers.items()})
        yield cluster


def cluster_threads() -> int:
    return sum(each.name.startswith("kubews-testing-conn") for each in threading.enumerate())


def test_many_connections_in_one_tunnel(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        streams = [client.connect(ECHO) for _ in range(100)]
        for _ in range(3):
            for _, data in streams:
                client.write(data, b"%d." % data)
        for _, data in streams:
            client.see_bytes(data, b"%d." % data * 3)
        assert cluster_threads() == 1
        for _, data in streams:
            client.write(data, b"", fin=True)
        client.see(*((FIN, error) for error, _ in streams))
        client.write(client.connect(ECHO)[1], b"x")
        client.see((streams[-1][1] + 4, b"x"))


def test_many_websockets(box: LocalCluster) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SpdyClient(box)) for _ in range(20)]
        clients += [stack.enter_context(RawClient(box)) for _ in range(20)]  # type: ignore[list-item]
        for client in clients[20:]:
            assert client.upgrade(target(ECHO), [LEGACY]).status == 101
            client.send(b"\0x")
        for client in clients[:20]:
            client.write(client.connect(ECHO)[1], b"x")
        for client in clients[:20]:
            client.see((3, b"x"))
        for client in clients[20:]:
            client.until(b"x", 0)
        assert cluster_threads() == 40
    box.wait_idle()


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_one_that_is_not_read_holds_up_the_others_and_no_memory(box: LocalCluster) -> None:
    """The client reads nothing: the server takes no more of the pod than its buffers hold."""
    with SpdyClient(box) as client:
        client.connect(FLOOD)
        before = resident()
        time.sleep(1 * SCALE)
        assert resident() - before < 16 << 20
        data = client.connect(ECHO)[1]
        client.write(data, b"behind all that")
        client.see((data, b"behind all that"))


def test_pings_that_nobody_reads_the_answers_of(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        client.sock.settimeout(1 * SCALE)
        many = b"".join(frames.ping(number) for number in range(1, 4001, 2))
        with pytest.raises(TimeoutError):
            for _ in range(1 << 20):
                client.send(many)


def fill(client: SpdyClient, stream: int) -> int:
    """Send until nothing more is taken; return the bytes."""
    client.sock.settimeout(0.5 * SCALE)
    total = 0
    with pytest.raises(TimeoutError):
        while total < 1 << 28:
            client.write(stream, PIECE)
            total += len(PIECE)
    return total


def test_a_stream_that_nobody_reads_stalls_everything(box: LocalCluster, deaf: Deaf) -> None:
    with SpdyClient(box) as client:
        other = client.connect(ECHO)[1]
        client.write(other, b"x")
        client.see((other, b"x"))
        data = client.connect(DEAF)[1]
        client.see((OPENED, data))
        total = fill(client, data)
        # No more than the kernel's buffers, fifty frames, and what is underway to the session.
        assert total < 1 << 25
        client.quiet()
        deaf.listen()
        deaf.wait_for(total)
    box.wait_idle()


def test_the_websockets_end_answers_longer_than_the_session(box: LocalCluster, deaf: Deaf) -> None:
    """Of a session that is stuck the hop before it knows nothing: its pongs say nothing."""
    with SpdyClient(box) as client:
        stuck = client.syn("error", ECHO, "alone")
        client.see((OPENED, stuck))
        client.write(stuck, b"first")  # the worker has it in hand, and nobody takes it
        numbers = range(1, 11, 2)
        for number in numbers:
            client.ping(number)
        client.see(("ping", 9))
        # One in five went to the worker that waits.
        assert [each[1] for each in client.seen[1:]] == [1, 5, 7, 9]
        for _ in range(51):
            client.write(stuck, b"more")
        client.ping(13)
        client.send(b"ping", Opcode.PING)
        while not any(frame.opcode is Opcode.PONG for frame in client.frames):
            assert client.pump()
        client.reset(stuck)  # it waits behind what it should undo
        client.quiet()
        assert ("ping", 13) not in client.seen


def test_what_comes_for_an_ended_connection_is_read_by_nobody(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(GREET)
        client.see((FIN, error))
        for _ in range(60):
            client.write(data, b"x")
        client.ping(1)
        client.quiet()
        assert ("ping", 1) not in client.seen
    box.wait_idle()


def test_after_its_reset_data_are_no_trouble(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        error, data = client.connect(GREET)
        client.see((FIN, error))
        client.reset(data)
        for _ in range(60):
            client.write(data, b"x")
        client.ping(1)
        client.see(("ping", 1))


def test_headers_in_mid_stream_are_read_by_nobody(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        data = client.connect(ECHO)[1]
        client.see((OPENED, data))
        block = client.encoder.encode({"more": "headers"})
        client.send(frames._frame(frames.HEADERS, data.to_bytes(4, "big") + block))
        client.write(data, b"x")
        client.quiet()


def read_no_more(client: SpdyClient, stream: int) -> int:
    """Send until no ping is answered: the hop does not read, and the kernel still does. Return the bytes."""
    for number in range(1000):
        for _ in range(4):
            client.write(stream, PIECE)
        client.send(b"%d" % number, Opcode.PING)
        end = time.monotonic() + 0.3 * SCALE
        while not client.frames or client.frames[-1].data != b"%d" % number:
            if not client.pump(0.05) and time.monotonic() > end:
                return (number + 1) * 4 * len(PIECE)
    raise AssertionError("it takes everything")


def test_a_client_that_leaves_a_stalled_tunnel(box: LocalCluster) -> None:
    """A real server waits for the pod; here a second without any progress is the end."""
    with SpdyClient(box) as client:
        data = client.connect(DEAF)[1]
        client.see((OPENED, data))
        read_no_more(client, data)
    box.wait_idle()
    connections_end()  # nor does the pod's connection live on


def fill_session(client: SpdyClient, stream: int) -> int:
    """Send until the session reads no more, and the hop still does; return the bytes."""
    total = missed = 0
    for number in range(1, 1 << 12, 2):
        for _ in range(4):
            client.write(stream, PIECE)
            total += len(PIECE)
        client.ping(number)
        for _ in range(2):  # the answer to the first may overtake that of the session
            before = len(client.frames)
            client.send(b"hop", Opcode.PING)
            while not any(frame.opcode is Opcode.PONG for frame in client.frames[before:]):
                assert client.pump()
        missed = 0 if ("ping", number) in client.seen else missed + 1
        if missed == 5:  # one in five is missed anyway
            return total
    raise AssertionError("it takes everything")


def connections_end() -> None:
    """Wait until no thread carries a connection any more."""
    end = time.monotonic() + 30 * SCALE
    while cluster_threads():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_was_sent_before_leaving_is_passed_on(box: LocalCluster, deaf: Deaf) -> None:
    """All but what is in the session's queues when it sees the end. (Read: ``Serve`` and ``Close``.)"""
    with SpdyClient(box) as client:
        data = client.connect(DEAF)[1]
        client.see((OPENED, data))
        sent = fill_session(client, data)
    deaf.listen()
    assert deaf.ended.wait(30 * SCALE)
    assert sent - 53 * len(PIECE) <= deaf.total <= sent


def test_a_slow_reader_is_waited_for(box: LocalCluster, deaf: Deaf) -> None:
    with SpdyClient(box) as client:
        data = client.connect(DEAF)[1]
        client.see((OPENED, data))
        sent = read_no_more(client, data)
    deaf.pause = 0.05  # it takes several seconds for what the kernel has of it
    deaf.listen()
    assert deaf.ended.wait(30 * SCALE)
    assert sent - 53 * len(PIECE) <= deaf.total <= sent


def test_frames_that_wait_keep_no_messages(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        dead = client.connect(ECHO)[1]
        client.reset(dead)
        stuck = client.syn("error", ECHO, "alone")
        client.ping(1)
        client.see(("ping", 1))
        before = resident()
        for _ in range(45):
            client.send(frames.data(dead, bytes(1 << 20)) + frames.data(stuck, b"x"))
        client.ping(3)
        client.see(("ping", 3))
        assert resident() - before < 20 << 20


def test_streams_that_have_ended_are_forgotten(box: LocalCluster) -> None:
    def known() -> int:
        return sum(isinstance(each, Stream) for each in gc.get_objects())

    before = known()  # other conversations may not be over
    with SpdyClient(box) as client:
        for number in range(40):
            error, data = client.connect(GREET)
            if number % 2:
                client.write(data, b"", fin=True)
            client.see((data, b"hello\n"))
            if not number % 2:
                client.write(data, b"", fin=True)
            client.see((FIN, data), (FIN, error))
        end = time.monotonic() + 10 * SCALE  # it says the ends, and then forgets
        while known() >= before + 10:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_runtime_that_dies_ends_a_stall(box: LocalCluster) -> None:
    with SpdyClient(box) as client:
        data = client.connect(DEAF)[1]
        client.see((OPENED, data))
        read_no_more(client, data)
        box.break_forwards()
        assert client.run_out().close_codes() == [b"\x03\xe8"]


def idle(client: SpdyClient, box: LocalCluster) -> None:
    client.write(client.connect(ECHO)[1], b"x")


def unread_by_the_pod(client: SpdyClient, box: LocalCluster) -> None:
    read_no_more(client, client.connect(DEAF)[1])


def unread_by_the_client(client: SpdyClient, box: LocalCluster) -> None:
    client.connect(FLOOD)


def without_a_reader(client: SpdyClient, box: LocalCluster) -> None:
    stream = client.syn("error", ECHO, "alone")
    for _ in range(60):
        client.write(stream, b"x")


def without_a_pod(client: SpdyClient, box: LocalCluster) -> None:
    idle(client, box)
    box.delete_pod("box")


def without_a_runtime(client: SpdyClient, box: LocalCluster) -> None:
    idle(client, box)
    box.break_forwards()


def half_closed(client: SpdyClient, box: LocalCluster) -> None:
    client.write(client.connect(ECHO)[1], b"x", fin=True)


STATES = [
    idle,
    unread_by_the_pod,
    unread_by_the_client,
    without_a_reader,
    without_a_pod,
    without_a_runtime,
    half_closed,
]


def settled() -> bool:
    """Tell whether for a while nothing was computed: what was begun is done."""
    before = time.process_time()
    time.sleep(0.3)
    return time.process_time() - before < 0.03


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_waiting_takes_no_time(box: LocalCluster, state: object, leave: bool) -> None:
    """Poll tells some things again and again, for as long as it is asked."""
    assert callable(state)
    with SpdyClient(box) as client:
        state(client, box)
        assert eventually(settled, 20)
        if leave:
            client.sock.close()
            time.sleep(0.1 * SCALE)
        before = time.process_time()
        time.sleep(0.6)
        assert time.process_time() - before < 0.1
