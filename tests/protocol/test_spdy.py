"""The SPDY session: both roles against each other, and each against frames made by hand."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kubews.errors import LocalProtocolError, RemoteProtocolError, StreamBroken
from kubews.protocol import spdy_frames as frames
from kubews.protocol.codec import Codec
from kubews.protocol.events import Data, End, GoAway, Opened, Pong, Reset
from kubews.protocol.spdy import (
    CANCEL,
    GOAWAY_PROTOCOL_ERROR,
    MAX_DATA,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SUBPROTOCOL,
    Session,
)
from kubews.protocol.spdy_headers import Decoder, Encoder

PORT = {"port": "80"}


def plain(events: list[Any]) -> list[Any]:
    """Events with copies of their payloads, to compare."""
    return [
        (event.stream_id, bytes(event.payload)) if isinstance(event, Data) else event
        for event in events
    ]


def pair(streams: int = 1) -> tuple[Session, Session]:
    """Return a client and a server with so many accepted streams, and nothing left to send."""
    client, server = Session(), Session(server=True)
    for _ in range(streams):
        stream = client.open(PORT)
        server.receive(client.pending_to_send())
        server.reply(stream)
        client.receive(server.pending_to_send())
    return client, server


def client_frames(client: Session) -> bytes:
    client.open(PORT)
    return client.pending_to_send()


def syn_stream(encoder: Encoder, stream_id: int, fin: bool = False) -> bytes:
    return frames.syn_stream(stream_id, encoder.encode(PORT), fin)


def halves(session: Session) -> int:
    """Count what a session remembers of streams."""
    return len(session._sending | session._receiving | session._unanswered)


def test_example() -> None:
    client, server = Session(), Session(server=True)
    stream = client.open({"port": "80"})
    assert server.receive(client.pending_to_send()) == [Opened(1, {"port": "80"})]
    server.reply(stream)
    assert client.receive(server.pending_to_send()) == [Opened(1, {})]
    assert plain(server.receive(client.data_to_send(stream, b"hi"))) == [(1, b"hi")]
    assert server.receive(client.end_to_send(stream)) == [End(1)]


def test_names() -> None:
    session = Session()
    assert session.subprotocol == SUBPROTOCOL == "SPDY/3.1+portforward.k8s.io"
    assert session.names[7] == "stream 7"
    assert dict(session.names) == {}
    assert session.max_data == MAX_DATA == 32768
    # All that a connection asks of a codec is there.
    assert all(hasattr(session, name) for name in vars(Codec) if not name.startswith("_"))


@pytest.mark.parametrize("server", [False, True])
def test_nothing_to_say(server: bool) -> None:
    session = Session(server=server)
    assert session.pending_to_send() == b""
    assert session.receive(b"") == []
    assert session.receive_eof() == []


# -- opening


def test_ids_are_odd_and_grow() -> None:
    client = Session()
    assert [client.open(PORT) for _ in range(5)] == [1, 3, 5, 7, 9]


def test_several_frames_in_one_message() -> None:
    """A forwarded connection is opened by one message: two frames, and not one more."""
    client, server = Session(), Session(server=True)
    client.open({"streamtype": "error"}, fin=True)
    client.open({"streamtype": "data"})
    payload = client.pending_to_send()
    assert [type(frame) for frame in frames.Framer().receive(payload)] == [frames.SynStream] * 2
    assert server.receive(payload) == [
        Opened(1, {"streamtype": "error"}),
        End(1),
        Opened(3, {"streamtype": "data"}),
    ]
    assert client.pending_to_send() == b""


def test_headers_of_a_reply_and_its_end() -> None:
    client, server = Session(), Session(server=True)
    server.receive(client_frames(client))
    server.reply(1, {"x": "y"})
    assert client.receive(server.pending_to_send()) == [Opened(1, {"x": "y"})]
    client.open(PORT)
    block = server._encoder.encode({})
    reply = struct.pack(">III", 0x80030002, 0x01000000 | 4 + len(block), 3) + block
    assert client.receive(reply) == [Opened(3, {}), End(3)]
    assert plain(client.receive(frames.data(3, b"x"))) == []


def test_what_is_opened_without_more_to_send_takes_no_data() -> None:
    client = Session()
    stream = client.open(PORT, fin=True)
    with pytest.raises(StreamBroken, match="stream 1 takes no more data"):
        client.data_to_send(stream, b"x")


def test_data_may_follow_before_the_stream_is_accepted() -> None:
    client, server = Session(), Session(server=True)
    stream = client.open(PORT)
    payload = client.pending_to_send() + client.data_to_send(stream, b"x", fin=True)
    assert plain(server.receive(payload)) == [Opened(1, PORT), (1, b"x"), End(1)]


def test_nothing_may_be_sent_on_a_stream_that_was_not_accepted() -> None:
    """Kubernetes' end drops data that comes before its SYN_REPLY."""
    client, server = Session(), Session(server=True)
    server.receive(client_frames(client))
    with pytest.raises(LocalProtocolError, match="not been accepted"):
        server.data_to_send(1, b"x")
    server.reply(1)
    assert server.data_to_send(1, b"x")


