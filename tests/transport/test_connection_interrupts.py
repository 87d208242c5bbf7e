"""Ctrl-C in the middle of sending: what is queued goes out, once, without waiting for anything else."""

from __future__ import annotations

from functools import partial

from interrupts import Interrupted, interrupt, points, run_with
from peers import opened

from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER
from kubews.transport.outbox import Unsent


def send_all(connection: Connection, source: Unsent) -> None:
    while not source.done:
        connection.send(0, source, NEVER)


def test_an_interrupted_send_can_be_made_again_and_nothing_waits_for_the_next_ping() -> None:
    for number in points():
        with opened(ping=None) as (connection, peer):
            source = Unsent(b"once")
            try:
                _, reached = run_with(partial(send_all, connection, source), number, interrupt)
            except Interrupted:
                reached = True
                if source.done:  # then it must come without any further call
                    assert peer.read_data() == b"once"
                else:
                    send_all(connection, source)
                    assert peer.read_data() == b"once"
            else:
                assert peer.read_data() == b"once"
            send_all(connection, Unsent(b"twice"))
            assert peer.read_data() == b"twice"
        if not reached:
            return


def test_an_interrupted_end_can_be_made_again() -> None:
    for number in points():
        with opened(ping=None) as (connection, peer):
            try:
                _, reached = run_with(partial(connection.end, 0), number, interrupt)
            except Interrupted:
                reached = True
                connection.end(0)
            assert peer.read_frame()[1] == b"\xff\0"
        if not reached:
            return
