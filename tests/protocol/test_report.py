"""The report of a wrapper is taken out of what its command writes, byte by byte and whatever is around it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.protocol.channels import ERROR, STDERR, STDOUT
from kubews.protocol.events import Data, Status
from kubews.protocol.report import ReportingChannels

V5 = "v5.channel.k8s.io"
MARK = "aab"
SUCCESS = b'{"metadata":{},"status":"Success"}'


class Received:
    """What a codec has told."""

    def __init__(self, tty: bool = False) -> None:
        self.reports: list[str | None] = []
        self.codec = ReportingChannels(V5, tty, mark=MARK, reported=self.reports.append)
        self.output = {STDOUT: b"", STDERR: b""}
        self.others: list[Any] = []

    def feed(self, channel: int, data: bytes) -> None:
        self.take(self.codec.receive(bytes([channel]) + data))

    def take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Data):
                self.output[event.stream_id] += bytes(event.payload)
            else:
                self.others.append(event)


@given(
    before=st.sampled_from([b"", b"sh: warning: setlocale\n", b"aaaaab", b"aab\n", b"aa"]),
    after=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 80), max_size=6),
    tty=st.booleans(),
)
def test_a_report_is_taken_out_wherever_it_is_cut(before, after, cuts, tty) -> None:
    received = Received(tty)
    line = b"aab 17 (sh) S 1 17 17" + (b"\r\n" if tty else b"\n")
    whole = before + line + after
    channel, other = (STDOUT, STDERR) if tty else (STDERR, STDOUT)
    last = 0
    for cut in sorted({*cuts, len(whole)}):
        received.feed(channel, whole[last:cut])
        received.feed(other, b".")
        last = max(last, min(cut, len(whole)))
    assert received.reports == ["17 (sh) S 1 17 17"]
    assert received.output[channel] == before + after
    assert set(received.output[other]) == set(b".")


def test_what_comes_before_is_not_held_back() -> None:
    received = Received()
    received.feed(STDERR, b"warning\n")
    assert received.output[STDERR] == b"warning\n"
    received.feed(STDERR, b"a")
    received.feed(STDERR, b"a")
    assert received.output[STDERR] == b"warning\n"
    received.feed(STDERR, b"c")
    assert received.output[STDERR] == b"warning\naac"
    assert received.reports == []


@pytest.mark.parametrize("begun", [b"", b"aa", b"aab 17 (s"])
def test_a_status_or_the_end_instead_of_a_report_loses_nothing(begun: bytes) -> None:
    received = Received()
    received.feed(STDERR, begun)
    received.feed(ERROR, SUCCESS)
    assert [type(each) for each in received.others] == [Status]
    assert received.output[STDERR] == begun
    received.take(received.codec.receive_eof())
    assert received.reports == [None]

    received = Received()
    received.feed(STDERR, begun)
    received.take(received.codec.receive_eof())
    assert (received.output[STDERR], received.reports) == (begun, [None])


def test_only_the_first_report_is_one() -> None:
    received = Received()
    for _ in range(2):
        received.feed(STDERR, b"aab 17\n")
    assert received.reports == ["17"]
    assert received.output[STDERR] == b"aab 17\n"
