"""However the bytes of a tunnel are cut, the same is told; whatever a peer sends, nothing worse than our errors."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.errors import KubewsError, RemoteProtocolError
from kubews.protocol import spdy_frames as frames
from kubews.protocol.events import Data, End, GoAway, Opened, Pong, Reset
from kubews.protocol.spdy import Session
from kubews.protocol.spdy_headers import Encoder

ACTIONS = ["open", "open", "reply", "client", "server", "client end", "server end", "reset", "ping"]

actions = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.binary(max_size=30)), max_size=40
)


def cut(data: Any, payload: bytes) -> list[bytes]:
    """Cut bytes at drawn places; pieces may be empty."""
    places = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=8)))
    return [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]


def told(events: list[Any]) -> list[Any]:
    """Events to compare: data that was told in pieces is one."""
    result: list[Any] = []
    for event in events:
        if not isinstance(event, Data):
            result.append(event)
            continue
        assert len(event.payload) > 0
        last = result[-1] if result else None
        if isinstance(last, tuple) and last[0] == event.stream_id:
            result[-1] = (event.stream_id, last[1] + bytes(event.payload))
        else:
            result.append((event.stream_id, bytes(event.payload)))
    return result


class Conversation:
    """A client and a server that do drawn things; what each has sent, and what the other must be told."""

    def __init__(self) -> None:
        self.client, self.server = Session(), Session(server=True)
        self.to_server, self.to_client = b"", b""
        self.server_told: list[Any] = []
        self.client_told: list[Any] = []
        self.open: dict[int, str] = {}

    def deliver(self, payload: bytes, to_server: bool) -> None:
        if to_server:
            self.to_server += payload
            self.server_told += told(self.server.receive(payload))
        else:
            self.to_client += payload
            self.client_told += told(self.client.receive(payload))

    def exchange(self) -> None:
        while pending := self.client.pending_to_send():
            self.deliver(pending, True)
            if pending := self.server.pending_to_send():
                self.deliver(pending, False)
        if pending := self.server.pending_to_send():
            self.deliver(pending, False)

    def act(self, action: str, number: int, data: bytes) -> None:
        stream = 2 * number + 1
        try:
            if action == "open":
                self.client.open({"port": data.hex(), "requestid": str(number)}, fin=number == 5)
            elif action == "reply":
                self.server.reply(stream)
            elif action == "client":
                self.deliver(self.client.data_to_send(stream, data), True)
            elif action == "server":
                self.deliver(self.server.data_to_send(stream, data), False)
            elif action == "client end":
                self.deliver(self.client.data_to_send(stream, data, fin=True), True)
            elif action == "server end":
                self.deliver(self.server.end_to_send(stream), False)
            elif action == "reset":
                (self.client if number % 2 else self.server).reset(stream)
            else:
                (self.client if number % 2 else self.server).ping()
        except KubewsError:
            pass  # not possible at this point
        self.exchange()


def streams_of(events: list[Any]) -> dict[int, tuple[bytes, list[Any]]]:
    """Per stream, its bytes and everything else."""
    result: dict[int, tuple[bytes, list[Any]]] = {}
    for event in events:
        if isinstance(event, tuple):
            data, others = result.get(event[0], (b"", []))
            assert End(event[0]) not in others
            result[event[0]] = (data + event[1], others)
        elif isinstance(event, (Opened, End, Reset)):
            result.setdefault(event.stream_id, (b"", []))[1].append(event)
        else:
            assert isinstance(event, (Pong, GoAway))
    return result


def reader(talk: Conversation, server: bool) -> Session:
    """Return a session that reads what one of the two was sent, and does nothing itself."""
    session = Session(server=server)
    for _ in range(0 if server else talk.client._next_id // 2):
        session.open({})
    return session


@pytest.mark.parametrize("server", [False, True])
@given(script=actions, data=st.data())
def test_every_cut(server: bool, script: list[tuple[str, int, bytes]], data: Any) -> None:
    """R-2: a whole conversation, read again with its bytes joined, cut anywhere, and one by one."""
    talk = Conversation()
    for action in script:
        talk.act(*action)
    raw = talk.to_server if server else talk.to_client
    results = []
    for pieces in ([raw], cut(data, raw), [raw[i : i + 1] for i in range(len(raw))]):
        session = reader(talk, server)
        results.append(told([event for piece in pieces for event in session.receive(piece)]))
    assert results[0] == results[1] == results[2]
    # Whoever took part was told the same, but for what came after it had given a stream up itself.
    again = streams_of(results[0])
    for stream, (received, others) in streams_of(
        talk.server_told if server else talk.client_told
    ).items():
        assert again[stream][0].startswith(received)
        assert again[stream][1][: len(others)] == others


@given(chunks=st.lists(st.binary(max_size=50), max_size=10), data=st.data())
def test_bytes_of_a_stream(chunks: list[bytes], data: Any) -> None:
    client, server = Session(), Session(server=True)
    stream = client.open({"port": "80"})
    raw = client.pending_to_send()
    raw += b"".join(client.data_to_send(stream, chunk) for chunk in chunks)
    raw += client.end_to_send(stream)
    events: list[Any] = []
    for piece in cut(data, raw):
        events += server.receive(piece)
    body = b"".join(chunks)
    expected = [Opened(1, {"port": "80"}), *([(1, body)] if body else []), End(1)]
    assert told(events) == expected


@given(prefix=actions, raw=st.binary(max_size=40), data=st.data())
def test_malformed_input_is_malformed_at_every_cut(
    prefix: list[tuple[str, int, bytes]], raw: bytes, data: Any
) -> None:
    """The same error, and before it no more and no less than a whole message would tell."""
    talk = Conversation()
    for action in prefix[:8]:
        talk.act(*action)
    raw = talk.to_server + raw
    outcomes = []
    for pieces in ([raw[i : i + 1] for i in range(len(raw))], cut(data, raw)):
        session, events = Session(server=True), []
        try:
            for piece in pieces:
                events += session.receive(piece)
        except RemoteProtocolError as exc:
            outcomes.append(str(exc))
        else:
            outcomes.append(told(events))
    assert outcomes[0] == outcomes[1]


def some_frame(rng: random.Random, encoder: Encoder) -> bytes:
    """Make a frame that is nearly right, or quite."""
    stream = rng.choice([0, 1, 2, 3, 5, 7, 0x7FFFFFFF])
    kind = rng.randrange(12)
    if kind < 4:
        return frames.data(stream, rng.randbytes(rng.randrange(20)), rng.random() < 0.3)
    block = encoder.encode({"port": str(rng.randrange(9))})
    if rng.random() < 0.1:
        block = rng.randbytes(rng.randrange(12))
    bodies = [
        struct.pack(">I", stream) + bytes(6) + block,
        struct.pack(">I", stream) + block,
        struct.pack(">II", stream, rng.randrange(12)),
        struct.pack(">I", rng.randrange(5)),
        rng.randbytes(rng.randrange(16)),
    ]
    body = rng.choice(bodies)
    first = 0x80030000 | rng.randrange(11)
    return struct.pack(">II", first, rng.choice([0, 0, 1, 0xFF]) << 24 | len(body)) + body


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_fuzz(server: bool, seed: int) -> None:
    """A fixed number of streams of frames, each damaged a little; what is told makes sense all the same."""
    rng = random.Random(seed)
    malformed = 0
    for _ in range(250):
        session, encoder = Session(server=server), Encoder()
        if not server:
            for _ in range(3):
                session.open({"port": "80"}, fin=rng.random() < 0.3)
        raw = bytearray(b"".join(some_frame(rng, encoder) for _ in range(rng.randrange(1, 12))))
        for _ in range(rng.choice([0, 0, 1, 5])):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        events: list[Any] = []
        try:
            while raw:
                size = rng.randrange(1, 40)
                events += session.receive(bytes(raw[:size]))
                del raw[:size]
        except RemoteProtocolError:
            malformed += 1
        check(events, server)
        # What it has to say is SPDY.
        list(frames.Framer().receive(session.pending_to_send()))
    assert 0 < malformed < 250


def check(events: list[Any], server: bool) -> None:
    """Nothing of a stream before it was opened or after it ended, and nothing that nobody asked for."""
    over: set[int] = set()
    opened: set[int] = set()
    for event in events:
        if isinstance(event, (GoAway, Pong)):
            assert not isinstance(event, Pong)
            continue
        assert event.stream_id not in over or isinstance(event, (Reset, Opened))
        if isinstance(event, Opened):
            assert event.stream_id not in opened
            opened.add(event.stream_id)
        elif isinstance(event, (End, Reset)):
            over.add(event.stream_id)
        assert event.stream_id in (opened if server else {1, 3, 5})
