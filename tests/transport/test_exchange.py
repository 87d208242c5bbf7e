"""HTTP with bodies that stream, against a server that is played byte by byte."""

from __future__ import annotations

import array
import contextlib
import gc
import hashlib
import io
import socket
import ssl
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults import reset
from peers import tls_pair
from scripted import answer, dripping, played, read_head
from support import eventually, in_thread, seconds, time_limit

from kubews import errors
from kubews.transport.exchange import HttpResponse, exchange
from kubews.transport.patientsocket import PatientSocket

HEADERS = [("Host", "example:6443"), ("Authorization", "Bearer s3cr3t")]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(30):
        yield


def ask(sock: Any, method: str = "GET", body: Any = None, timeout: float = 10.0) -> HttpResponse:
    return exchange(sock, method, "/x?y=1", HEADERS, body, seconds(timeout), "GET /x of pod a/b")


def read(script: Callable[[Any], None], method: str = "GET", timeout: float = 10.0) -> bytes:
    """The body of an answer."""
    with played(script) as sock, ask(sock, method, timeout=timeout) as response:
        return response.read()


# -- answers


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5\r\n\r\n", b"hello"),
        (b"Content-Length: 5\r\nConnection: close\r\n\r\n", b"hello"),
        (b"Content-Length: 5\r\n\r\n", b"hello, and what nobody asked for"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n"),
        (
            b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n",
            b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        ),
        (b"\r\n", b"hello"),
        (b"Connection: close\r\n\r\n", b"hello"),
    ],
    ids=["length", "and close", "length and more", "chunked", "trailer", "until close", "said so"],
)
@pytest.mark.parametrize("split", [False, True], ids=["one segment", "byte by byte"])
def test_a_body_however_it_is_delimited(head: bytes, body: bytes, split: bool) -> None:
    assert read(dripping(OK + head + body, 0) if split else answer(OK + head, body)) == b"hello"


def test_an_answer_of_http_1_0() -> None:
    assert (
        read(answer(b"HTTP/1.0 200 OK\r\n\r\n", b"hello", b" again", pause=0.05)) == b"hello again"
    )


@pytest.mark.parametrize(
    ("method", "code"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)]
)
@pytest.mark.parametrize("line", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_without_a_body_is_not_waited_for(method: str, code: int, line: bytes) -> None:
    script = answer(b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (code, line), hold=True)
    assert read(script, method) == b""


@pytest.mark.parametrize(
    "early",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\r\n\r\n",
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_what_comes_before_the_answer_is_not_the_answer(early: bytes, split: bool) -> None:
    whole = early + OK + b"Content-Length: 5\r\nX-Of: the answer\r\n\r\nhello"
    with played(dripping(whole, 0) if split else answer(whole)) as sock, ask(sock) as response:
        assert (response.status, response.headers["x-of"]) == (200, "the answer")
        assert response.headers["link"] is None
        assert response.read() == b"hello"


def endless(piece: bytes, first: bytes = b"") -> Callable[[Any], None]:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(first)
        while True:
            sock.sendall(piece)

    return script


@pytest.mark.parametrize(
    "script",
    [
        endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"),
        endless(b"X: y\r\n", OK),
        endless(b"y" * 65536, OK + b"X: "),
        endless(b"\0" * 65536),
    ],
    ids=["continue, continue", "hint, hint", "headers", "a header", "zeros"],
)
def test_a_head_without_an_end(script: Any) -> None:
    with pytest.raises((errors.ConnectFailed, errors.RemoteProtocolError)) as caught:
        read(script)
    assert "GET /x of pod a/b" in str(caught.value)
    assert "s3cr3t" not in repr(caught.value)


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Le",
        OK + b"X: y\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
)
def test_a_head_that_is_cut_or_none_r8(whole: bytes) -> None:
    """R-8: nobody takes the first half of the headers for an answer without a body."""
    with pytest.raises(errors.ConnectFailed, match="GET /x of pod a/b: the connection broke"):
        read(answer(whole))


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 1_0",
        b"Content-Length: 5, 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: five",
        b"Transfer-Encoding: gzip, chunked",
    ],
)
def test_an_answer_that_does_not_say_where_it_ends(lines: bytes) -> None:
    with pytest.raises(errors.RemoteProtocolError, match="does not say where it ends"):
        read(answer(OK + lines + b"\r\n\r\nhello"))


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CUT = [
    b"Content-Length: 9\r\n\r\nshort",
    b"Content-Length: 9999999999999999999\r\n\r\nshort",
    CHUNKED + b"9\r\nshort",
    CHUNKED + b"5\r\nshort\r\n",
    CHUNKED + b"5\r\nshort\r\nzz\r\n",
    CHUNKED + b"5\r\nshort\r\n" + b"1" * 70_000,
    CHUNKED + b"ffffffffffff\r\nshort",
]


