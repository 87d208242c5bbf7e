"""The upgrade and the frames, against servers that misbehave at every byte."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import re
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults import FaultySocket, Relay, reset
from peers import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    V4,
    V5,
    Peer,
    client_context,
    close_frame,
    data,
    masked,
    server_context,
    server_frame,
    tls_pair,
    unblocked,
)
from scripted import answer, dripping, played, read_head
from support import in_thread, seconds
from websocket._handshake import CookieJar

from kubews import errors
from kubews.transport import http, wire
from kubews.transport.deadline import Deadline
from kubews.transport.wire import Frame, Wire, WouldBlock, upgrade

TOKEN = "s3cr3t-t0k3n"
OFFER = (V5, V4)


def ask(sock: Any, timeout: float = 5.0, token: str = TOKEN, offer: Any = OFFER) -> Wire:
    headers = [("User-Agent", "t"), ("Host", "example:6443"), ("Authorization", f"Bearer {token}")]
    return upgrade(
        sock,
        "/exec?command=a%20b",
        headers,
        offer,
        "exec in pod shop/web-0",
        Deadline(seconds(timeout)),
    )


def failed(script: Any, timeout: float = 5.0, **options: Any) -> errors.KubewsError:
    """The exception of an upgrade that is refused; it never shows the token."""
    with played(script, **options) as sock, pytest.raises(errors.KubewsError) as caught:
        ask(sock, timeout)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert TOKEN not in f"{chain} {chain!r} {getattr(chain, '__dict__', '')}"
        chain = chain.__cause__ or chain.__context__
    assert "exec in pod shop/web-0" in str(caught.value)
    return caught.value


def agree(
    *behind: bytes,
    subprotocol: str | None = V5,
    key: Callable[[bytes], bytes] = lambda key: key,
    extra: str = "",
    seen: list[bytes] | None = None,
    then: Callable[[Any], None] = lambda sock: None,
) -> Any:
    """A script that agrees to the upgrade."""

    def script(sock: Any) -> None:
        head = read_head(sock)
        if seen is not None:
            seen.append(head)
        found = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", head)
        assert found is not None
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key(found[1]) + guid).digest()).decode()
        chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
        reply = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{chosen}{extra}\r\n"
        )
        sock.sendall(reply.encode() + b"".join(behind))
        then(sock)

    return script


# -- an upgrade that succeeds


@pytest.mark.parametrize(
    ("chosen", "expected"), [(V5, V5), (V4, V4), ("V5.Channel.K8S.io", V5)], ids=["v5", "v4", "V5"]
)
def test_upgrade(chosen: str, expected: str) -> None:
    seen: list[bytes] = []
    with played(agree(subprotocol=chosen, seen=seen, then=lambda sock: sock.recv(1))) as sock:
        assert ask(sock).subprotocol == expected
        assert sock.gettimeout() == 0.0
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"GET /exec?command=a%20b HTTP/1.1"
    fields = sorted(line.partition(b": ")[0].decode() for line in lines[1:] if line)
    assert fields == [
        "Authorization",
        "Connection",
        "Host",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Upgrade",
        "User-Agent",
    ]
    assert b"Host: example:6443" in lines
    assert b"Sec-WebSocket-Protocol: v5.channel.k8s.io,v4.channel.k8s.io" in lines


def test_the_key_is_fresh() -> None:
    seen: list[bytes] = []
    for _ in range(2):
        with played(agree(seen=seen)) as sock:
            ask(sock)
    keys = {re.search(rb"Key: (\S+)", head)[1] for head in seen}  # type: ignore[index]
    assert len(keys) == 2


def test_a_token_goes_out_byte_by_byte() -> None:
    seen: list[bytes] = []
    with played(agree(seen=seen)) as sock:
        ask(sock, token="caf\xe9")
    assert b"Authorization: Bearer caf\xe9\r\n" in seen[0]


def test_no_subprotocol_offered_and_none_chosen() -> None:
    with played(agree(subprotocol=None)) as sock:
        assert ask(sock, offer=()).subprotocol == ""


def test_frames_in_the_same_segment_as_the_101() -> None:
    with played(agree(data(1, b""), data(1, b"hello"), close_frame())) as sock:
        got = ask(sock)
        assert take(got, 3) == [
            Frame(BINARY, True, b"\1"),
            Frame(BINARY, True, b"\1hello"),
            Frame(CLOSE, True, b"\x03\xe8"),
        ]


def test_the_101_and_its_frames_byte_by_byte() -> None:
    with played(agree(data(1, b"hello"), close_frame())) as sock:
        got = ask(FaultySocket(sock, read_size=1))
        assert take(got, 2) == [Frame(BINARY, True, b"\1hello"), Frame(CLOSE, True, b"\x03\xe8")]


def test_no_cookie_of_one_server_reaches_another() -> None:
    kept = dict(CookieJar.jar)
    extra = "".join(
        f"Set-Cookie: c{index}=v; Domain={domain}\r\n"
        for index, domain in enumerate(("kubews", "example", "localhost", "127.0.0.1", "."))
    )
    seen: list[bytes] = []
    try:
        for _ in range(2):
            with played(agree(extra=extra, seen=seen)) as sock:
                ask(sock)
    finally:
        CookieJar.jar.clear()
        CookieJar.jar.update(kept)
    assert b"Cookie" not in seen[1]


# -- refusals


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 429, 500, 503])
@pytest.mark.parametrize("body", ["length", "chunked", "close"])
def test_a_refusal_with_a_status(code: int, body: str) -> None:
    text = json.dumps({"status": "Failure", "message": "no, because", "reason": "R"}).encode()
    head = f"HTTP/1.1 {code} Why\r\nRetry-After: 7\r\n"
    sent = {
        "length": head.encode() + b"Content-Length: %d\r\n\r\n" % len(text) + text,
        "chunked": head.encode()
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(text), text),
        "close": head.encode() + b"\r\n" + text,
    }[body]
    error = failed(answer(sent))
    assert isinstance(error, errors.ApiError)
    assert (error.code, error.reason, error.retry_after) == (code, "R", 7.0)
    assert error.status == json.loads(text)
    assert str(error) == f"exec in pod shop/web-0: no, because (HTTP {code} Why)"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n", b"gone"],
        [b"HTTP/1.1 404 No\r\n\r\n", b"gone"],
        [b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\ngone\r\n0\r\n\r\n"],
        [b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r", b"\n", b"go", b"ne"],
        [b"HTTP/1.1 404 No\nContent-Length: 4\n\n", b"gone"],
    ],
    ids=["length", "close", "chunked", "everywhere", "bare line feeds"],
)
def test_a_refusal_whose_body_comes_later(pieces: list[bytes]) -> None:
    error = failed(answer(*pieces, pause=0.02))
    assert isinstance(error, errors.NotFound)
    assert error.body == "gone"


def test_a_body_may_look_like_the_end_of_a_head() -> None:
    pieces = [b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n", b"abc\r\n\r\n", b"de"]
    assert failed(answer(*pieces, pause=0.02)).body == "abc\r\n\r\nde"  # type: ignore[attr-defined]


def test_an_empty_403_is_explained() -> None:
    error = failed(answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", hold=True))
    assert isinstance(error, errors.Forbidden)
    assert "knows none of the offered subprotocols (v5.channel.k8s.io, v4.channel.k8s.io)" in str(
        error
    )


def test_plain_text_is_shown() -> None:
    error = failed(answer(b'HTTP/1.1 500 Oops\r\n\r\ncontainer not found ("c")\n'))
    assert isinstance(error, errors.ServerError)
    assert 'container not found ("c") (HTTP 500 Oops)' in str(error)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"http://127.0.0.1:{other.getsockname()[1]}/"
        reply = f"HTTP/1.1 {code} Elsewhere\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
        more: list[bytes] = []

        def script(sock: Any) -> None:
            answer(reply.encode())(sock)
            more.append(sock.recv(100))

        error = failed(script)
        assert type(error) is errors.ApiError
        assert error.code == code
        assert f"redirects to {where}" in str(error)
        assert more == [b""], "nothing more is sent to the server that redirects"
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_redirect_to_nowhere() -> None:
    assert "redirects to elsewhere" in str(failed(answer(b"HTTP/1.1 302 Found\r\n\r\n")))


def test_a_plain_200_is_no_upgrade() -> None:
    error = failed(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"))
    assert type(error) is errors.ApiError
    assert error.code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"subprotocol": None},
        {"subprotocol": ""},
        {"subprotocol": "channel.k8s.io"},
        {"key": lambda key: key + b"x"},
    ],
    ids=["none", "empty", "another", "wrong accept"],
)
def test_an_unusable_101(options: Any) -> None:
    error = failed(agree(**options))
    assert type(error) is errors.RemoteProtocolError
    chosen = options.get("subprotocol", V5) or "none"
    assert f"offered v5.channel.k8s.io, v4.channel.k8s.io; it chose {chosen}" in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
    ],
    ids=["bare", "no accept", "another upgrade"],
)
def test_an_incomplete_101(reply: bytes) -> None:
    assert type(failed(answer(reply))) is errors.RemoteProtocolError


@pytest.mark.parametrize(
    "noise",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 X\r\nno colon\r\n",
        b"HTTP/1.1 403 \xff\r\n" + b"X: y\r\n" * 500,
        b"HTTP/1.1 400 No\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
        b"\r\n" * 10,
    ],
    ids=["ssh", "alert", "code", "colon", "many headers", "long header", "empty lines"],
)
def test_what_is_no_answer(noise: bytes) -> None:
    error = failed(answer(noise))
    assert isinstance(error, (errors.ConnectFailed, errors.RemoteProtocolError))
    assert not isinstance(error, errors.ConnectTimeout)


def test_a_refusal_may_say_what_websocket_client_chokes_on() -> None:
    for odd in (b"X-Name: \xff\xfe", b"Content-Length: x", b"Set-Cookie: a\x01=\x02; path=/"):
        error = failed(answer(b"HTTP/1.1 404 No\r\n" + odd + b"\r\n\r\ngone"))
        assert isinstance(error, errors.NotFound)


def test_a_server_that_goes_without_a_word() -> None:
    assert "the server closed the connection" in str(failed(answer()))


def test_a_server_that_resets() -> None:
    def script(sock: Any) -> None:
        sock.recv(10)
        reset(sock)

    error = failed(script)
    assert type(error) is errors.ConnectFailed
    assert "the connection broke" in str(error)


def test_tls_that_is_cut_without_a_farewell() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switch")

    error = failed(script, pair=tls_pair)
    assert type(error) is errors.ConnectFailed
    assert "EOF" in str(error)


# -- limits


@pytest.mark.parametrize(
    "script",
    [
        answer(hold=True),
        answer(b"HTTP/1.1 10", hold=True),
        dripping(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" * 9, 0.05),
        answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n", hold=True),
    ],
    ids=["silence", "half a status line", "a byte at a time", "half a head"],
)
@pytest.mark.parametrize("pair", [socket.socketpair, tls_pair], ids=["plain", "tls"])
def test_the_deadline_holds_for_the_whole_upgrade(script: Any, pair: Any) -> None:
    started = time.monotonic()
    error = failed(script, timeout=0.3, pair=pair)
    assert isinstance(error, errors.ConnectTimeout)
    assert time.monotonic() - started < seconds(0.3) + 1


def test_a_dripping_refusal_is_cut_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "ERROR_BODY_TIMEOUT", seconds(0.6))
    pieces = [b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\n", *[b"x"] * 99]
    started = time.monotonic()
    error = failed(answer(*pieces, pause=0.01))
    assert isinstance(error, errors.ServerError)
    assert 1 <= len(error.body) < 99
    assert time.monotonic() - started < seconds(5)


def test_an_endless_head_is_given_up() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            sock.sendall(b"X-Header: and so on\r\n" * 1000)

    error = failed(script)
    assert isinstance(error, errors.ConnectFailed)


# -- frames in


def take(source: Wire, count: int, timeout: float = 10.0) -> list[Frame]:
    """Receive frames, waiting for the socket as a loop does."""
    frames = []
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while len(frames) < count:
            try:
                frames.append(source.receive())
            except WouldBlock as exc:
                selector.modify(source, exc.events)
                assert selector.select(seconds(timeout)), f"only {len(frames)} frames came"
    return frames


@contextlib.contextmanager
def fed(stream: bytes, **faults: Any) -> Iterator[tuple[Wire, FaultySocket]]:
    """Give a wire whose peer has sent these bytes and then gone."""
    near, far = socket.socketpair()
    faulty = FaultySocket(near, **faults)
    with near, far:
        sender = in_thread(lambda: (far.sendall(stream), far.shutdown(socket.SHUT_WR)))
        yield Wire(unblocked(faulty), V5), faulty  # type: ignore[arg-type]
        near.close()
        with contextlib.suppress(OSError):
            sender.result()


def mixed(seed: int = 1, count: int = 40, largest: int = 1 << 20) -> tuple[bytes, list[Frame]]:
    """Frames of every kind and of every size at which something changes."""
    chance = random.Random(seed)
    all_sizes = [0, 1, 2, 3, 125, 126, 127, 4095, 4096, 4097, 16384, 65535, 65536, 70000]
    sizes = [size for size in all_sizes if size <= largest]
    frames, inside = [], False
    for index in range(count):
        if chance.random() < 0.3:
            opcode = chance.choice([PING, PONG])
            payload = chance.randbytes(chance.choice([0, 1, 125]))
            frames.append(Frame(opcode, True, payload))
            continue
        payload = chance.randbytes(sizes[index % len(sizes)])
        final = chance.random() < 0.5
        frames.append(Frame(CONT if inside else chance.choice([TEXT, BINARY]), final, payload))
        inside = not final
    if inside:
        frames.append(Frame(CONT, True, b""))
    frames.append(Frame(CLOSE, True, b"\x03\xe8bye"))
    return b"".join(server_frame(f.payload, f.opcode, final=f.final) for f in frames), frames


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"read_size": 1},
        {"again": 1},
        {"read_size": 1, "again": 2},
        {"read_size": 7, "again": 1},
        {"read_size": 4096},
    ],
    ids=["whole", "1 byte", "EAGAIN", "1 byte after each EAGAIN", "7 bytes", "pages"],
)
def test_frames_survive_any_cutting(faults: dict[str, int]) -> None:
    # The parser is websocket-client's; that it resumes at every byte is no promise of its authors.
    stream, frames = mixed(largest=1 << 20 if faults.get("read_size", 9) > 7 else 5000)
    with fed(stream, **faults) as (source, _):
        assert take(source, len(frames)) == frames
        with pytest.raises(EOFError, match="the server closed the connection"):
            take(source, 1)


def test_the_parser_resumes_at_every_byte() -> None:
    payloads = [b"", b"a", b"b" * 126, b"c" * 5000, b"d" * 66000]
    stream = b"".join(server_frame(payload) for payload in payloads)
    # Every border inside the heads, and a few inside the payloads.
    borders, start = [], 0
    for payload in payloads:
        head = len(server_frame(payload)) - len(payload)
        borders += [start + i for i in (*range(head + 1), head + 1, head + len(payload) // 2)]
        start += head + len(payload)
    for border in sorted(set(borders)):
        near, far = socket.socketpair()
        with near, far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            source, got = Wire(unblocked(near), V5), []
            for part in (stream[:border], stream[border:]):
                far.sendall(part)
                with contextlib.suppress(WouldBlock):
                    while True:
                        got.append(source.receive().payload)
            assert got == payloads


def test_a_dripping_frame_costs_no_more_than_its_bytes() -> None:
    # Each piece is read for itself, behind a wake-up; to count all pieces anew takes minutes.
    payload = os.urandom(60_000)
    with fed(server_frame(payload), read_size=1, again=1) as (source, faulty):
        started = time.thread_time()
        while True:
            try:
                assert source.receive().payload == payload
                break
            except WouldBlock:
                pass
        assert time.thread_time() - started < seconds(5)
        assert faulty.calls["recv"] > 60_000


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_frames_over_tls_byte_by_byte(version: str) -> None:
    stream, frames = mixed(seed=2, count=10, largest=5000)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock = listener.accept()[0]
            with server_context(version).wrap_socket(sock, server_side=True) as secure:
                for start in range(0, len(stream), 3000):
                    secure.sendall(stream[start : start + 3000])
                with contextlib.suppress(OSError):
                    secure.recv(1)

        server = in_thread(serve)
        with Relay(listener.getsockname(), piece=1) as relay:
            plain = socket.create_connection(relay.address)
            with client_context().wrap_socket(plain, server_hostname="localhost") as sock:
                assert take(Wire(unblocked(sock), V5), len(frames)) == frames
                assert len(relay.from_server) > len(stream)
        server.result()


def test_many_frames_in_one_tls_record_are_all_seen() -> None:
    # What is decrypted already makes no descriptor readable.
    near, far = tls_pair()
    with near, far:
        source = Wire(unblocked(near), V5)
        far.sendall(data(1, b"x") * 4000)
        assert len(take(source, 4000)) == 4000
        with pytest.raises(WouldBlock):
            source.receive()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (server_frame(b"x", rsv=4), "rsv"),
        (server_frame(b"x", rsv=1), "rsv"),
        (server_frame(b"x", 3), "opcode"),
        (server_frame(b"x", 15), "opcode"),
        (server_frame(b"", PING, final=False), "malformed"),
        (server_frame(b"", PONG, final=False), "control"),
        (server_frame(b"", CLOSE, final=False), "control"),
        (server_frame(b"x" * 126, PING), "control"),
        (server_frame(b"x" * 126, PONG), "control"),
        (server_frame(b"x" * 126, CLOSE), "close"),
        (server_frame(b"x", CLOSE), "close"),
        (close_frame(0), "close"),
        (close_frame(1005), "close"),
        (close_frame(5000), "close"),
        (server_frame(b"x", CONT), "fragment"),
        (data(1, b"whole") + server_frame(b"x", CONT), "fragment"),
        (server_frame(b"x", final=False) + server_frame(b"y"), "fragment"),
        (server_frame(b"x", final=False) + server_frame(b"y", TEXT), "fragment"),
    ],
)
def test_malformed_frames(broken: bytes, why: str) -> None:
    with fed(broken) as (source, _), pytest.raises(errors.RemoteProtocolError) as caught:
        take(source, 3)
    assert "the server sent a malformed frame" in str(caught.value)
    assert why in str(caught.value)


def test_text_need_not_be_text() -> None:
    with fed(server_frame(b"\xff\xfe", TEXT) + server_frame(b"\x03\xe8\xff", CLOSE)) as (source, _):
        assert take(source, 2) == [
            Frame(TEXT, True, b"\xff\xfe"),
            Frame(CLOSE, True, b"\x03\xe8\xff"),
        ]


def test_a_masked_frame_is_read() -> None:
    with fed(server_frame(b"hello", mask=b"\1\2\3\4")) as (source, _):
        assert take(source, 1) == [Frame(BINARY, True, b"hello")]


@pytest.mark.parametrize("size", [wire.MAX_FRAME + 1, 1 << 62, (1 << 64) - 1])
@pytest.mark.parametrize("mask", [0, 0x80], ids=["plain", "masked"])
def test_a_huge_frame_is_refused_before_it_is_read(size: int, mask: int) -> None:
    head = bytes((0x82, mask | 127)) + size.to_bytes(8, "big")
    with fed(head + bytes(1 << 20)) as (source, faulty):
        with pytest.raises(errors.RemoteProtocolError, match=f"a frame of {size} bytes"):
            take(source, 1)
        assert faulty.read <= 1 << 16


def test_the_largest_frame_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 100_000)
    with fed(server_frame(bytes(100_000)) + server_frame(bytes(100_001))) as (source, _):
        assert take(source, 1)[0].payload == bytes(100_000)
        with pytest.raises(errors.RemoteProtocolError):
            take(source, 1)


@pytest.mark.parametrize("border", range(10))
def test_the_end_in_the_middle_of_a_frame(border: int) -> None:
    with fed(data(1, b"hello!!")[:border]) as (source, _), pytest.raises(EOFError):
        take(source, 1)


@pytest.mark.parametrize("border", [0, 1, 2, 5])
def test_a_reset_in_the_middle_of_a_frame(border: int) -> None:
    with fed(data(1, b"hello"), reset_after=border) as (source, _):
        with pytest.raises(ConnectionResetError):
            take(source, 1)


# -- what a socket may want


class Moody:
    """A socket that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def recv(self, size: int) -> bytes:
        raise self.error

    def send(self, data: Any) -> int:
        raise self.error

    def setblocking(self, flag: bool) -> None:
        assert flag is False


