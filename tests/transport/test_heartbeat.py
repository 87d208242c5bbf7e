"""Who is dead and who only seems so, on a clock that the test sets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kubews.transport import heartbeat
from kubews.transport.heartbeat import DEAD_AFTER, Heartbeat


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 500.0
        monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Replace the look for threads and descriptors, of which there are none here."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_silence_of_a_minute(clock: Clock) -> None:
    heart = Heartbeat()
    clock.now += DEAD_AFTER - 0.001
    assert not heart.dead
    clock.now += 0.001
    assert heart.dead


def test_any_frame_is_a_sign_of_life(clock: Clock) -> None:
    heart = Heartbeat()
    for _ in range(10):
        clock.now += DEAD_AFTER - 1
        heart.alive()
        assert not heart.dead
    clock.now += DEAD_AFTER
    assert heart.dead
    heart.alive()
    assert not heart.dead


def test_unread_input_proves_nothing(clock: Clock) -> None:
    """A process that does not read its stdin stops the server's pongs, for hours if need be."""
    heart = Heartbeat()
    heart.sending()
    heart.ping()
    clock.now += 100 * DEAD_AFTER
    assert not heart.dead


def test_a_pong_confirms_what_was_sent_before_its_ping(clock: Clock) -> None:
    heart = Heartbeat()
    heart.sending()
    early = heart.ping()
    heart.sending()
    heart.sending()
    late = heart.ping()
    heart.pong(early)
    clock.now += DEAD_AFTER
    assert not heart.dead  # the two behind the first ping may be unread
    heart.pong(late)
    assert heart.dead
    heart.sending()
    assert not heart.dead


def test_pongs_that_were_not_asked_for(clock: Clock) -> None:
    heart = Heartbeat()
    heart.sending()
    payload = heart.ping()
    heart.pong(b"")
    heart.pong(b"whatever")
    clock.now += DEAD_AFTER
    assert not heart.dead
    heart.pong(payload)
    assert heart.dead
    heart.sending()
    heart.pong(payload)  # again
    assert not heart.dead


def test_an_old_pong_confirms_nothing_new(clock: Clock) -> None:
    heart = Heartbeat()
    early, late = heart.ping(), heart.ping()
    heart.sending()
    newest = heart.ping()
    heart.pong(late)
    heart.pong(early)
    clock.now += DEAD_AFTER
    assert not heart.dead
    heart.pong(newest)
    assert heart.dead


def test_only_the_last_ping_is_answered(clock: Clock) -> None:
    """RFC 6455, 5.5.3 allows it. Pings kept for ever would fill the account and hide a death."""
    heart = Heartbeat()
    for _ in range(50):
        heart.sending()
        for _ in range(4):
            last = heart.ping()
        heart.pong(last)
        assert not heart._sent_at_ping
    clock.now += DEAD_AFTER
    assert heart.dead


def test_pings_that_nobody_answers_do_not_pile_up(clock: Clock) -> None:
    heart = Heartbeat()
    heart.sending()
    pings = [heart.ping() for _ in range(1000)]
    assert len(set(pings)) == 1000
    assert len(heart._sent_at_ping) <= 64
    clock.now += DEAD_AFTER
    heart.pong(pings[0])  # forgotten by now
    assert not heart.dead
    heart.pong(pings[-1])
    assert heart.dead


def test_all_answered_late(clock: Clock) -> None:
    heart = Heartbeat()
    heart.sending()
    pings = [heart.ping() for _ in range(200)]
    for payload in pings:
        heart.pong(payload)
    assert not heart._sent_at_ping
    clock.now += DEAD_AFTER
    assert heart.dead


def test_the_clock_is_the_monotonic_one() -> None:
    assert not Heartbeat().dead