@pytest.mark.parametrize("body", CUT)
def test_a_body_that_is_cut_r8(body: bytes) -> None:
    """R-8: whoever reads on behind the end hears it again."""
    with played(answer(OK + body)) as sock, ask(sock) as response:
        with pytest.raises(errors.ConnectionLost, match="broke off behind 5 bytes") as caught:
            response.read()
        assert caught.value.partial == b"short"
        assert caught.value.received == {"body": 5}
        for again in (response.read, response.readline, response.json):
            with pytest.raises(errors.ConnectionLost, match="broke off behind 5 bytes"):
                again()


def test_a_length_that_is_announced_costs_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(errors.ConnectionLost):
            read(answer(OK + b"Content-Length: 8000000000\r\n\r\nshort"))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_tls_stream_that_is_cut_is_not_a_body_that_ended_r8() -> None:
    def script(sock: ssl.SSLSocket) -> None:
        read_head(sock)
        sock.sendall(OK + b"\r\nshort")
        socket.socket.shutdown(sock, socket.SHUT_WR)  # the network's end, and not the server's
        sock.recv(1)

    with played(script, tls_pair) as sock, ask(sock) as response:
        with pytest.raises(errors.ConnectionLost):
            response.read()


def test_a_connection_that_is_reset() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(OK + b"\r\nshort")
        heard.wait(seconds(10))
        reset(sock)

    heard = threading.Event()
    with played(script) as sock, ask(sock) as response:
        assert response.read(5) == b"short"
        heard.set()
        with pytest.raises(errors.ConnectionLost, match="reset"):
            response.read()


# -- time


@pytest.mark.parametrize(
    "script",
    [
        answer(hold=True),
        answer(OK + b"X: y\r\n", hold=True),
        answer(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 100, pause=0.1),
        dripping(OK + b"X: " + b"y" * 1000, 0.1),
    ],
    ids=["silent", "half a head", "continue, continue", "a byte at a time"],
)
def test_the_head_must_come_in_time_r9(script: Any) -> None:
    """R-9: as a whole, however it drips."""
    begin = time.monotonic()
    with pytest.raises(errors.ConnectTimeout, match="no answer within"):
        read(script, timeout=0.4)
    assert time.monotonic() - begin < seconds(5)


def test_each_wait_for_the_body_has_the_time() -> None:
    pieces = [b"%d" % number for number in range(8)]
    script = answer(OK + b"Content-Length: 9\r\n\r\n", *pieces, pause=0.3, hold=True)
    with played(script) as sock, ask(sock, timeout=seconds(2)) as response:
        with pytest.raises(errors.ConnectionLost, match="nothing came for") as caught:
            response.read()
        assert caught.value.partial == b"01234567"
        with pytest.raises(errors.ConnectionLost, match="nothing came for"):
            response.read()


def test_a_request_that_nobody_takes_r9() -> None:
    def script(sock: Any) -> None:
        done.wait(seconds(10))

    done = threading.Event()
    with played(script) as sock:
        begin = time.monotonic()
        with pytest.raises(errors.ConnectTimeout):
            ask(sock, "PUT", bytes(64 << 20), timeout=0.3)
        assert time.monotonic() - begin < seconds(0.3) + 1
        done.set()


# -- requests


def sent(body: Any, method: str = "POST") -> tuple[list[bytes], bytes]:
    """The lines of the head and the body, as the server reads them."""
    seen = bytearray()

    def script(sock: Any) -> None:
        end = False
        while not end:
            seen.extend(sock.recv(65536))
            head, found, rest = bytes(seen).partition(b"\r\n\r\n")
            end = rest.endswith(b"0\r\n\r\n") if b"chunked" in head else bool(found)
            end = b"Content-Length: %d" % len(rest) in head if b"-Length" in head else end
        sock.sendall(OK + b"Content-Length: 0\r\n\r\n")

    with played(script) as sock, ask(sock, method, body) as response:
        assert response.status == 200
    head, _, rest = bytes(seen).partition(b"\r\n\r\n")
    return head.split(b"\r\n"), rest