@pytest.mark.parametrize("stream_id", [-1, 0, 2, 3, 1 << 31])
def test_streams_that_were_never_opened(stream_id: int) -> None:
    client, server = pair()
    for session in (client, server):
        with pytest.raises(LocalProtocolError, match="there is no stream"):
            session.data_to_send(stream_id, b"x")
        with pytest.raises(LocalProtocolError, match="there is no stream"):
            session.end_to_send(stream_id)
        session.reset(stream_id)
        assert session.pending_to_send() == b""


def test_only_the_client_opens_and_only_the_server_accepts() -> None:
    client, server = pair()
    assert not server.can_open
    with pytest.raises(LocalProtocolError, match="by the client"):
        server.open(PORT)
    stream = client.open(PORT)
    with pytest.raises(LocalProtocolError, match="does not wait"):
        client.reply(stream)
    for stream_id in (1, 3, 5):  # accepted already, or never opened as far as it knows
        with pytest.raises(LocalProtocolError, match="does not wait"):
            server.reply(stream_id)


def test_the_last_id() -> None:
    client = Session()
    client._last_id = frames.MAX_STREAM_ID - 2
    assert client.can_open
    assert client.open(PORT) == 0x7FFFFFFF
    assert not client.can_open
    with pytest.raises(LocalProtocolError, match="another is needed"):
        client.open(PORT)
    client.pending_to_send()
    assert plain(client.receive(frames.data(0x7FFFFFFF, b"x"))) == [(0x7FFFFFFF, b"x")]


def test_headers_that_are_too_large_open_nothing() -> None:
    client, server = Session(), Session(server=True)
    with pytest.raises(LocalProtocolError, match="bytes of headers"):
        client.open({"x": "y" * 70_000})
    assert client.pending_to_send() == b""
    assert server.receive(client_frames(client)) == [Opened(1, PORT)]
    with pytest.raises(LocalProtocolError, match="bytes of headers"):
        server.reply(1, {"x": "y" * 70_000})
    server.reply(1)
    assert client.receive(server.pending_to_send()) == [Opened(1, {})]


@pytest.mark.parametrize("bad", [1, 3, 5, 6])
def test_an_id_that_does_not_grow(bad: int) -> None:
    """As Kubernetes' end has it: RST_STREAM 1, and the headers are read all the same."""
    server, encoder = Session(server=True), Encoder()
    server.receive(syn_stream(encoder, 3) + syn_stream(encoder, 5))
    assert server.receive(syn_stream(encoder, bad)) == []
    assert server.pending_to_send() == frames.rst_stream(bad, PROTOCOL_ERROR)
    assert server.receive(syn_stream(encoder, 7)) == [Opened(7, PORT)]
    # What was opened under that id before is not touched.
    assert plain(server.receive(frames.data(5, b"x"))) == [(5, b"x")]


def test_gaps_and_even_ids_are_borne_with() -> None:
    server, encoder = Session(server=True), Encoder()
    for stream_id in (2, 5, 1000, 0x7FFFFFFF):
        assert server.receive(syn_stream(encoder, stream_id)) == [Opened(stream_id, PORT)]
    assert server.pending_to_send() == b""


def test_a_server_that_opens_a_stream_is_refused() -> None:
    client, encoder = Session(), Encoder()
    client.open(PORT)
    client.pending_to_send()
    assert client.receive(syn_stream(encoder, 2)) == []
    assert client.pending_to_send() == frames.rst_stream(2, REFUSED_STREAM)
    assert client.receive(frames.data(2, b"x", True)) == []
    assert client.receive(frames.syn_reply(1, encoder.encode({}))) == [Opened(1, {})]


# -- data and ends


