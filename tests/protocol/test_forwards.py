"""Forwarded connections in the same words, whichever protocol carries them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import LocalProtocolError, RemoteProtocolError, StreamBroken
from kubews.protocol.events import Data, End, GoAway, Opened, Pong, Reset
from kubews.protocol.forwarding import OFFER
from kubews.protocol.forwards import Finished, Forwards, PairForwards, TunnelForwards, forwards
from kubews.protocol.spdy import CANCEL, SUBPROTOCOL, Session

V4 = "v4.channel.k8s.io"
MAX_TEXT = 16 * 1024


class Pod:
    """The server's end of a tunnel, which accepts every stream."""

    def __init__(self, tunnel: Forwards) -> None:
        self.tunnel = tunnel
        self.session = Session(server=True)
        #: The headers of each stream.
        self.streams: dict[int, Any] = {}

    def take(self) -> list[Any]:
        """Read what the client has left to send; return what else than new streams was in it."""
        events = self.session.receive(self.tunnel.pending_to_send())
        for event in events:
            if isinstance(event, Opened):
                self.streams[event.stream_id] = event.headers
                self.session.reply(event.stream_id)
        return [event for event in events if not isinstance(event, Opened)]

    def tell(self, *frames: bytes) -> list[Any]:
        """Send frames in one payload behind what is pending."""
        payload = self.session.pending_to_send() + b"".join(frames)
        return plain(self.tunnel.receive(payload, start=True))

    def reset(self, stream_id: int) -> list[Any]:
        self.session.reset(stream_id, CANCEL)
        return self.tell()

    def data(self, stream_id: int, data: bytes = b"", *, fin: bool = False) -> bytes:
        return self.session.data_to_send(stream_id, data, fin=fin)


def plain(events: list[Any]) -> list[Any]:
    """Events to compare, with data as bytes and in one piece."""
    result: list[Any] = []
    for event in events:
        if not isinstance(event, Data):
            result.append(event)
        elif result and isinstance(result[-1], tuple) and result[-1][0] == event.stream_id:
            result[-1] = (event.stream_id, result[-1][1] + bytes(event.payload))
        else:
            result.append((event.stream_id, bytes(event.payload)))
    return result


def opened(count: int = 1) -> tuple[TunnelForwards, Pod, list[tuple[int, int]]]:
    """Return a tunnel, its server, and the ids of data and error stream of some connections to port 80."""
    tunnel = TunnelForwards()
    pod = Pod(tunnel)
    ids = []
    for _ in range(count):
        data = tunnel.open(80)
        pod.take()
        (error,) = [
            stream_id
            for stream_id, headers in pod.streams.items()
            if headers["streamtype"] == "error"
            and headers["requestid"] == pod.streams[data]["requestid"]
        ]
        ids.append((data, error))
    assert pod.tell() == []
    return tunnel, pod, ids


# -- which protocol


@pytest.mark.parametrize("name", [SUBPROTOCOL, SUBPROTOCOL.lower(), SUBPROTOCOL.upper()])
def test_the_tunnel_in_any_case(name: str) -> None:
    tunnel = forwards(name, 80)
    assert isinstance(tunnel, TunnelForwards)
    assert (tunnel.lasting, tunnel.subprotocol, tunnel.max_data) == (True, SUBPROTOCOL, 32768)


@pytest.mark.parametrize("name", ["", V4, "v4.base64.channel.k8s.io"])
def test_pairs(name: str) -> None:
    pair = forwards(name, 80)
    assert isinstance(pair, PairForwards)
    assert (pair.lasting, pair.subprotocol, pair.max_data) == (False, name, 32768)


def test_whatever_is_offered_is_understood() -> None:
    for name in OFFER:
        forwards(name, 80)


def test_another_subprotocol() -> None:
    with pytest.raises(LocalProtocolError):
        forwards("v5.channel.k8s.io", 80)


# -- the tunnel


def test_streams_of_a_connection() -> None:
    """R-39: an error stream that this side has ended, and a data stream, with a request of their own."""
    tunnel = TunnelForwards()
    pod = Pod(tunnel)
    first, second = tunnel.open(80), tunnel.open(5432)
    ended = pod.take()
    kinds = [
        (headers["streamtype"], headers["port"], headers["requestid"])
        for headers in pod.streams.values()
    ]
    assert kinds == [
        ("error", "80", "0"),
        ("data", "80", "0"),
        ("error", "5432", "1"),
        ("data", "5432", "1"),
    ]
    errors = [each for each in pod.streams if each not in (first, second)]
    assert ended == [End(each) for each in errors]
    assert tunnel.pending_to_send() == b""
    assert pod.tell() == []