def test_the_head_that_is_sent() -> None:
    lines, rest = sent(None)
    assert lines == [
        b"POST /x?y=1 HTTP/1.1",
        b"Host: example:6443",
        b"Authorization: Bearer s3cr3t",
    ]
    assert rest == b""


@pytest.mark.parametrize(
    "body",
    [
        b"data",
        bytearray(b"data"),
        memoryview(b"data"),
        memoryview(b"d.a.t.a.")[::2],
        array.array("H", b"data"),
        b"",
    ],
    ids=["bytes", "bytearray", "view", "every other", "array", "nothing"],
)
def test_bytes_go_with_their_length(body: Any) -> None:
    lines, rest = sent(body)
    assert lines[3:] == [b"Content-Length: %d" % len(bytes(body))]
    assert rest == bytes(body)


@pytest.mark.parametrize(
    "body",
    [
        io.BytesIO(b"dadata"),
        iter([b"da", b"", bytearray(b"da"), array.array("H", b"ta")]),
        [b"dada", memoryview(b"ta")],
    ],
    ids=["file", "pieces", "list"],
)
def test_everything_else_goes_in_chunks(body: Any) -> None:
    lines, rest = sent(body)
    assert lines[3:] == [b"Transfer-Encoding: chunked"]
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest
    assert read(lambda sock: (read_head(sock), sock.sendall(answer))[0]) == b"dadata"


class Failing(io.RawIOBase):
    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> Any:
        raise self.failure


