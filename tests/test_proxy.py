"""HTTP and WebSockets to a web server in a pod, through the API server's proxy."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import random
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import websocket
from clusters import AnyCluster
from support import eventually, in_thread, seconds, time_limit, unused_port

import kubews
from kubews import Client, Pod, errors
from kubews.config import User
from kubews.testing import LocalCluster, ServicePort

NAME, PORT = "web-server", 8080
SCRIPT = (Path(__file__).parent / "web_server.py").read_text()


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    with time_limit(900 if request.node.get_closest_marker("long") else 60):
        yield


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def server(cluster: AnyCluster) -> str:
    """The name of a pod that serves."""
    free = unused_port()
    command = ["python3", "-c", SCRIPT]
    options: dict[str, Any] = {"ports": {"web": PORT}, "labels": {"app": NAME}}
    if isinstance(cluster, LocalCluster):  # all its pods share the ports of this machine
        cluster.add_pod(NAME, {"app": [*command, str(free)]}, listens={PORT: free}, **options)
    else:
        cluster.add_pod(NAME, {"app": [*command, str(PORT)]}, **options)
    with cluster.client() as client:

        def answers() -> bool:
            with contextlib.suppress(kubews.KubewsError):
                with client.pod(NAME).request("GET", "/echo") as answer:
                    return answer.status == 200
            return False

        assert eventually(answers, 30)
    return NAME


@pytest.fixture
def web(client: Client, server: str, nothing_left_behind: None) -> Pod:
    """The pod that serves."""
    return client.pod(server)


# -- requests


def test_what_the_pod_is_asked_and_what_it_answers(web: Pod) -> None:
    with web.request(
        "GET", "/echo/a%20b/?x=1&y=%2F", params={"z": "ä &", "w": [1, 2]}, headers={"X-Mine": "yes"}
    ) as answer:
        assert (answer.status, answer.reason) == (200, "OK")
        assert answer.headers["x-of"] == "a pod"
        said = answer.json()
    assert said["method"] == "GET"
    assert said["path"] == "/echo/a%20b/?x=1&y=%2F&z=%C3%A4+%26&w=1&w=2"
    assert said["headers"]["x-mine"] == "yes"
    assert "authorization" not in said["headers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("kind", ["bytes", "file", "pieces", "none"])
def test_bodies_of_every_kind(web: Pod, method: str, kind: str) -> None:
    data = random.Random(1).randbytes(300_000)
    body: Any = {
        "bytes": data,
        "file": io.BytesIO(data),
        "pieces": (data[start : start + 7000] for start in range(0, len(data), 7000)),
        "none": None,
    }[kind]
    said = web.request(method, "/echo", body=body, port=PORT).json()
    assert said["method"] == method
    assert said["sha256"] == hashlib.sha256(b"" if kind == "none" else data).hexdigest()


@pytest.mark.parametrize("kind", ["buffered", "raw", "with a name", "to be written", "empty"])
def test_a_file_goes_with_its_length(web: Pod, tmp_path: Path, kind: str) -> None:
    """From where it stands: many servers take no chunks."""
    data = b"" if kind == "empty" else random.Random(4).randbytes(300_000)
    path = tmp_path / "data"
    path.write_bytes(b"skipped" + data)
    with contextlib.ExitStack() as held:
        file: Any
        if kind == "with a name":
            file = held.enter_context(tempfile.NamedTemporaryFile())
        elif kind == "to be written":
            file = held.enter_context(tempfile.TemporaryFile())
        else:
            file = held.enter_context(path.open("rb", buffering=0 if kind == "raw" else -1))
        if file.writable():
            file.write(b"skipped" + data)
        file.seek(len("skipped"))
        said = web.request("PUT", "/echo", body=file).json()
    assert said["headers"]["content-length"] == str(len(data))
    assert "transfer-encoding" not in said["headers"]
    assert said["sha256"] == hashlib.sha256(data).hexdigest()


def test_what_has_no_length_that_is_known_goes_in_chunks(web: Pod, tmp_path: Path) -> None:
    """A file that is decompressed has the descriptor of another, and those of /proc and /sys make up a size."""
    with gzip.open(tmp_path / "packed", "wb") as packing:
        packing.write(bytes(300_000))
    read, write = os.pipe()
    os.write(write, b"piped")
    os.close(write)
    with gzip.open(tmp_path / "packed") as unpacking, os.fdopen(read, "rb") as pipe:
        for file, size in ((unpacking, 300_000), (pipe, 5)):
            said = web.request("PUT", "/echo", body=file).json()
            assert (said["size"], said["headers"].get("content-length")) == (size, None)
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as file:
        said = web.request("PUT", "/echo", body=file).json()
    assert said["headers"]["content-length"] == "0"
    for made_up in (Path("/proc/version"), Path("/sys/class/net/lo/mtu")):
        if made_up.exists():
            with made_up.open("rb") as file:
                said = web.request("PUT", "/echo", body=file).json()
            assert said["sha256"] == hashlib.sha256(made_up.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_file_that_may_be_in_memory_goes_in_chunks(web: Pod, size: int) -> None:
    with tempfile.SpooledTemporaryFile(max_size=1000) as file:
        file.write(bytes(size))
        file.seek(0)
        said = web.request("PUT", "/echo", body=file).json()
    assert (said["size"], said["headers"].get("content-length")) == (size, None)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_while_it_is_sent(web: Pod, tmp_path: Path, change: int) -> None:
    size = 300_000
    path = tmp_path / "data"
    path.write_bytes(bytes(size))

    class Changing(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            os.truncate(path, size + change)
            return super().readinto(buffer)

    with io.BufferedReader(Changing(path)) as file:
        if change > 0:
            assert web.request("PUT", "/echo", body=file).json()["size"] == size
            return
        with pytest.raises(errors.LocalProtocolError, match=f"ended behind {size - 1} of {size} "):
            web.request("PUT", "/echo", body=file)


@pytest.mark.parametrize("length", [{}, {"Content-Length": "8"}])
def test_the_buffer_of_a_piece_can_be_used_again(web: Pod, length: dict[str, str]) -> None:
    buffer = bytearray()

    def pieces() -> Iterator[bytearray]:
        for piece in (b"four", b"more"):
            buffer.extend(piece)
            yield buffer
            buffer.clear()
        buffer.extend(b"other")

    said = web.request("POST", "/echo", body=pieces(), headers=length).json()
    assert said["sha256"] == hashlib.sha256(b"fourmore").hexdigest()


def test_a_form_that_names_its_encoding_is_sent(web: Pod) -> None:
    """As the ``MultipartEncoder`` of requests_toolbelt does."""

    class Form(io.BytesIO):
        encoding = "utf-8"

    said = web.request("POST", "/echo", body=Form(b"--x--")).json()
    assert said["size"] == 5


def test_a_device_is_read_as_far_as_its_length(web: Pod) -> None:
    with open("/dev/zero", "rb") as file:
        said = web.request("POST", "/echo", body=file, headers={"Content-Length": "9"}).json()
    assert said["sha256"] == hashlib.sha256(bytes(9)).hexdigest()


def test_a_length_that_is_given_counts(web: Pod, tmp_path: Path) -> None:
    for body, length in ((iter([b"da", b"", b"ta"]), 4), (io.BytesIO(b"data"), 4), (None, 0)):
        headers = {"content-LENGTH": str(length)}
        said = web.request("POST", "/echo", body=body, headers=headers).json()
        assert (said["size"], said["headers"]["content-length"]) == (length, str(length))
        assert "transfer-encoding" not in said["headers"]
    before = said["whole"]
    path = tmp_path / "data"
    path.write_bytes(b"data")
    with path.open("rb") as file:
        for wrong, length, message in (
            ([b"da", b"ta"], "5", "ended behind 4 of 5 bytes"),
            ([b"da", b"ta"], "3", "has more bytes than Content-Length says, 3"),
            ([b"da", b"", b"ta"], "2", "has more bytes than Content-Length says, 2"),
            (io.BytesIO(b"data"), "2", "has more bytes than Content-Length says, 2"),
            (b"data", "5", "has 4 bytes, and Content-Length says 5"),
            (file, "3", "has 4 bytes, and Content-Length says 3"),
            (None, "1", "has 0 bytes, and Content-Length says 1"),
        ):
            with pytest.raises(errors.LocalProtocolError, match=message):
                web.request("POST", "/echo", body=wrong, headers={"Content-Length": length})
    said = web.request("POST", "/echo", body=b"data").json()
    assert said["whole"] == before + 1  # no other was carried out
    with pytest.raises(errors.ConfigError, match="must be a number of bytes, not '-1'"):
        web.request("POST", "/echo", headers={"Content-Length": "-1"})


def test_a_method_in_any_case(web: Pod) -> None:
    assert web.request("put", "/echo", body=b"data").json()["method"] == "PUT"


def test_a_header_that_is_not_ascii(web: Pod) -> None:
    """As it is, in both directions."""
    with web.request("GET", "/echo", headers={"X-Mine": "\xe9"}) as answer:
        assert answer.headers["x-back"] == "\xe9"
        assert answer.json()["headers"]["x-mine"] == "\xe9"
    with contextlib.closing(web.websocket("/chat", headers={"X-Who": "\xe9"})) as chat:
        assert chat.recv() == "hello, \xe9"
    for ask in (lambda **options: web.request("GET", "/echo", **options), web.websocket):
        with pytest.raises(errors.ConfigError, match="the value of X-Mine has characters"):
            ask(headers={"X-Mine": "\u20ac"})


def test_a_head_has_no_body(web: Pod) -> None:
    with web.request("HEAD", "/bytes?n=1000") as answer:
        assert (answer.status, answer.headers["content-length"]) == (200, "1000")
        assert answer.read() == b""


def test_what_comes_is_a_file(web: Pod) -> None:
    """Read as it comes, by lines, by bytes, and to the end."""
    with web.request("GET", "/ticks?n=3&pause=0.3") as answer:
        begin = time.monotonic()
        assert next(answer) == b"tick 0\n"
        assert answer.readline() == b"tick 1\n"
        first = time.monotonic() - begin
        assert answer.read() == b"tick 2\n"
        assert answer.read() == b""
        assert first < time.monotonic() - begin  # not held back until the end
    with io.TextIOWrapper(web.request("GET", "/ticks?n=3&pause=0"), encoding="ascii") as text:
        assert text.read() == "tick 0\ntick 1\ntick 2\n"
    with web.request("GET", "/bytes?n=100000") as answer:
        assert len(answer.read(70_000)) == 70_000
        assert len(answer.read()) == 30_000


@pytest.mark.parametrize("code", [400, 401, 403, 404, 500, 503])
def test_codes_of_the_pod_are_answers_and_no_exceptions(web: Pod, code: int) -> None:
    with web.request("POST", f"/code/{code}", body=b"x") as answer:
        assert answer.status == code
        assert answer.json() == {"error": "of the pod"}


def test_a_redirect_is_given_as_it_comes(web: Pod) -> None:
    with web.request("GET", "/moved") as answer:
        assert answer.status == 302
        assert answer.headers["location"].endswith("/proxy/echo?moved=1")


def test_an_answer_that_comes_before_the_request_is_whole(web: Pod) -> None:
    """What was not sent is not waited for: the pod's word counts, or the server's about its broken pipe."""
    endless = (bytes(1 << 16) for _ in range(1 << 14))
    try:
        with web.request("POST", "/enough", body=endless, timeout=seconds(20)) as answer:
            said = answer.status, answer.read().decode()
    except errors.ServerError as exc:
        said = exc.code, str(exc)
    assert said in [(413, "that is enough"), (503, said[1])]
    assert len(list(endless)) > 1 << 10


def test_a_body_that_is_cut_r8(web: Pod, cluster: AnyCluster) -> None:
    """R-8: what came is kept, and nobody takes it for all there was."""
    with web.request("GET", "/bytes?n=70000&missing=1") as answer:
        with pytest.raises(errors.ConnectionLost, match="the answer broke off behind") as caught:
            answer.read()
    size = len(caught.value.partial)
    assert caught.value.received == {"body": size}
    # A real server loses the last of it on its own way.
    assert size == 70_000 or (size > 30_000 and not isinstance(cluster, LocalCluster))


def test_a_query_that_is_a_string_has_its_place_told(pod: Pod) -> None:
    with pytest.raises(TypeError, match="params is a mapping or pairs; a query that is a string"):
        pod.request("GET", "/", params="n=2")  # type: ignore[arg-type]


def test_closing_an_answer_ends_whoever_reads_it_and_says_so(web: Pod) -> None:
    answer = web.request("GET", "/ticks?n=2&pause=30")
    assert answer.readline() == b"tick 0\n"
    reading = in_thread(answer.read)
    time.sleep(0.2)
    answer.close()
    with pytest.raises(errors.ConnectionLost, match="behind 7 bytes: it was closed on this side"):
        reading.result(seconds(5))


def test_a_body_that_does_not_come(web: Pod) -> None:
    with web.request("GET", "/ticks?n=2&pause=30", timeout=1.5) as answer:
        assert answer.readline() == b"tick 0\n"
        with pytest.raises(errors.ConnectionLost, match=r"nothing came for 1\.5 seconds"):
            answer.readline()


def test_who_reads_can_be_stopped_from_another_thread(cluster: AnyCluster, web: Pod) -> None:
    with web.request("GET", "/ticks?n=2&pause=30") as answer:
        assert answer.readline() == b"tick 0\n"
        reading = in_thread(answer.readline)
        time.sleep(0.05)
        begin = time.monotonic()
        answer.abort()
        with pytest.raises(errors.ConnectionLost):
            reading.result(seconds(10))
        assert time.monotonic() - begin < seconds(1)
    if isinstance(cluster, LocalCluster):
        cluster.wait_idle(seconds(10))  # a server that asks nothing of the pod any more


@pytest.mark.parametrize("close", ["answer", "client"])
def test_who_reads_is_woken_by_a_close_r13(cluster: AnyCluster, web: Pod, close: str) -> None:
    """R-13: from another thread, which does not wait for it."""
    with cluster.client() as client:
        pod = client.pod(web.name)
        answer = pod.request("GET", "/ticks?n=2&pause=30")
        chat = pod.websocket("/chat")
        assert answer.readline() == b"tick 0\n"
        assert chat.recv() == "hello, you"
        reading = in_thread(answer.read), in_thread(chat.recv)
        time.sleep(0.05)
        begin = time.monotonic()
        if close == "client":
            client.close()
        else:
            answer.close()
            chat.shutdown()
        with pytest.raises(errors.ConnectionLost):
            reading[0].result(seconds(10))
        with pytest.raises((websocket.WebSocketException, OSError)):
            reading[1].result(seconds(10))
        assert time.monotonic() - begin < seconds(1)
        answer.close()


def test_many_at_once_are_not_mixed_up_r22(web: Pod) -> None:
    """R-22: threads that share a client, and streams beside requests."""

    def one(number: int) -> bool:
        body = b"%d" % number * 1000
        said = web.request("POST", f"/echo/{number}", body=body).json()
        good = said["sha256"] == hashlib.sha256(body).hexdigest()
        echoed = web.check_output(["echo", str(number)]).decode().strip()
        return good and said["path"] == f"/echo/{number}" and echoed == str(number)

    asked = [in_thread(one, number) for number in range(24)]
    assert all(each.result(seconds(40)) for each in asked)


@pytest.mark.parametrize("size", [64 << 20, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_an_upload_that_streams(web: Pod, size: int) -> None:
    """Made as it is sent: it is nowhere as a whole."""
    block = random.Random(2).randbytes(1 << 20)
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for _ in range(size >> 20):
            digest.update(block)
            yield block

    said = web.request("PUT", "/echo", body=pieces()).json()
    assert (said["size"], said["sha256"]) == (size, digest.hexdigest())


def test_a_download_that_streams(web: Pod) -> None:
    with web.request("GET", f"/bytes?n={64 << 20}") as answer:
        size = 0
        while piece := answer.read1(1 << 20):
            size += len(piece)
    assert size == 64 << 20


# -- who is not reached


def test_a_port_where_nobody_listens(web: Pod, cluster: AnyCluster) -> None:
    if isinstance(cluster, LocalCluster):
        cluster.add_pod("deaf", ports={"web": 80}, listens={80: None})
        web = web.client.pod("deaf")
    with pytest.raises(errors.ServerError, match="error trying to reach service") as caught:
        web.request("GET", "/", port=80 if isinstance(cluster, LocalCluster) else 9)
    assert caught.value.code == 503
    with pytest.raises(errors.ServerError, match="error dialing backend") as caught:
        web.websocket("/", port=80 if isinstance(cluster, LocalCluster) else 9)
    assert caught.value.code == 500


def test_a_pod_that_is_not_there(client: Client) -> None:
    with pytest.raises(errors.NotFound, match='pods "nobody" not found'):
        client.pod("nobody").request("GET", "/")


def test_a_user_who_may_not(cluster: AnyCluster, server: str) -> None:
    token = cluster.add_user("reader", verbs={"pods": ["get"]})
    admin = kubews.Config.load(cluster.kubeconfig)
    with Client(dataclasses.replace(admin, user=User(token=token))) as client:
        with pytest.raises(errors.Forbidden, match="needs the verb create on pods/proxy"):
            client.pod(server).request("POST", "/echo")
        with pytest.raises(errors.Forbidden, match="needs the verb get on pods/proxy"):
            client.pod(server).websocket("/chat")


@pytest.mark.parametrize("path", ["/../x", "/a/%2e%2e/b", "..", "/a/..%2fb", "/./x", "/%2E%2e"])
def test_a_path_that_leads_to_others(client: Client, path: str) -> None:
    """What is made of somebody's input must not ask the API server for something else."""
    for ask in (client.pod("web-0").websocket, lambda p: client.pod("web-0").request("GET", p)):
        with pytest.raises(errors.ConfigError, match="segments of dots"):
            ask(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "GET /x"}, "not a method"),
        ({"scheme": "ftp"}, "scheme must be"),
        ({"headers": {"Authorization": "x"}}, "Authorization"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "X-A"),
        ({"port": 0}, "must be > 0"),
        ({"path": "http://web/echo?x=1"}, r"the path of a URL is wanted, '/echo\?x=1'"),
        ({"path": "HTTPS://web"}, "the path of a URL is wanted, '/'"),
    ],
)
def test_what_cannot_be_asked(client: Client, options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        client.pod("web-0").request(**{"method": "GET", **options})
    with pytest.raises(errors.ConfigError, match="the path of a URL is wanted, '/chat'"):
        client.pod("web-0").websocket("ws://pod/chat")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("text", "body= .* str is none of them: encode the text"),
        (io.StringIO("text"), "body= .* StringIO is none of them: encode the text"),
        ({"a": 1}, r"body= .* dict is none of them: json\.dumps\(\.\.\.\)\.encode\(\) makes"),
        (7, "body= .* int is none of them"),
    ],
)
def test_what_is_no_body(client: Client, body: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        client.pod("web-0").request("POST", body=body)


@pytest.mark.parametrize(("piece", "cure"), [("text", "encode the text"), ({"a": 1}, "json.dumps")])
def test_what_is_no_piece_of_a_body(web: Pod, piece: Any, cure: str) -> None:
    with pytest.raises(TypeError, match=f"{type(piece).__name__} is none of them: {cure}"):
        web.request("POST", "/echo", body=[piece])


@pytest.mark.parametrize("value", [1, b"1", None])
def test_what_is_no_value_of_a_header(client: Client, value: Any) -> None:
    pod = client.pod("web-0")
    for ask in (lambda **options: pod.request("GET", **options), pod.websocket):
        with pytest.raises(TypeError, match="the value of X-Retry must be str, not"):
            ask(headers={"X-Retry": value})


@pytest.mark.parametrize("names", [["chat\r\nX-Evil: 1"], ["a, b"], [""], ["ä"], "chat"])
def test_what_is_no_subprotocol(client: Client, names: Any) -> None:
    with pytest.raises(errors.ConfigError, match="no names of subprotocols"):
        client.pod("web-0").websocket("/chat", subprotocols=names)


@pytest.mark.parametrize("name", ["", "..", "a/b", "https:web"])
def test_what_is_no_service_and_no_node(client: Client, name: str) -> None:
    for make in (client.service, client.node):
        with pytest.raises(errors.ConfigError, match="is not the name of one of the"):
            make(name)
    with pytest.raises(errors.ConfigError, match="is no name"):
        client.service("web").request("GET", "/", port="80/proxy/..")


def test_what_would_end_the_line_is_encoded(web: Pod) -> None:
    said = web.request("GET", "/echo/a b\r\nX-Evil: 1").json()
    assert said["path"] == "/echo/a%20b%0D%0AX-Evil:%201"


def test_credentials_that_are_refused_once(client: Client, cluster: AnyCluster, web: Pod) -> None:
    """A body that can be read again is; another says why not."""
    source = cluster if isinstance(cluster, LocalCluster) else None
    if source is None:
        pytest.skip("a real cluster takes what it has taken before")
    refusal = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":401}'
    raw = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    faults = kubews.testing.Faults(match="/proxy/", response=raw % (len(refusal), refusal))
    source.next_faults(faults)
    file = io.BytesIO(b"skipped" + b"data")
    file.seek(7)
    assert web.request("POST", "/echo", body=file).json()["size"] == 4
    source.next_faults(faults)
    with pytest.raises(errors.ConfigError, match="cannot be read again"):
        web.request("POST", "/echo", body=iter([b"data"]))


# -- WebSockets


def test_a_websocket(web: Pod) -> None:
    chat = web.websocket("/chat/room", headers={"X-Who": "me"}, subprotocols=["chat", "other"])
    with contextlib.closing(chat):
        assert isinstance(chat, websocket.WebSocket)
        assert chat.subprotocol == "chat"
        assert chat.headers["x-seen-path"] == "/chat/room"
        assert chat.recv() == "hello, me"
        for size in (1, 200, 70_000, 1 << 20):
            data = random.Random(size).randbytes(size)
            chat.send_binary(data)
            assert chat.recv() == data
        chat.ping("x")
        chat.send("text")
        frames = [chat.recv_data(control_frame=True) for _ in range(2)]
        assert (websocket.ABNF.OPCODE_TEXT, b"text") in frames


def test_a_websocket_in_two_threads(web: Pod) -> None:
    """R-15: one sends and one receives, and never two are inside TLS."""
    with contextlib.closing(web.websocket("/chat", timeout=seconds(20))) as chat:
        assert chat.recv() == "hello, you"

        def send() -> None:
            for number in range(300):
                chat.send_binary(b"%d " % number * 2000)

        sending = in_thread(send)
        for number in range(300):
            assert chat.recv() == b"%d " % number * 2000
        sending.result(seconds(10))


def test_a_websocket_that_is_silent_or_closed_elsewhere(web: Pod) -> None:
    with contextlib.closing(web.websocket("/chat", timeout=1)) as chat:
        assert chat.recv() == "hello, you"
        with pytest.raises(websocket.WebSocketTimeoutException):
            chat.recv()
        chat.settimeout(None)
        reading = in_thread(chat.recv)
        time.sleep(0.05)
        chat.shutdown()
        with pytest.raises((websocket.WebSocketException, OSError)):
            reading.result(seconds(10))


def test_a_query_is_refused_and_the_way_round_works(web: Pod) -> None:
    with pytest.raises(errors.ConfigError, match="has a query, which API servers drop"):
        web.websocket("/chat?room=1")
    with web.connect(PORT, timeout=seconds(10)) as sock:
        chat = websocket.create_connection("ws://pod/chat?room=1", socket=sock)
        assert chat.headers["x-seen-path"] == "/chat?room=1"
        chat.close()


def test_a_pod_that_refuses_a_websocket(cluster: AnyCluster, web: Pod) -> None:
    with pytest.raises(errors.Forbidden, match="not for you") as caught:
        web.websocket("/chat/closed")
    assert caught.value.body == "not for you"
    assert "verb" not in str(caught.value)  # the API server had nothing against it
    with pytest.raises(errors.ServerError, match="invalid upgrade response: status code 200"):
        web.websocket("/echo")
    if isinstance(cluster, LocalCluster):
        cluster.wait_idle(seconds(10))


# -- services and nodes


def test_a_service_by_each_of_its_names(cluster: AnyCluster, client: Client, server: str) -> None:
    cluster.add_service("shop", selector={"app": server}, ports=[ServicePort(80, PORT, "http")])
    with endpoints(cluster, client, "shop", server):
        service = client.service("shop")
        for port in ("http", 80):
            assert eventually(lambda port=port: ready(service, port), 20)
            asked = service.request("GET", "/echo/x?y=1", port=port).json()
            assert asked["path"] == "/echo/x?y=1"
        with contextlib.closing(service.websocket("/chat", port="http")) as chat:
            assert chat.recv() == "hello, you"
        for port, missing in (
            (81, 'no service port 81 found for service "shop"'),
            ("wrong", 'no endpoints available for service "shop:wrong"'),
        ):
            with pytest.raises(errors.ServerError, match=missing):
                service.request("GET", "/", port=port)
        said = client.pod("svc/shop").request("GET", "/echo", port=80).json()
        assert said["path"] == "/echo"


@contextlib.contextmanager
def endpoints(cluster: AnyCluster, client: Client, service: str, pod: str) -> Iterator[None]:
    """Do what a controller of endpoints would, where there is none."""
    if isinstance(cluster, LocalCluster):
        yield
        return
    address = client.pod(pod).get()["status"]["podIP"]
    # Without the pod it is nobody's address, and not used.
    target = {"kind": "Pod", "name": pod, "namespace": client.config.namespace}
    ports = [{"name": "http", "port": PORT}]
    document = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": service},
        "subsets": [{"addresses": [{"ip": address, "targetRef": target}], "ports": ports}],
    }
    path = f"/api/v1/namespaces/{client.config.namespace}/endpoints"
    sent = {"Content-Type": "application/json"}
    client.request("POST", path, body=json.dumps(document).encode(), headers=sent)
    try:
        yield
    finally:
        client.request("DELETE", f"{path}/{service}")


