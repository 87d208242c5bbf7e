"""Arithmetic on a clock that the test sets."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from kubews.transport import deadline
from kubews.transport.deadline import NEVER, Deadline


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Replace the look for threads and descriptors, of which there are none here."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_it_runs_out(clock: Clock) -> None:
    limit = Deadline(2.5)
    assert (limit.remaining(), limit.expired()) == (2.5, False)
    clock.now += 2.0
    assert (limit.remaining(), limit.expired()) == (0.5, False)
    clock.now += 0.5
    assert (limit.remaining(), limit.expired()) == (0.0, True)
    clock.now += 100
    assert (limit.remaining(), limit.expired()) == (0.0, True)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf])
def test_it_has_run_out(clock: Clock, timeout: float) -> None:
    assert (Deadline(timeout).remaining(), Deadline(timeout).expired()) == (0.0, True)


@pytest.mark.parametrize("limit", [NEVER, Deadline(None)])
def test_never(clock: Clock, limit: Deadline) -> None:
    clock.now += 1e12
    assert (limit.remaining(), limit.expired()) == (None, False)


def test_not_a_number_is_over(clock: Clock) -> None:
    """Who waits for it must not turn round and round for ever."""
    assert (Deadline(math.nan).remaining(), Deadline(math.nan).expired()) == (0.0, True)


@pytest.mark.parametrize(
    ("own", "other", "earlier"),
    [(None, 3.0, 3.0), (5.0, 3.0, 3.0), (2.0, 3.0, 2.0), (-1.0, 3.0, 0.0), (2.0, -1.0, 0.0)],
)
def test_at_most(clock: Clock, own: float | None, other: float, earlier: float) -> None:
    limit = Deadline(own)
    assert limit.at_most(other).remaining() == earlier
    assert limit.remaining() == (own if own is None else max(own, 0.0))  # itself unchanged


def test_the_clock_is_the_monotonic_one() -> None:
    limit = Deadline(3600)
    remaining = limit.remaining()
    assert remaining is not None
    assert 3500 < remaining <= 3600


def test_what_nobody_can_wait_for_is_never() -> None:
    for timeout in (float("inf"), 1e300):
        assert Deadline(timeout).remaining() is None
        assert not Deadline(timeout).expired()
