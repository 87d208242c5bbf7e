"""A raw client for tests of LocalCluster: h11 and Sans-IO websockets, none of it of kubews.

Everything blocks, and everything has a deadline.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import secrets
import socket
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import h11
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State

SCALE = float(os.environ.get("KUBEWS_TEST_SCALE", "1"))
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)
SUCCESS = b'{"metadata":{},"status":"Success"}'


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def client_context(cluster: Any, *, cert: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    if cert:
        with tempfile.NamedTemporaryFile() as file:
            file.write(cluster.admin_cert_pem + cluster.admin_key_pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def address_of(cluster: Any) -> tuple[str, int]:
    url = urllib.parse.urlsplit(cluster.server)
    return url.hostname or "", url.port or 443


def port_of(cluster: Any) -> int:
    return address_of(cluster)[1]


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    # h11 takes bytes, or else ASCII.
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


class RawClient:
    """One TLS connection to a LocalCluster, or to whatever has its ``server`` and certificates."""

    def __init__(self, cluster: Any, *, cert: bool = True, timeout: float = 10.0) -> None:
        self.timeout = timeout * SCALE
        address = address_of(cluster)
        plain = socket.create_connection(address, self.timeout)
        try:
            context = client_context(cluster, cert=cert)
            self.sock = context.wrap_socket(
                plain, server_hostname=address[0], suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise
        self.http = h11.Connection(h11.CLIENT)
        self.protocol: Optional[ClientProtocol] = None
        self.frames: list[Frame] = []
        self.taken = 0
        self.ended: Optional[str] = None

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def request(
        self,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        method: str = "GET",
        body: bytes = b"",
    ) -> Answer:
        """Send a request and read the whole answer, or the head of a 101."""
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        fixed = [("Host", "x"), *([("Content-Length", str(len(body)))] if body else [])]
        request = h11.Request(method=method, target=target, headers=[*fixed, *_encoded(headers)])
        self.sock.sendall(self.http.send(request) or b"")
        self.sock.sendall(self.http.send(h11.Data(data=body)) or b"")
        self.sock.sendall(self.http.send(h11.EndOfMessage()) or b"")
        head: Any = None
        received = b""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(self.sock.recv(65536))
            elif isinstance(event, (h11.Response, h11.InformationalResponse)):
                head = event
                if head.status_code == 101:
                    break
            elif isinstance(event, h11.Data):
                received += bytes(event.data)
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                break
        fields = {key.decode(): value.decode() for key, value in head.headers}
        return Answer(head.status_code, fields, received)

    def upgrade(
        self, target: str, protocols: Sequence[str] = (V5,), headers: Iterable[Any] = ()
    ) -> Answer:
        """Ask for a WebSocket."""
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", base64.b64encode(secrets.token_bytes(16)).decode()),
            *headers,
        ]
        if protocols:
            fields.append(("Sec-WebSocket-Protocol", ",".join(protocols)))
        answer = self.request(target, fields)
        if answer.status == 101:
            self.protocol = ClientProtocol(_URI, state=State.OPEN, max_size=None)
            self._feed(self.http.trailing_data[0])
        return answer

    def exec(
        self,
        *command: str,
        pod: str = "box",
        container: str = "main",
        stdin: bool = False,
        tty: bool = False,
        protocols: Sequence[str] = (V5,),
        headers: Iterable[Any] = (),
    ) -> Answer:
        """Ask for a command in a pod."""
        query = [("container", container), *(("command", word) for word in command)]
        query += [("stdin", "true")] if stdin else []
        query += [("stdout", "true"), ("stderr", "true")]
        query += [("tty", "true")] if tty else []
        return self.upgrade(exec_target(query, pod), protocols, headers)

    def send(self, data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> None:
        self.sock.sendall(Frame(opcode, data, fin=fin).serialize(mask=True))

    def _feed(self, data: bytes) -> None:
        assert self.protocol is not None
        if not data:
            return
        self.protocol.receive_data(data)
        self.frames += list(self.protocol.events_received())  # type: ignore[arg-type]

    def pump(self, timeout: Optional[float] = None) -> bool:
        """Read once; False at the end of the stream (``ended`` says how) or after ``timeout``."""
        self.sock.settimeout(self.timeout if timeout is None else timeout)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            if timeout is None:
                raise
            return False
        except ssl.SSLEOFError:
            self.ended = "fin"
            return False
        except ConnectionResetError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "close_notify"
            return False
        self._feed(data)
        return True

    def until(self, wanted: bytes, channel: int = STDOUT) -> None:
        """Read until ``wanted`` has arrived on a channel."""
        end = time.monotonic() + self.timeout
        while wanted not in self.channel(channel):
            assert time.monotonic() < end, self.frames
            assert self.pump(), (self.ended, self.frames)

    def run_out(self) -> RawClient:
        """Read to the end of the stream."""
        while self.pump():
            pass
        return self

    def messages(self) -> list[bytes]:
        """Return the data messages, fragments joined."""
        messages: list[bytes] = []
        for frame in self.frames:
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT):
                messages.append(bytes(frame.data))
            elif frame.opcode is Opcode.CONT:
                messages[-1] += bytes(frame.data)
        return messages

    def channel(self, number: int) -> bytes:
        """Return everything received on a channel."""
        return b"".join(message[1:] for message in self.messages() if message[0] == number)

    def close_codes(self) -> list[bytes]:
        return [bytes(frame.data) for frame in self.frames if frame.opcode is Opcode.CLOSE]


def exec_target(query: Iterable[Any], pod: str = "box", ns: str = "default") -> str:
    return f"/api/v1/namespaces/{ns}/pods/{pod}/exec?{urllib.parse.urlencode([tuple(pair) for pair in query])}"


def _uri() -> Any:
    from websockets.uri import parse_uri

    return parse_uri("wss://127.0.0.1/")


_URI = _uri()