@pytest.mark.parametrize(
    ("error", "on_receive", "on_send"),
    [
        (BlockingIOError(), selectors.EVENT_READ, selectors.EVENT_WRITE),
        (ssl.SSLWantReadError(), selectors.EVENT_READ, selectors.EVENT_READ),
        (ssl.SSLWantWriteError(), selectors.EVENT_WRITE, selectors.EVENT_WRITE),
    ],
    ids=["EAGAIN", "want-read", "want-write"],
)
def test_what_to_wait_for(error: Exception, on_receive: int, on_send: int) -> None:
    moody = Wire(Moody(error), V5)  # type: ignore[arg-type]
    with pytest.raises(WouldBlock) as caught:
        moody.receive()
    assert caught.value.events == on_receive
    with pytest.raises(WouldBlock) as caught:
        moody.send(memoryview(b"x"))
    assert caught.value.events == on_send


def test_real_errors_are_passed_on() -> None:
    moody = Wire(Moody(BrokenPipeError("gone")), V5)  # type: ignore[arg-type]
    with pytest.raises(BrokenPipeError):
        moody.receive()
    with pytest.raises(BrokenPipeError):
        moody.send(memoryview(b"x"))


# -- frames out


@pytest.fixture(params=["compiled", "pure"])
def mask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Build frames as with and as without the extra ``speed``."""
    wire._compiled.cache_clear()
    if request.param == "pure":
        # None in there makes an import fail.
        monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert bool(wire._compiled()) is (request.param == "compiled")
    yield request.param
    wire._compiled.cache_clear()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4095, 4096, 32769, 65535, 65536, 100_003])
def test_frames_out_are_masked_and_whole(mask: str, size: int) -> None:
    near, far = socket.socketpair()
    with near, far:
        payload = os.urandom(size)
        for given in (payload, bytearray(payload), memoryview(payload)):
            sending = in_thread(near.sendall, wire.frame(given))
            assert Peer(far).read_frame() == (BINARY, payload)
            sending.result()


@pytest.mark.parametrize("size", [4, 1 << 15])
def test_each_frame_has_a_key_of_its_own(mask: str, size: int) -> None:
    head = len(wire.frame(bytes(size))) - size
    keys = {wire.frame(bytes(size))[head - 4 : head] for _ in range(1000)}
    assert len(keys) > 990
    assert masked(wire.frame(b"abcd" * size)[-4:], b"\0\0\0\0") != b"abcd"
    # Nothing but the system's generator may make them.
    random.seed(1)
    first = wire.frame(b"x" * size)
    random.seed(1)
    assert wire.frame(b"x" * size) != first


@pytest.mark.parametrize("missing", ["Frame", "Opcode"])
def test_another_websockets_is_no_compiled_mask(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A release from before it had these, which somebody else needs."""
    monkeypatch.delattr(f"websockets.frames.{missing}")
    wire._compiled.cache_clear()
    assert wire._compiled() is None
    assert wire.frame(bytes(5000))[:4] == b"\x82\xfe\x13\x88"
    wire._compiled.cache_clear()


@pytest.mark.parametrize("faults", [{"write_size": 1}, {"again": 1}, {"write_size": 3, "again": 2}])
def test_a_send_is_resumed(faults: dict[str, int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        out = Wire(unblocked(FaultySocket(near, **faults)), V5)  # type: ignore[arg-type]
        left = memoryview(wire.frame(b"hello", TEXT))
        while left:
            with contextlib.suppress(WouldBlock):
                left = left[out.send(left) :]
        assert Peer(far).read_frame() == (TEXT, b"hello")


def test_close_closes_the_socket_and_says_nothing() -> None:
    near, far = tls_pair()
    with far:
        closing = Wire(unblocked(near), V5)
        assert closing.fileno() == near.fileno() >= 0
        closing.close()
        assert closing.fileno() == -1
        closing.close()
        # No close_notify: a connection that is cut must not look as if it had ended well.
        assert Peer(far).at_end()
