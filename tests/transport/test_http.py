"""Small HTTP requests and refusals, against a server that is played byte by byte."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from faults import reset
from scripted import answer, dripping, played, read_head
from support import seconds

from kubews import errors
from kubews.transport import http
from kubews.transport.deadline import Deadline

TOKEN = "s3cr3t-t0k3n"
HEADERS = [("Host", "example:6443"), ("Authorization", f"Bearer {TOKEN}")]
STATUS = {
    "kind": "Status",
    "status": "Failure",
    "message": 'pods "x" not found',
    "reason": "NotFound",
    "code": 404,
}


def ask(script: Callable[[Any], None], timeout: float = 5.0, **options: Any) -> http.Response:
    with played(script) as sock:
        return http.request(
            sock,
            options.get("method", "GET"),
            "/api/v1/pods?limit=1",
            HEADERS,
            options.get("body"),
            Deadline(seconds(timeout)),
        )


def refused(script: Callable[[Any], None], timeout: float = 5.0) -> http.Response | None:
    """What ``read_refusal`` makes of an answer of which the start is already read."""
    with played(script) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        wrapped = http.DeadlineSocket(sock, Deadline(seconds(timeout)), 1 << 20)
        try:
            wrapped.recv(1)
        except OSError:
            pass
        return http.read_refusal(wrapped)


# -- bodies


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5\r\n\r\n", b"hello"),
        (
            b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            b"hello, and what nobody asked for",
        ),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n"),
        (b"\r\n", b"hello"),
    ],
    ids=["length", "length-and-more", "chunked", "chunked-trailer", "until-close"],
)
@pytest.mark.parametrize("split", [False, True], ids=["one-segment", "byte-by-byte"])
@pytest.mark.parametrize("read", [ask, refused], ids=["request", "refusal"])
def test_body_however_it_is_delimited(head: bytes, body: bytes, split: bool, read: Any) -> None:
    whole = b"HTTP/1.1 404 Not Found\r\n" + head + body
    response = read(dripping(whole, 0) if split else answer(whole))
    assert (response.code, response.reason, response.body) == (404, "Not Found", b"hello")


@pytest.mark.parametrize("code", [204, 304])
def test_an_answer_without_a_body_is_not_waited_for(code: int) -> None:
    whole = f"HTTP/1.1 {code} X\r\nContent-Length: 9\r\n\r\n".encode()
    started = time.monotonic()
    response = refused(answer(whole, hold=True))
    assert response is not None
    assert response.code == code
    assert response.body == b""
    assert time.monotonic() - started < seconds(1)


def test_the_request_that_is_sent() -> None:
    seen: list[bytes] = []

    def script(sock: Any) -> None:
        seen.append(read_head(sock))
        while not seen[0].endswith(b'{"a": 1}'):
            seen[0] += sock.recv(100)
        sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    response = ask(script, method="POST", body=b'{"a": 1}')
    assert response.code == 201
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /api/v1/pods?limit=1 HTTP/1.1",
        b"Host: example:6443",
        b"Authorization: Bearer " + TOKEN.encode(),
        b"Content-Length: 8",
    ]
    assert body == b'{"a": 1}'


def test_headers_are_found_by_lower_case_names() -> None:
    response = ask(
        answer(b"HTTP/1.1 200 OK\r\nX-THING: a\r\nx-thing: b\r\nContent-Length: 0\r\n\r\n")
    )
    assert response.headers == {"x-thing": "b", "content-length": "0"}


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
    ids=[
        "nothing",
        "half a head",
        "short length",
        "absurd length",
        "short chunk",
        "absurd chunk",
        "no last chunk",
        "bad chunk size",
        "another protocol",
        "bad code",
        "a TLS alert",
        "many headers",
        "a long header",
    ],
)
def test_a_broken_answer_is_a_failed_connection(broken: bytes) -> None:
    with pytest.raises(errors.ConnectFailed, match="the answer to GET broke off") as caught:
        ask(answer(broken))
    assert not isinstance(caught.value, errors.ConnectTimeout)
    assert TOKEN not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


def test_a_reset_is_a_failed_connection() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsh")
        reset(sock)

    with pytest.raises(errors.ConnectFailed):
        ask(script)


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BODY", 200_000)

    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(bytes(65536))

    with pytest.raises(errors.RemoteProtocolError, match="longer than"):
        ask(script)


@pytest.mark.parametrize(
    "script",
    [
        answer(hold=True),
        answer(b"HTTP/1.1 200", hold=True),
        answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", hold=True),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0.1),
        dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.1),
    ],
    ids=["silence", "half a status line", "half a body", "a byte at a time", "continue, continue"],
)
def test_the_deadline_holds_for_the_whole_answer(script: Any) -> None:
    started = time.monotonic()
    with pytest.raises(errors.ConnectTimeout) as caught:
        ask(script, timeout=0.3)
    assert time.monotonic() - started < seconds(0.3) + 1
    assert isinstance(caught.value, TimeoutError)
    assert TOKEN not in f"{caught.value!r}"


def test_the_deadline_holds_for_a_request_that_is_not_read() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.settimeout(None)
        done.wait(seconds(10))

    import threading

    done = threading.Event()
    with played(script) as sock:
        started = time.monotonic()
        with pytest.raises(errors.ConnectTimeout):
            http.request(sock, "PUT", "/", HEADERS, bytes(32 << 20), Deadline(seconds(0.3)))
        assert time.monotonic() - started < seconds(0.3) + 1
        done.set()


def test_an_expired_deadline_sends_nothing() -> None:
    def script(sock: Any) -> None:
        assert sock.recv(1) == b""

    with played(script) as sock, pytest.raises(errors.ConnectTimeout):
        http.request(sock, "GET", "/", HEADERS, None, Deadline(0))


# -- refusals


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nwhat came",
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nwhat came",
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nwhat came\r\nzz\r\n",
    ],
    ids=["length", "chunked", "bad chunk"],
)
def test_what_came_of_a_cut_refusal_is_kept(whole: bytes) -> None:
    response = refused(answer(whole))
    assert response is not None
    assert (response.code, response.body) == (500, b"what came")


def test_a_refusal_is_read_up_to_64_KiB() -> None:
    def script(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)

    response = refused(script)
    assert response is not None
    assert response.body == b"x" * 65536


def test_a_refusal_is_waited_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http.ERROR_BODY_TIMEOUT == 2.0
    monkeypatch.setattr(http, "ERROR_BODY_TIMEOUT", seconds(0.2))
    started = time.monotonic()
    response = refused(answer(b"HTTP/1.1 500 No\r\n\r\nsome", hold=True), timeout=30)
    assert response is not None
    assert response.body == b"some"
    assert seconds(0.2) <= time.monotonic() - started < seconds(0.2) + 1


def test_a_refusal_is_never_waited_for_beyond_the_deadline() -> None:
    started = time.monotonic()
    response = refused(answer(b"HTTP/1.1 500 No\r\n\r\nsome", hold=True), timeout=0.2)
    assert response is not None
    assert response.body == b"some"
    assert time.monotonic() - started < seconds(0.2) + 1


@pytest.mark.parametrize(
    "noise",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", b"\0" * 70_000],
    ids=["nothing", "another protocol", "many headers", "zeros"],
)
def test_what_is_not_HTTP_is_no_refusal(noise: bytes) -> None:
    assert refused(answer(noise)) is None


def test_a_refusal_with_too_much_of_everything_is_none() -> None:
    with played(answer(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 50_000, hold=True)) as sock:
        sock.sendall(b"\r\n\r\n")
        assert http.read_refusal(http.DeadlineSocket(sock, Deadline(seconds(5)), 1000)) is None


# -- the socket with a deadline


def test_deadline_socket_keeps_what_it_received() -> None:
    with played(answer(b"abcdef")) as sock:
        wrapped = http.DeadlineSocket(sock, Deadline(seconds(5)), 100)
        assert wrapped.send(b"x\r\n\r\n") == 5
        assert wrapped.recv(2) == b"ab"
        assert wrapped.rest() == b"cdef"
        assert wrapped.received() == b"abcdef"
        wrapped.rewind()
        with wrapped.makefile("rb") as file:
            assert file.read() == b"abcdef"
        assert wrapped.gettimeout() is None
        wrapped.settimeout(1e-9)
        wrapped.close()
        wrapped.shutdown()
        assert wrapped.recv(1) == b""
        assert sock.fileno() >= 0


# -- errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (429, errors.TooManyRequests),
        (500, errors.ServerError),
        (599, errors.ServerError),
        (301, errors.ApiError),
        (418, errors.ApiError),
        (200, errors.ApiError),
    ],
)
def test_each_code_has_its_class(code: int, kind: type) -> None:
    error = http.api_error(http.Response(code, "Why", {}, b""), "exec in pod a/b", "a hint")
    assert type(error) is kind
    assert str(error) == f"exec in pod a/b: a hint (HTTP {code} Why)"
    assert (error.code, error.reason, error.status, error.body) == (code, "Why", None, "")


def test_a_status_speaks_for_itself() -> None:
    body = json.dumps(STATUS).encode()
    error = http.api_error(http.Response(404, "Not Found", {}, body), "GET x", "a hint")
    assert str(error) == 'GET x: pods "x" not found (HTTP 404 Not Found)'
    assert (error.reason, error.status, error.body) == ("NotFound", STATUS, body.decode())


@pytest.mark.parametrize(
    ("body", "said", "reason"),
    [
        (b' container not found ("c") \n', 'container not found ("c")', "Why"),
        (b"\xff\xfe", "\ufffd\ufffd", "Why"),
        (b'{"status":"Failure","reason":"Odd"}', "Odd", "Odd"),
        (b'{"status":"Failure"}', "a hint", "Why"),
        (b'{"kind":"Other"}', '{"kind":"Other"}', "Why"),
        (b"", "a hint", "Why"),
    ],
    ids=["text", "no text", "reason only", "empty Status", "other JSON", "nothing"],
)
def test_text_where_there_is_no_status(body: bytes, said: str, reason: str) -> None:
    error = http.api_error(http.Response(500, "Why", {}, body), "GET x", "a hint")
    assert str(error) == f"GET x: {said} (HTTP 500 Why)"
    assert error.reason == reason


def test_without_any_word_from_the_server() -> None:
    error = http.api_error(http.Response(500, "", {}, b""), "GET x")
    assert "the server gave no reason" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds_"),
    [
        ("60", 60.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
        ("-1", None),
        ("inf", None),
        ("1e400", None),
        ("9" * 400, None),
    ],
)
def test_retry_after(value: str, seconds_: float | None) -> None:
    response = http.Response(429, "Too Many Requests", {"retry-after": value}, b"")
    assert http.api_error(response, "GET x").retry_after == seconds_
    assert http.api_error(http.Response(429, "", {}, b""), "GET x").retry_after is None


def test_json() -> None:
    assert http.Response(200, "OK", {}, b'{"a": [1]}').json() == {"a": [1]}
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(errors.RemoteProtocolError, match="is not JSON"):
            http.Response(200, "OK", {}, body).json()


# -- headers that are given


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\r\nb", "\0"])
def test_what_is_no_name_of_a_header(name: str) -> None:
    with pytest.raises(errors.ConfigError, match="not the name of an HTTP header"):
        http.check_headers([("X-Good", "1"), (name, "x")])


@pytest.mark.parametrize("value", ["s3cret\r\nX-More: 1", "s3cret\n", "s3cret\0", "s3cret \u20ac"])
def test_what_is_no_value_of_a_header_is_not_shown(value: str) -> None:
    with pytest.raises(errors.ConfigError, match="the value of X-Key has characters") as caught:
        http.check_headers([("X-Key", value)])
    assert "s3cret" not in str(caught.value)


def test_headers_keep_their_order_and_their_number() -> None:
    headers = [("X-B", "1"), ("x-b", "\xe9\t"), ("X-A", "")]
    assert http.check_headers(iter(headers)) == tuple(headers)


@pytest.mark.parametrize(
    "name", ["Authorization", "HOST", "Impersonate-User", "Sec-WebSocket-Protocol", "upgrade"]
)
def test_what_the_configuration_or_the_protocol_says_is_not_given(name: str) -> None:
    with pytest.raises(errors.ConfigError, match=f"{name} is made of the configuration"):
        http.additional_headers({"X-Trace": "1", name: "x"})
    assert http.additional_headers({"X-Trace": "1"}) == {"X-Trace": "1"}
