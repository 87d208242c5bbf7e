"""Bridges on a connection's loop: adopted, served, released, and let go in every order of ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from peers import SUCCESS, close_frame, data, opened
from support import eventually, in_thread, seconds

from kubews import errors
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop


class Recorder:
    """A bridge that notes what happens to it, and is over when the test says so."""

    def __init__(self) -> None:
        self.served = 0
        self.closed = False
        self.thread: threading.Thread | None = None
        self._released: Callable[[], None] | None = None

    def start(self, loop: Loop, released: Callable[[], None]) -> None:
        assert loop.is_current()
        self.thread = threading.current_thread()
        self._released = released

    def serve(self, events: int) -> None:
        assert threading.current_thread() is self.thread
        self.served += 1

    def close(self) -> None:
        self.closed = True
        self.release()

    def release(self) -> None:
        released, self._released = self._released, None
        if released is not None:
            released()


def soon() -> Deadline:
    return Deadline(seconds(10))


def test_a_bridge_that_outlives_its_connection_hears_of_the_end_of_the_loop() -> None:
    with opened() as (connection, peer):
        bridge = Recorder()
        connection.bridges.attach(bridge)
        peer.send(data(3, SUCCESS) + close_frame())
        connection.closed.get(soon())
        connection._loop.call_soon(divmod, 1, 0)
        connection._loop.ended.get(soon())
        assert bridge.closed


def test_a_bridge_is_served_whenever_the_loop_has_moved_something() -> None:
    with opened() as (connection, peer):
        bridge = Recorder()
        connection.bridges.attach(bridge)
        assert connection.bridges
        before = bridge.served
        peer.send(data(1, b"x"))
        assert eventually(lambda: bridge.served > before)
        connection._loop.call_soon(bridge.release)
        assert eventually(lambda: not connection.bridges)


def test_a_loop_outlives_its_connection_while_there_is_a_bridge() -> None:
    with opened() as (connection, peer):
        first, second = Recorder(), Recorder()
        connection.bridges.attach(first)
        connection.bridges.attach(second)
        peer.send(data(3, SUCCESS), close_frame())
        connection.closed.get(soon())
        assert not first.closed
        for bridge in (first, second):
            assert not connection._loop.ended.done()
            connection._loop.call_soon(bridge.release)
        connection._loop.ended.get(soon())


@pytest.mark.parametrize("end", ["close", "abort", "stop"])
def test_who_closes_the_connection_closes_its_bridges(end: str) -> None:
    with opened() as (connection, _):
        bridge = Recorder()
        connection.bridges.attach(bridge)
        if end == "stop":
            connection._loop.stop()
        else:
            in_thread(getattr(connection, end)).result()
        connection._loop.ended.get(soon())
        assert bridge.closed
        assert not connection.bridges


def test_behind_the_end_of_the_loop_a_bridge_has_a_loop_of_its_own() -> None:
    with opened() as (connection, peer):
        peer.send(data(3, SUCCESS), close_frame())
        connection._loop.ended.get(soon())
        bridge = Recorder()
        connection.bridges.attach(bridge)
        assert eventually(lambda: bridge.thread is not None)
        assert bridge.thread is not connection._loop._thread
        assert not connection.bridges
        bridge.release()
        assert bridge.thread is not None
        bridge.thread.join(seconds(10))


def test_a_loop_that_is_busy_is_waited_for() -> None:
    with opened() as (connection, _):
        go_on = threading.Event()
        connection._loop.call_soon(lambda: go_on.wait(seconds(10)) and None)
        bridge = Recorder()
        attaching = in_thread(connection.bridges.attach, bridge)
        threading.Event().wait(0.15)
        assert attaching.running
        go_on.set()
        attaching.result()
        assert connection.bridges
        connection.abort()


def test_room_is_what_a_send_would_not_wait_for() -> None:
    with opened() as (connection, peer):
        assert connection.has_room()
        peer.send(data(3, SUCCESS))
        connection.status.get(soon())
        with pytest.raises(errors.StreamBroken):
            connection.has_room()


def test_a_loop_that_stops_takes_no_bridge() -> None:
    """It would close it again in a moment, with what did not fit into the pipe."""
    with opened() as (connection, _):
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            go_on.wait(seconds(10))

        connection._loop.call_soon(hold)
        assert held.wait(seconds(10))
        # Both in the next round, in which the bridge comes behind the stop.
        connection._loop.call_soon(connection._loop.stop)
        bridge = Recorder()
        attaching = in_thread(connection.bridges.attach, bridge)
        assert eventually(lambda: len(connection._loop._posts) >= 2)
        go_on.set()
        attaching.result()
        assert eventually(lambda: bridge.thread is not None)
        assert bridge.thread is not connection._loop._thread
        bridge.release()
        assert bridge.thread is not None
        bridge.thread.join(seconds(10))


def test_what_a_child_reads_is_not_dropped_with_the_connection() -> None:
    """Behind a Status, which says that it is all there is; a stream without a child loses what nobody read."""
    with opened() as (connection, peer):
        connection.pipes[1].moved = True
        peer.send(data(1, b"for the child"), data(2, b"for nobody"), data(3, SUCCESS))
        connection.status.get(soon())
        closing = in_thread(connection.close, 0.2)
        closing.result(seconds(10))
        assert connection.pipes[1].take_for_descriptor(100) == b"for the child"
        assert connection.pipes[1].take_for_descriptor(100) == b""
        with pytest.raises(errors.ConnectionLost, match="not all of the output was read"):
            connection.pipes[2].take(100, soon())


def test_close_does_not_wait_for_a_child_that_still_reads() -> None:
    """It has all of the output to come, and takes its time; the loop ends when it has."""
    with opened() as (connection, peer):
        bridge = Recorder()
        connection.bridges.attach(bridge)
        peer.send(data(3, SUCCESS), close_frame())
        connection.status.get(soon())
        in_thread(connection.close).result(seconds(10))
        assert connection.bridges
        assert not connection._loop.ended.done()
        connection._loop.call_soon(bridge.release)
        connection._loop.ended.get(soon())