def test_no_such_port() -> None:
    with pytest.raises(LocalProtocolError):
        TunnelForwards().open(0)


def test_data_both_ways_before_anything_is_accepted() -> None:
    tunnel = TunnelForwards()
    pod = Pod(tunnel)
    data = tunnel.open(80)
    payload = tunnel.pending_to_send() + tunnel.data_to_send(data, b"hello")
    events = pod.session.receive(payload + tunnel.end_to_send(data))
    assert plain(events)[-2:] == [(data, b"hello"), End(data)]
    for stream_id in (event.stream_id for event in events if isinstance(event, Opened)):
        pod.session.reply(stream_id)
    assert pod.tell(pod.data(data, b"and more")) == [(data, b"and more")]
    with pytest.raises(StreamBroken):
        tunnel.data_to_send(data, b"x")


def test_the_pod_closes_in_order() -> None:
    """As containerd does it: the error stream ends first."""
    tunnel, pod, [(data, error)] = opened()
    assert pod.tell(pod.data(data, b"bye"), pod.data(error, fin=True)) == [(data, b"bye")]
    assert pod.tell(pod.data(data, fin=True)) == [Finished(data, None)]
    # Our half of the data was open, and nobody would have told the server.
    tunnel.pending_to_send()
    with pytest.raises(StreamBroken):
        tunnel.data_to_send(data, b"late")


def test_the_open_half_is_given_up_once_all_is_over() -> None:
    tunnel, pod, [(data, error)] = opened()
    pod.tell(pod.data(error, fin=True), pod.data(data, fin=True))
    payload = tunnel.pending_to_send()
    assert payload[:4] == bytes.fromhex("80030003")
    assert struct.unpack("!II", payload[8:]) == (data, CANCEL)
    tunnel.reset(data)
    assert tunnel.pending_to_send() == b""


def test_nothing_is_given_up_where_both_halves_have_ended() -> None:
    tunnel, pod, [(data, error)] = opened()
    pod.session.receive(tunnel.end_to_send(data))
    assert pod.tell(pod.data(error, fin=True), pod.data(data, fin=True)) == [Finished(data, None)]
    assert tunnel.pending_to_send() == b""


def test_the_data_ends_first() -> None:
    _, pod, [(data, error)] = opened()
    assert pod.tell(pod.data(data, b"x", fin=True)) == [(data, b"x"), End(data)]
    assert pod.tell(pod.data(error, fin=True)) == [Finished(data, None)]


TEXT = b"error forwarding port 81 to pod 0123, uid : connection refused"


@pytest.mark.parametrize(
    "steps",
    [
        ["text", "reset data", "reset error"],  # as containerd does it
        ["reset data", "text", "reset error"],
        ["text", "reset error", "reset data"],
        ["end data", "text", "end error"],
        ["text", "end error", "end data"],
        ["text", "end data", "end error"],
        ["end data", "text", "reset error"],
    ],
    ids=", ".join,
)
def test_a_refused_port(steps: list[str]) -> None:
    """R-39: whatever the order, the text is told once all is over, and once."""
    tunnel, pod, [(data, error)] = opened()
    told: list[Any] = []
    for step in steps:
        told += {
            "text": lambda: pod.tell(pod.data(error, TEXT)),
            "reset data": lambda: pod.reset(data),
            "reset error": lambda: pod.reset(error),
            "end data": lambda: pod.tell(pod.data(data, fin=True)),
            "end error": lambda: pod.tell(pod.data(error, fin=True)),
        }[step]()
    assert told.pop() == Finished(data, TEXT.decode())
    assert told in ([], [End(data)])
    assert tunnel.can_open


def test_a_reset_without_a_text_is_a_failure() -> None:
    _, pod, [(data, error)] = opened()
    assert pod.reset(data) == [End(data)]
    assert pod.reset(error) == [Finished(data, "the server reset it")]


def test_a_connection_that_is_never_told_to_be_over() -> None:
    """Half a word is enough to say that the rest is owed, and what is known is told when it is late."""
    tunnel, pod, [plainly, refused, reset, lost] = opened(4)
    assert pod.tell(pod.data(plainly[0], fin=True)) == [End(plainly[0])]
    assert tunnel.conclude(plainly[0]) == Finished(plainly[0], None)
    assert pod.tell(pod.data(refused[1], TEXT, fin=True)) == [End(refused[0])]
    assert tunnel.conclude(refused[0]) == Finished(refused[0], TEXT.decode())
    assert pod.reset(reset[0]) == [End(reset[0])]
    assert tunnel.conclude(reset[0]) == Finished(reset[0], "the server reset it")
    assert pod.reset(lost[1]) == [End(lost[0])]
    assert tunnel.conclude(lost[0]) == Finished(lost[0], "the server reset it")