def test_data_both_ways() -> None:
    client, server = pair(2)
    for stream in (1, 3):
        for data in (b"x", bytes(MAX_DATA), b""):
            expected = [(stream, data)] if data else []
            assert plain(server.receive(client.data_to_send(stream, data))) == expected
            assert plain(client.receive(server.data_to_send(stream, data))) == expected


def test_data_is_one_frame() -> None:
    client, _ = pair()
    assert client.data_to_send(1, b"hi") == bytes.fromhex("00000001 00000002 6869")
    assert client.data_to_send(1, b"hi", fin=True) == bytes.fromhex("00000001 01000002 6869")


def test_the_end_is_one_frame_without_data() -> None:
    client, _ = pair()
    assert client.end_to_send(1) == bytes.fromhex("00000001 01000000")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: Any) -> None:
    client, server = pair()
    assert plain(server.receive(kind(client.data_to_send(1, kind(b"ab"))))) == [(1, b"ab")]


def test_data_is_not_copied() -> None:
    client, server = pair()
    (event,) = server.receive(payload := client.data_to_send(1, b"ab"))
    assert isinstance(event, Data)
    assert event.payload.obj is payload


def test_too_much_for_one_frame() -> None:
    client, _ = pair()
    with pytest.raises(LocalProtocolError, match="32769 bytes"):
        client.data_to_send(1, bytes(MAX_DATA + 1))
    with pytest.raises(LocalProtocolError, match="32776 bytes"):
        client.data_to_send(1, memoryview(bytes(MAX_DATA + 8)).cast("Q"))
    assert client.data_to_send(1, b"x")


def test_half_close() -> None:
    """R-41: what is sent after the other side's end arrives, in both directions."""
    client, server = pair(2)
    assert server.receive(client.end_to_send(1)) == [End(1)]
    assert plain(client.receive(server.data_to_send(1, b"tail"))) == [(1, b"tail")]
    assert client.receive(server.end_to_send(1)) == [End(1)]
    assert client.receive(server.end_to_send(3)) == [End(3)]
    assert plain(server.receive(client.data_to_send(3, b"tail", fin=True))) == [
        (3, b"tail"),
        End(3),
    ]
    for session in (client, server):
        assert halves(session) == 0
        for stream in (1, 3):
            with pytest.raises(StreamBroken, match=f"stream {stream}"):
                session.data_to_send(stream, b"x")
            with pytest.raises(StreamBroken, match=f"stream {stream}"):
                session.end_to_send(stream)


def test_nothing_is_told_after_the_end() -> None:
    client, server = pair()
    client.receive(server.end_to_send(1))
    for late in (frames.data(1, b"late"), frames.data(1, b"", True), frames.data(1, b"x", True)):
        assert client.receive(late) == []


def test_data_of_streams_that_never_were() -> None:
    client, _ = pair()
    assert client.receive(frames.data(99, b"x", True)) == []
    assert client.pending_to_send() == b""


# -- reset


def test_reset_by_either_side() -> None:
    client, server = pair(2)
    client.reset(1)
    assert client.pending_to_send() == (payload := frames.rst_stream(1, CANCEL))
    assert server.receive(payload) == [Reset(1, CANCEL)]
    server.reset(3, 6)
    assert client.receive(server.pending_to_send()) == [Reset(3, 6)]
    for session in (client, server):
        assert halves(session) == 0
        for stream in (1, 3):
            with pytest.raises(StreamBroken):
                session.data_to_send(stream, b"x")
            session.reset(stream)
        assert session.pending_to_send() == b""
        assert session.receive(frames.rst_stream(1, CANCEL) + frames.rst_stream(99, 1)) == []


def test_what_comes_for_a_stream_that_was_reset_is_ignored() -> None:
    client, server = pair()
    client.reset(1)
    assert client.receive(server.data_to_send(1, b"late") + server.end_to_send(1)) == []
    # The server has not heard of it yet, and its half that is open is reset too.
    assert server.receive(client.pending_to_send()) == [Reset(1, CANCEL)]


def test_a_stream_that_has_ended_both_ways_is_not_reset() -> None:
    client, server = pair()
    server.receive(client.end_to_send(1))
    client.receive(server.end_to_send(1))
    client.reset(1)
    assert client.pending_to_send() == b""