def ready(service: Any, port: Any) -> bool:
    with contextlib.suppress(errors.ApiError):
        return bool(service.request("GET", "/echo", port=port).json())
    return False


def test_a_node(cluster: AnyCluster, client: Client) -> None:
    if not isinstance(cluster, LocalCluster):
        nodes = json.loads(client.request("GET", "/api/v1/nodes").body)["items"]
        with pytest.raises(errors.BadRequest, match="address not allowed"):  # it is on loopback
            client.node(nodes[0]["metadata"]["name"]).request("GET", "/healthz")
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = in_thread(answer_once, listener)
        node = client.node("localhost")
        with node.request("GET", "/healthz", port=listener.getsockname()[1]) as answer:
            assert (answer.status, answer.read()) == (200, b"ok")
        assert answering.result(seconds(10)).startswith(b"GET /healthz HTTP/1.1\r\n")
    with pytest.raises(errors.NotFound, match='nodes "elsewhere" not found'):
        client.node("elsewhere").request("GET", "/")


def test_a_server_that_speaks_tls(local: LocalCluster) -> None:
    """The scheme is what it speaks, and its certificate need not be known to anybody."""
    with local.client() as client, socket.create_server(("127.0.0.1", 0)) as listener:
        settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("elsewhere").configure_cert(settings)
        answering = in_thread(answer_once, listener, settings)
        node, port = client.node("localhost"), listener.getsockname()[1]
        body = random.Random(3).randbytes(1 << 20)
        with node.request("PUT", "/", port=port, scheme="https", body=body) as answer:
            assert answer.read() == b"ok"
        assert answering.result(seconds(10)).endswith(body)


def answer_once(listener: socket.socket, settings: ssl.SSLContext | None = None) -> bytes:
    sock, _ = listener.accept()
    if settings is not None:
        sock = settings.wrap_socket(sock, server_side=True)
    with sock:
        asked = sock.recv(65536)
        length = re.search(rb"(?i)content-length: (\d+)", asked)
        while length and len(asked.partition(b"\r\n\r\n")[2]) < int(length[1]):
            asked += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return asked