def test_an_error_stream_that_ends_without_a_text_says_nothing() -> None:
    _, pod, [(data, error)] = opened()
    assert pod.tell(pod.data(error, fin=True)) == []
    assert pod.tell(pod.data(data, b"still")) == [(data, b"still")]


def test_what_comes_after_the_end_is_ignored() -> None:
    _, pod, [(data, error), (other, _)] = opened(2)
    pod.tell(pod.data(error, fin=True))
    late = [pod.data(data, b"late"), pod.data(data, b"late", fin=True)]
    assert pod.tell(pod.data(other)) == []
    assert pod.reset(data) == [Finished(data, "the server reset it")]
    assert pod.tell(*late) == []
    assert pod.tell(pod.data(other, b"x")) == [(other, b"x")]


def test_a_reset_behind_the_end_in_the_same_frame() -> None:
    _, pod, [(data, error)] = opened()
    ends = [pod.data(error, fin=True), pod.data(data, fin=True)]
    reset = b"\x80\x03\x00\x03\x00\x00\x00\x08" + struct.pack("!II", data, CANCEL)
    assert pod.tell(*ends, reset) == [Finished(data, None)]


def test_a_connection_that_is_given_up() -> None:
    tunnel, pod, [(data, error), (other, _)] = opened(2)
    tunnel.reset(data)
    tunnel.reset(data)
    reset = tunnel.pending_to_send()
    assert tunnel.pending_to_send() == b""
    # The server has not heard of it yet.
    assert pod.tell(pod.data(data, b"x"), pod.data(error, TEXT), pod.data(other, b"y")) == [
        (other, b"y")
    ]
    assert pod.session.receive(reset) == [Reset(data, CANCEL), Reset(error, CANCEL)]
    tunnel.reset(99)
    assert tunnel.pending_to_send() == b""


def test_a_stream_given_up_that_is_only_now_accepted() -> None:
    """Its headers are part of the compressed whole; nothing of it is told."""
    tunnel = TunnelForwards()
    pod = Pod(tunnel)
    first = tunnel.open(80)
    pod.take()
    tunnel.reset(first)
    assert pod.tell() == []
    second = tunnel.open(81)
    pod.take()
    assert pod.tell(pod.data(second, b"x")) == [(second, b"x")]


def test_a_long_error_text_is_kept_in_part() -> None:
    _, pod, [(data, error)] = opened()
    assert pod.tell(*[pod.data(error, b"x" * 10_000) for _ in range(5)]) == []
    assert pod.tell(pod.data(error, fin=True)) == [End(data)]
    assert pod.tell(pod.data(data, fin=True)) == [Finished(data, "x" * MAX_TEXT)]


def test_an_error_text_that_is_no_text() -> None:
    _, pod, [(data, error)] = opened()
    pod.tell(pod.data(error, b"\xffno", fin=True))
    assert pod.tell(pod.data(data, fin=True)) == [Finished(data, "\ufffdno")]


def test_pings_are_numbered_one_two_three() -> None:
    tunnel, pod, _ = opened()
    assert [tunnel.ping() for _ in range(3)] == [1, 2, 3]
    assert pod.take() == []
    assert pod.tell() == [Pong(1), Pong(2), Pong(3)]


def test_the_pings_of_the_server_are_answered() -> None:
    _, pod, _ = opened()
    pod.session.ping()
    assert pod.tell() == []
    assert pod.take() == [Pong(2)]


def test_goaway() -> None:
    tunnel, pod, [(data, _)] = opened()
    pod.session.goaway()
    (event,) = pod.tell()
    assert isinstance(event, GoAway)
    assert not tunnel.can_open
    with pytest.raises(LocalProtocolError):
        tunnel.open(80)
    assert pod.tell(pod.data(data, b"x")) == [(data, b"x")]


def test_the_end_of_the_websocket_is_no_end_of_a_tunnels_connection() -> None:
    tunnel, _, _ = opened()
    assert tunnel.closed() == []


def test_nonsense() -> None:
    tunnel, _, _ = opened()
    with pytest.raises(RemoteProtocolError):
        tunnel.receive(b"\x80\x03\x00\x05" + bytes(8), start=True)


ACTIONS = ["data", "text", "end data", "end error", "reset data", "reset error", "ping"]