@pytest.mark.parametrize("ended", ["client", "server"])
def test_reset_of_a_half(ended: str) -> None:
    client, server = pair()
    if ended == "client":
        server.receive(client.end_to_send(1))
    else:
        client.receive(server.end_to_send(1))
    client.reset(1)
    assert server.receive(client.pending_to_send()) == [Reset(1, CANCEL)]


def test_refused_instead_of_accepted() -> None:
    """What Kubernetes' end does if ``port`` or ``streamtype`` is bad; the connection stays usable."""
    client, server = Session(), Session(server=True)
    server.receive(client_frames(client))
    server.reset(1)
    assert client.receive(server.pending_to_send()) == [Reset(1, CANCEL)]
    with pytest.raises(LocalProtocolError, match="does not wait"):
        server.reply(1)
    assert server.receive(client_frames(client)) == [Opened(3, PORT)]


def test_the_reply_of_an_abandoned_stream_is_decompressed() -> None:
    """Else the header blocks of all later streams are garbage."""
    client, server = Session(), Session(server=True)
    server.receive(client_frames(client))
    client.reset(1)
    server.reply(1, {"long": "and unlike anything before it" * 20})
    assert client.receive(server.pending_to_send()) == []
    assert server.receive(client.pending_to_send()) == [Reset(1, CANCEL)]
    server.receive(client_frames(client))
    server.reply(3, {"long": "and unlike anything before it" * 20})
    (event,) = client.receive(server.pending_to_send())
    assert isinstance(event, Opened)
    assert len(event.headers["long"]) == 580


def test_replies_that_say_nothing() -> None:
    """A second one, one for no stream, one to a server, and headers in mid-stream."""
    client, server = pair()
    encoder = server._encoder
    assert client.receive(frames.syn_reply(1, encoder.encode(PORT))) == []
    assert client.receive(frames.syn_reply(99, encoder.encode(PORT))) == []
    headers = encoder.encode(PORT)
    frame = struct.pack(">III", 0x80030008, 4 + len(headers), 1) + headers
    assert client.receive(frame) == []
    headers = encoder.encode(PORT)
    frame = struct.pack(">III", 0x80030008, 0x01000000 | 4 + len(headers), 1) + headers
    assert client.receive(frame) == [End(1)]
    client.open(PORT)
    assert client.receive(frames.syn_reply(3, encoder.encode(PORT))) == [Opened(3, PORT)]
    server.receive(client.pending_to_send())
    assert server.receive(frames.syn_reply(3, client._encoder.encode(PORT))) == []


# -- ping and goaway


def test_ping() -> None:
    client, server = pair()
    assert [client.ping(), client.ping()] == [1, 3]
    assert client.pending_to_send() == frames.ping(1) + frames.ping(3)
    assert server.receive(frames.ping(1) + frames.ping(3)) == []
    assert server.pending_to_send() == (answers := frames.ping(1) + frames.ping(3))
    assert client.receive(answers) == [Pong(1), Pong(3)]
    # Nobody asked for these.
    assert client.receive(answers + frames.ping(99)) == []
    assert client.pending_to_send() == b""


def test_ping_by_the_server() -> None:
    client, server = pair()
    assert [server.ping(), server.ping()] == [2, 4]
    assert client.receive(server.pending_to_send() + frames.ping(0xFFFFFFFE)) == []
    answers = client.pending_to_send()
    assert answers == frames.ping(2) + frames.ping(4) + frames.ping(0xFFFFFFFE)
    assert server.receive(answers) == [Pong(2), Pong(4)]


@pytest.mark.parametrize(("server", "first"), [(False, 1), (True, 2)])
def test_ping_ids_begin_again(server: bool, first: int) -> None:
    session = Session(server=server)
    session._last_ping = 0x7FFFFFFF - (2 if not server else 3)
    assert session.ping() == 0x7FFFFFFF - server
    assert session.ping() == first


def test_order_of_what_is_to_be_sent() -> None:
    client, _ = pair()
    client.receive(frames.ping(2))
    client.ping()
    client.open(PORT)
    client.reset(1)
    client.goaway()
    sent = list(frames.Framer().receive(client.pending_to_send()))
    assert [type(frame) for frame in sent] == [
        frames.Ping,
        frames.Ping,
        frames.SynStream,
        frames.RstStream,
        frames.GoAwayFrame,
    ]
    assert [frame.ping_id for frame in sent if isinstance(frame, frames.Ping)] == [2, 1]