@pytest.mark.parametrize(
    "failure",
    [
        BrokenPipeError("of a pipe"),
        ConnectionResetError("of another server"),
        TimeoutError("of another server"),
        ssl.SSLError("of another server"),
        errors.ConnectionLost("of another pod"),
        OSError("of a disk"),
        KeyboardInterrupt(),
        StopIteration("of somebody"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_the_body_raises_is_not_about_the_connection(failure: BaseException) -> None:
    ended = threading.Event()

    def script(sock: Any) -> None:
        seen = b""
        while piece := sock.recv(65536):
            seen += piece
        assert not seen.endswith(b"0\r\n\r\n")  # or a part would be taken for the whole
        ended.set()

    with played(script) as sock:
        with pytest.raises(BaseException) as caught:
            ask(sock, "PUT", Failing(failure))
        assert failure in (caught.value, caught.value.__cause__)
        sock.close()
        assert ended.wait(seconds(10))


@pytest.mark.parametrize(
    "body", [["text"], [1], 7, io.StringIO("text"), Failing], ids=list("abcde")
)
def test_what_is_no_body(body: Any) -> None:
    if body is Failing:  # a file that does not wait, and has nothing now
        body = Failing(OSError())
        body.read = lambda size: None
    with played(lambda sock: sock.recv(1)) as sock:
        with pytest.raises(TypeError):
            ask(sock, "PUT", body)


def test_a_server_that_has_enough_is_heard() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Enough\r\nContent-Length: 3\r\n\r\nwhy")
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):  # the client may have heard it already, and be gone
            for _ in range(20):
                sock.recv(65536)
            sock.shutdown(socket.SHUT_RD)

    with played(script) as sock, ask(sock, "PUT", iter([bytes(65536)] * 40)) as response:
        assert (response.status, response.read()) == (413, b"why")


def test_a_server_that_is_gone() -> None:
    def script(sock: Any) -> None:
        reset(sock)

    with played(script) as sock:
        assert eventually(lambda: not gone(sock))
        with pytest.raises(errors.ConnectFailed, match="the connection broke before an answer"):
            ask(sock, "PUT", iter([bytes(65536)] * 100))


def gone(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_much_data_both_ways_over_tls() -> None:
    digest = hashlib.sha256()

    def script(sock: Any) -> None:
        _, _, rest = read_head(sock).partition(b"\r\n\r\n")
        digest.update(rest)
        left = (16 << 20) - len(rest)
        while left:
            piece = sock.recv(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % (16 << 20))
        sock.sendall(bytes(16 << 20))

    data = bytes(range(256)) * (1 << 16)
    with played(script, tls_pair) as sock, ask(sock, "PUT", data) as response:
        assert sum(iter(lambda: len(response.read1(1 << 20)), 0)) == 16 << 20
    assert digest.digest() == hashlib.sha256(data).digest()


# -- as a file


def test_an_answer_is_a_file() -> None:
    whole = OK + b"Content-Length: 18\r\nX: 1\r\nX: 2\r\n\r\none\ntwo\nthree\nfour"
    with played(answer(whole)) as sock, ask(sock) as response:
        assert repr(response) == "<kubews.HttpResponse 200 OK>"
        assert response.headers.get_all("x") == ["1", "2"]
        assert response.readable()
        assert next(response) == b"one\n"
        assert response.read(0) == b""
        assert response.read(3) == b"two"
        buffer = bytearray(3)
        assert response.readinto(buffer) == 3
        assert response.read(None) == b"ree\nfour"
        assert response.read() == response.read(1) == b""
        assert sock.fileno() == -1  # everything is read
    assert response.closed


@pytest.mark.parametrize("most", [3, 4, 5, 100])
@pytest.mark.parametrize("head", [b"Content-Length: 5\r\n\r\n", b"\r\n"])
def test_a_look_takes_nothing(head: bytes, most: int) -> None:
    with played(answer(OK + head, b"hel", b"lo", pause=0.02)) as sock, ask(sock) as response:
        assert response.look(most) == (b"hello" if most >= 5 else None)
        assert response.read() == b"hello"


@pytest.mark.parametrize("body", CUT)
def test_a_look_at_what_is_cut(body: bytes) -> None:
    with played(answer(OK + body)) as sock, ask(sock) as response:
        assert response.look(1 << 16) is None
        with pytest.raises(errors.ConnectionLost) as caught:
            response.read()
        assert caught.value.partial == b"short"


def test_json() -> None:
    def of(body: bytes) -> Any:
        with played(answer(OK + b"\r\n" + body)) as sock, ask(sock) as response:
            return response.json()

    assert of(b'{"a": [1]}') == {"a": [1]}
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(errors.RemoteProtocolError, match="is not JSON"):
            of(body)


@pytest.mark.parametrize("head", [b"Content-Length: 9\r\n\r\n", CHUNKED, b"\r\n"])
def test_who_reads_can_be_stopped(head: bytes) -> None:
    with played(answer(OK + head, hold=True)) as sock, ask(sock) as response:
        reading = in_thread(response.read)
        time.sleep(0.05)
        response.abort()
        with pytest.raises(errors.ConnectionLost):
            reading.result()
    response.abort()  # again is nothing


def test_who_forgets_an_answer_is_told_r26() -> None:
    """R-26: but not who has read it to its end."""
    with played(answer(OK + b"Content-Length: 9\r\n\r\nshort", hold=True)) as sock:
        with pytest.warns(ResourceWarning, match=r"200 OK> was neither closed nor read"):
            ask(sock)  # nobody keeps it
        assert sock.fileno() == -1
    with played(answer(OK + b"Content-Length: 5\r\n\r\nshort", hold=True)) as sock:
        assert ask(sock).read() == b"short"
        gc.collect()


@pytest.mark.filterwarnings("ignore:.*neither closed nor read:ResourceWarning")
@pytest.mark.parametrize("whole", [OK + b"\r\nshort", OK + b"X: "])
def test_what_a_collector_finds_in_any_order(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)

    def forget(sock: Any) -> None:
        kept: list[Any] = []
        kept.append(kept)
        try:
            kept.append(ask(sock))
        except errors.ConnectFailed as exc:
            kept.append(exc)  # with all frames

    for _ in range(3):
        with played(answer(whole)) as sock:
            forget(sock)
            gc.collect()
    assert not heard


# -- the socket


def test_a_socket_that_waits() -> None:
    with played(answer(b"answer")) as sock:
        patient = PatientSocket(sock, seconds(5), b"ahead")
        assert patient.recv(2) + patient.recv(9) == b"ahead"
        patient.sendall(memoryview(array.array("H", b"ab\r\n\r\n")))
        assert patient.recv(100) == b"answer"
        assert patient.recv(1) == b""
        assert patient.fileno() == sock.fileno()
        patient.settimeout(None)
        assert patient.gettimeout() is None
        patient.close()
        patient.close()
        assert patient.fileno() == -1
        for call in (lambda: patient.recv(1), lambda: patient.send(b"x")):
            with pytest.raises(OSError, match="closed"):
                call()


def test_a_socket_that_is_closed_between_two_tries() -> None:
    class Closing(socket.socket):
        def recv(self, *args: Any) -> bytes:
            patient.close()
            raise BlockingIOError

    near, far = socket.socketpair()
    with far:
        closing = Closing(fileno=near.detach())
        patient = PatientSocket(closing, seconds(5))
        with pytest.raises(OSError, match="closed"):
            patient.recv(1)
