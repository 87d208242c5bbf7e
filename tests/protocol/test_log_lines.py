"""What is recognised of a log that is sent again: each line is given out once, whatever came between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import LocalProtocolError
from kubews.protocol.events import Data
from kubews.protocol.loglines import Given, Repeated
from kubews.protocol.logs import LOG, LogCodec
from kubews.protocol.requests import log_path

START = 1_600_000_000  # 2020-09-13T12:26:40Z


def line(second: float, text: str, zone: str = "Z") -> bytes:
    seconds, rest = divmod(round((second + 12 * 3600 + 26 * 60 + 40) * 1e9), 10**9)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"2020-09-13T{hours:02}:{minutes:02}:{seconds:02}.{rest:09}{zone} {text}\n".encode()


def sent_again(lines: list[bytes], since: str) -> list[bytes]:
    """Return what a kubelet sends from a moment on."""
    return [each for each in lines if each[:19].decode() + "Z" >= since]


def resumed(
    file: list[bytes], delivered: int, rotated: int = 0, begin: int = 0
) -> tuple[list[bytes], Repeated]:
    """Give out some lines, then all that a server sends again, without what was rotated away."""
    given_out = Given()
    out = [given_out.take(each) for each in file[begin:delivered]]
    repeated = given_out.repeated()
    for each in sent_again(file[rotated:], given_out.since):
        if repeated.done or not repeated.has(each):
            out.append(given_out.take(each))
    return out, repeated


FILE = [line(second / 4, f"line {second // 2}") for second in range(60)]


def texts(lines: list[bytes]) -> list[bytes]:
    return [each.partition(b" ")[2] for each in lines]


@pytest.mark.parametrize("delivered", range(61))
def test_each_line_once_wherever_it_was_cut_r51(delivered: int) -> None:
    out, repeated = resumed(FILE, delivered)
    assert out == texts(FILE)
    assert not repeated.gap


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), max_size=40).map(
        lambda pairs: [line(second, text) for second, text in sorted(pairs, key=lambda p: p[0])]
    ),
    st.data(),
)
def test_equal_lines_and_shared_stamps_r51(file: list[bytes], data: st.DataObject) -> None:
    delivered = data.draw(st.integers(0, len(file)))
    out, repeated = resumed(file, delivered)
    assert out == texts(file)
    assert not repeated.gap


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30).map(sorted), st.data())
def test_what_lies_before_a_tail_does_not_come_r51(seconds: list[int], data: st.DataObject) -> None:
    """Neither if lines share their stamps."""
    file = [line(second, f"line {number}") for number, second in enumerate(seconds)]
    begin = data.draw(st.integers(0, len(file) - 1))
    delivered = data.draw(st.integers(begin + 1, len(file)))
    out, repeated = resumed(file, delivered, begin=begin)
    assert out == texts(file[begin:])
    assert not repeated.gap


@pytest.mark.parametrize("rotated", range(30, 61))
@pytest.mark.parametrize("begin", [0, 37])
def test_what_was_rotated_away_is_told_r51(rotated: int, begin: int) -> None:
    """Of 40 lines that were given out: nothing is doubled, and where the last of them is gone there is a gap."""
    out, repeated = resumed(FILE, 40, rotated, begin)
    assert out == texts(FILE[begin:40] + FILE[max(rotated, 40) :])
    repeated.end()
    assert repeated.gap is (rotated >= 40)


def test_a_line_that_is_older_than_the_one_before_it() -> None:
    """Two threads of a runtime write one file."""
    file = [line(0.9, "a"), line(1.1, "b"), line(0.99, "c"), line(1.2, "d"), line(0.98, "e")]
    for delivered in range(6):
        out, repeated = resumed(file, delivered)
        assert out == texts(file)
        assert not repeated.gap


def test_the_rest_of_a_long_line_is_not_given_out_again() -> None:
    given_out = Given()
    given_out.take(line(5, "long"))
    given_out.take(line(9, "last"))
    repeated = given_out.repeated()
    assert repeated.has(b"rest of long\n")
    assert repeated.has(line(9, "last"))
    assert repeated.done
    assert not repeated.gap
    assert Given().take(b"rest of long\n") == b"rest of long\n"


def test_a_clock_that_was_set_back_is_a_gap() -> None:
    given_out = Given()
    for second in (100, 101, 10):
        given_out.take(line(second, "x"))
    assert given_out.since == "2020-09-13T12:26:50Z"
    repeated = given_out.repeated()
    assert not repeated.has(line(100, "x"))
    assert repeated.gap


def test_a_clock_that_goes_back_step_by_step() -> None:
    """What is older than a second that was forgotten is not asked for again."""
    given_out = Given()
    for second in (5, 8, 6, 4):
        given_out.take(line(second, "x"))
    assert given_out.since == "2020-09-13T12:26:46Z"
    repeated = given_out.repeated()
    for count, second in enumerate((8, 6)):
        assert (repeated.position, repeated.done) == (count, False)
        assert repeated.has(line(second, "x"))
    assert (repeated.position, repeated.done, repeated.gap) == (2, True, False)


def test_stamps_of_a_node_elsewhere() -> None:
    given_out = Given()
    assert (given_out.since, given_out.stamp) == ("", "")
    assert given_out.take(line(0, "x", "+02:00")) == b"x\n"
    assert given_out.since == "2020-09-13T10:26:40Z"
    assert given_out.stamp == "2020-09-13T12:26:40.000000000+02:00"
    assert (
        given_out.take(b"2020-99-99T12:26:40.5Z no moment\n")
        == b"2020-99-99T12:26:40.5Z no moment\n"
    )


def test_memory_is_that_of_the_last_seconds() -> None:
    given_out = Given()
    for second in range(3600):
        given_out.take(line(second, "x"))
    assert len(given_out.repeated()._expected) <= 3


def test_the_codec_knows_data_only() -> None:
    codec = LogCodec("binary.k8s.io")
    assert codec.receive(b"") == []
    assert codec.receive(b"\x01\xff") == [Data(LOG, memoryview(b"\x01\xff"))]
    assert codec.receive(b"more", start=False) == [Data(LOG, memoryview(b"more"))]
    assert codec.receive_eof() == []
    for send in (lambda: codec.data_to_send(LOG, b""), lambda: codec.end_to_send(LOG)):
        with pytest.raises(LocalProtocolError, match="takes no input"):
            send()


def test_the_path_leaves_out_what_is_not_asked_for() -> None:
    assert log_path("a b", "c/d") == "/api/v1/namespaces/a%20b/pods/c%2Fd/log"
    path = log_path("n", "p", container="c", follow=True, previous=False, tailLines=0, sinceTime="")
    assert path == "/api/v1/namespaces/n/pods/p/log?container=c&follow=true&tailLines=0"