@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.binary(max_size=20))),
    st.data(),
)
def test_however_the_bytes_are_cut_the_same_is_told(actions: Any, drawn: Any) -> None:
    """And each connection is over once, with all its data before, and with its text."""
    whole, pod, ids = opened(3)
    cut, _, _ = opened(3)
    whole.ping()
    pod.take()
    cut.ping()
    cut.pending_to_send()
    payload, expected = pod.session.pending_to_send(), list[Any]()
    expected += plain(whole.receive(payload, start=True))
    for action, number, data in actions:
        stream = ids[number]["error" in action or action == "text"]
        try:
            if action in ("data", "text"):
                piece = pod.data(stream, data)
            elif action.startswith("end"):
                piece = pod.data(stream, fin=True)
            elif action == "ping":
                pod.session.ping()
                piece = pod.session.pending_to_send()
            else:
                pod.session.reset(stream)
                piece = pod.session.pending_to_send()
        except StreamBroken:
            continue
        payload += piece
        expected += whole.receive(piece, start=True)
    places = sorted(drawn.draw(st.lists(st.integers(0, len(payload)), max_size=8)))
    told: list[Any] = []
    for start, stop in zip([0, *places], [*places, len(payload)], strict=True):
        # Of the frames of a WebSocket the tunnel knows nothing.
        told += cut.receive(payload[start:stop], start=not told)
    assert plain(told) == plain(expected)
    assert cut.pending_to_send() == whole.pending_to_send()
    for number, (data_id, _) in enumerate(ids):
        mine = [each for each in told if getattr(each, "stream_id", None) == data_id]
        finished = [each for each in mine if isinstance(each, Finished)]
        assert finished == mine[-1:] or not finished, number
        assert len([each for each in mine if isinstance(each, End)]) <= 1


# -- channel pairs


def pair(subprotocol: str = V4) -> tuple[PairForwards, int]:
    """Return one whose headers have come, and the id of its only connection."""
    made = PairForwards(subprotocol, 80)
    stream_id = made.open(80)
    assert made.receive(b"\x00\x50\x00", start=True) == []
    assert made.receive(b"\x01\x50\x00", start=True) == []
    return made, stream_id


def test_a_pair_is_one_connection() -> None:
    made = PairForwards(V4, 80)
    with pytest.raises(LocalProtocolError, match="for port 80, once"):
        made.open(81)
    before = made.can_open
    assert made.open(80) == 0
    assert (before, made.can_open) == (True, False)
    with pytest.raises(LocalProtocolError, match="another needs a WebSocket of its own"):
        made.open(80)


def test_data_of_a_pair() -> None:
    made, stream_id = pair()
    assert plain(made.receive(b"\x00hello", start=True)) == [(stream_id, b"hello")]
    assert plain(made.receive(b" you", start=False)) == [(stream_id, b" you")]
    assert made.data_to_send(stream_id, b"hi") == b"\x00hi"
    assert made.pending_to_send() == b""


def test_the_end_of_a_pairs_bytes_cannot_be_told() -> None:
    made, stream_id = pair()
    with pytest.raises(LocalProtocolError):
        made.end_to_send(stream_id)
    made.reset(stream_id)
    assert made.pending_to_send() == b""
    assert made.data_to_send(stream_id, b"hi") == b"\x00hi"


def test_a_pair_has_no_pings() -> None:
    made, _ = pair()
    assert made.ping() is None
    assert made.pending_to_send() == b""


def test_the_end_of_the_websocket_is_the_end_of_a_pair() -> None:
    made, stream_id = pair()
    assert made.closed() == [Finished(stream_id, None)]


def test_a_pairs_error_text() -> None:
    """R-39: told with the end, and in part if it is long."""
    made, stream_id = pair()
    assert made.receive(b"\x01" + TEXT, start=True) == []
    assert plain(made.receive(b"\x00x", start=True)) == [(stream_id, b"x")]
    assert made.conclude(stream_id) == Finished(stream_id, TEXT.decode())
    assert made.closed() == [Finished(stream_id, TEXT.decode())]
    made, stream_id = pair()
    for _ in range(5):
        made.receive(b"\x01" + b"x" * 10_000, start=True)
    assert made.closed() == [Finished(stream_id, "x" * MAX_TEXT)]


def test_data_of_a_pair_that_nobody_asked_for() -> None:
    made = PairForwards(V4, 80)
    for header in (b"\x00\x50\x00", b"\x01\x50\x00", b"\x01text"):
        assert made.receive(header, start=True) == []
    with pytest.raises(RemoteProtocolError, match="before the connection was asked for"):
        made.receive(b"\x00x", start=True)


def test_a_pair_for_another_port() -> None:
    made = PairForwards(V4, 80)
    with pytest.raises(RemoteProtocolError):
        made.receive(b"\x00\x51\x00", start=True)