def test_goaway_of_the_server() -> None:
    client, server = pair(2)
    server.goaway()
    assert server.pending_to_send() == (payload := frames.goaway(3, 0))
    assert client.receive(payload) == [GoAway(3, 0)]
    assert not client.can_open
    with pytest.raises(LocalProtocolError, match="another is needed"):
        client.open(PORT)
    # What is open goes on.
    assert plain(client.receive(server.data_to_send(3, b"x"))) == [(3, b"x")]
    assert plain(server.receive(client.data_to_send(3, b"x"))) == [(3, b"x")]


def test_goaway_of_the_client() -> None:
    client, server = pair()
    client.goaway(GOAWAY_PROTOCOL_ERROR)
    assert client.pending_to_send() == frames.goaway(0, 1)
    assert not client.can_open
    assert server.receive(frames.goaway(0, 1)) == [GoAway(0, 1)]
    assert plain(server.receive(client.data_to_send(1, b"x"))) == [(1, b"x")]


def test_streams_opened_behind_a_goaway_are_ignored() -> None:
    client, server = pair()
    client.open(PORT)
    client.open(PORT)
    server.goaway()
    payload = client.pending_to_send() + client.data_to_send(3, b"x") + client.data_to_send(1, b"y")
    assert plain(server.receive(payload)) == [(1, b"y")]
    assert server.pending_to_send() == frames.goaway(1, 0)


# -- what a peer may not do


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("server", "payload", "message"),
    [
        (True, bytes.fromhex("80020001 0000000a") + bytes(10), "SPDY version 2"),
        (True, bytes.fromhex("80030005 00000000"), "unknown type 5"),
        (False, bytes.fromhex("80030006 00000004 00000000"), "id 0"),
        (True, frames.syn_stream(1, b""), "cut off"),
        (True, frames.syn_stream(1, b"garbage"), "cannot be decompressed"),
        (True, frames.syn_stream(3, b"\0"), "cut off|cannot"),
        (False, frames.syn_stream(2, b"garbage"), "cannot be decompressed"),
        (False, frames.syn_reply(1, b"garbage"), "cannot be decompressed"),
        (False, frames.syn_reply(99, b"garbage"), "cannot be decompressed"),
        (True, frames.syn_reply(1, b"garbage"), "cannot be decompressed"),
        (False, bytes.fromhex("80030008 00000005 00000001 00"), "cut off"),
        (False, bytes.fromhex("80030003 00000008 00000001 00000000"), "status 0"),
    ],
)
def test_malformed(server: bool, payload: bytes, message: str, size: int) -> None:
    session = Session(server=server)
    with pytest.raises(RemoteProtocolError, match=message):
        for start in range(0, len(payload), size):
            assert session.receive(payload[start : start + size]) == []


def test_a_flood_of_pings() -> None:
    """What a peer makes this side say is bounded; who sends it off is not bothered."""
    server = Session(server=True)
    for _ in range(5):
        server.receive(frames.ping(1) * 1024)
        assert server.pending_to_send() == frames.ping(1) * 1024
    with pytest.raises(RemoteProtocolError, match="more than 1024 answers"):
        server.receive(frames.ping(1) * 1025)


def test_a_flood_of_streams() -> None:
    client, encoder = Session(), Encoder()
    flood = b"".join(syn_stream(encoder, 2) for _ in range(1025))
    with pytest.raises(RemoteProtocolError, match="more than 1024 answers"):
        client.receive(flood)


def test_what_this_side_opens_is_no_answer() -> None:
    client = Session()
    for _ in range(3000):
        client.open(PORT)
    client.receive(frames.ping(2))
    decoder = Decoder()
    opened = [
        decoder.decode(frame.block)
        for frame in frames.Framer().receive(client.pending_to_send())
        if isinstance(frame, frames.SynStream)
    ]
    assert opened == [PORT] * 3000


def test_nothing_is_remembered_of_thousands_of_streams() -> None:
    """R-39: 1000 aborted connections leave nothing behind."""
    client, server = Session(), Session(server=True)
    for number in range(3000):
        stream = client.open(PORT)
        server.receive(client.pending_to_send())
        if number % 3:
            server.reply(stream)
        client.receive(server.pending_to_send())
        if number % 3 == 1:
            server.receive(client.end_to_send(stream))
            client.receive(server.end_to_send(stream))
        else:
            client.reset(stream)
            server.receive(client.pending_to_send())
    assert halves(client) == halves(server) == 0
    assert client.pending_to_send() == server.pending_to_send() == b""
