"""The WebSocket: upgrade, frames in, frames out. The only module that knows websocket-client.

websocket-client parses and builds frames; what it does with sockets, timeouts, redirects, proxies and
errors is kept out of its hands (``DeadlineSocket``, ``redirect_limit``), because there it would follow
redirects with the credentials, run past any timeout on a dripping answer and lose a chunked refusal.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, cast

import websocket
from websocket import ABNF
from websocket import WebSocket as WebSocket  # for annotations of others

from kubews.errors import ConnectFailed, ConnectTimeout, KubewsError, RemoteProtocolError
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.http import (
    MAX_ERROR_BODY,
    DeadlineSocket,
    Headers,
    Response,
    api_error,
    read_refusal,
)
from kubews.transport.patientsocket import PatientSocket

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from kubews.transport.tlssockets import Socket

CONT = ABNF.OPCODE_CONT
TEXT = ABNF.OPCODE_TEXT
BINARY = ABNF.OPCODE_BINARY
CLOSE = ABNF.OPCODE_CLOSE
PING = ABNF.OPCODE_PING
PONG = ABNF.OPCODE_PONG

#: The largest frame that is accepted. A v4 server sends a write of its runtime as one frame.
MAX_FRAME = 64 << 20

_MAX_HEAD = 64 * 1024
_READ_AHEAD = 64 * 1024
# Requests of at least this size are read straight from the socket; smaller ones (headers) through a
# buffer, or a frame would cost five calls into the kernel.
_DIRECT = 4096

# From here on masking in Python costs more than a compiled mask and its import, in bytes.
_WORTH_COMPILED = 4096

# The name that websocket-client believes to connect to. Nobody can guess it, so that no server can put a
# cookie for it into the process-wide jar. What the server sees is the Host header.
_URL = f"ws://{os.urandom(16).hex()}"


class WouldBlock(BlockingIOError):
    """The socket must become ready first.

    Args:
        events: what to wait for (TLS may have to write in order to read).

    Threads: a value.
    """

    def __init__(self, events: int) -> None:
        super().__init__()
        self.events = events


class Frame(NamedTuple):
    """One RFC 6455 frame; a message may be several.

    Threads: a value.
    """

    opcode: int
    final: bool
    payload: bytes


class _HeadComplete(Exception):
    """websocket-client wants to read the body of a refusal, which is done better elsewhere."""


class _HandshakeSocket(DeadlineSocket):
    _head_only = True
    broken: Optional[OSError] = None

    def recv(self, size: int) -> bytes:
        if self._head_only and self._received.endswith(b"\r\n\r\n", 0, self._position):
            raise _HeadComplete
        try:
            return super().recv(size)
        except OSError as exc:
            self.broken = exc
            raise

    def rewind(self) -> None:
        self._head_only = False  # from now on somebody reads who can
        super().rewind()

    def send(self, data: Buffer) -> int:
        # As http.client does; websocket-client encodes with UTF-8, another token than was given.
        return super().send(bytes(data).decode().encode("latin-1"))


class Wire:
    """A WebSocket after its upgrade, without any waiting.

    Args:
        sock: non-blocking, and from now on used by nobody else.
        subprotocol: the negotiated one, in lower case.
        ahead: bytes that were received behind the answer.

    Threads: one; it alone may touch the socket, because two threads inside one SSL object break it.
    """

    def __init__(self, sock: Socket, subprotocol: str, ahead: bytes = b"") -> None:
        self._sock = sock
        self.subprotocol = subprotocol
        self._ahead = ahead
        self._position = 0
        self._inside_message = False
        # Without UTF-8 validation: a text frame is bytes here, and checking them is not our affair.
        self._frames = websocket.frame_buffer(self._recv, True)

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def receive(self) -> Frame:
        """Return the next frame.

        A frame that has arrived in part is kept, so that the next call goes on with it.

        Raises:
            WouldBlock: it is not there yet.
            EOFError: the peer closed the connection.
            OSError: the connection broke.
            RemoteProtocolError: this is no frame.
        """
        try:
            frame = self._frames.recv_frame()
        except WouldBlock:
            self._merge()
            raise
        except websocket.WebSocketException as exc:
            raise RemoteProtocolError(f"the server sent a malformed frame: {exc}") from exc
        received = Frame(frame.opcode, bool(frame.fin), cast(bytes, frame.data))
        self._check(received)
        return received

    def send(self, data: memoryview) -> int:
        """Send what the kernel takes; return the number of bytes.

        After ``WouldBlock`` the next call must start with the same bytes: OpenSSL refuses others.

        Raises:
            WouldBlock: it takes nothing now.
            OSError: the connection broke.
        """
        try:
            return self._sock.send(data)
        except ssl.SSLWantReadError:
            raise WouldBlock(selectors.EVENT_READ) from None
        except (ssl.SSLWantWriteError, BlockingIOError):
            raise WouldBlock(selectors.EVENT_WRITE) from None

    def close(self) -> None:
        """Close the socket, without a TLS farewell: the WebSocket has its own."""
        # Whoever waits must hear of it even if somebody has closed the number.
        with contextlib.suppress(OSError):
            forks.close(self._sock)

    def _merge(self) -> None:
        # The parser counts all pieces of an unfinished frame anew at each call: a frame that drips would
        # cost the square of its pieces. Merged like this they are few, and a byte is rarely copied.
        pieces = self._frames.recv_buffer
        while len(pieces) > 1 and len(pieces[-1]) >= len(pieces[-2]):
            pieces[-2:] = [pieces[-2] + pieces[-1]]

    def _check(self, received: Frame) -> None:
        # What websocket-client leaves to its reassembly, which is not used here.
        if received.opcode in (CLOSE, PING, PONG):
            if not received.final or len(received.payload) > 125:
                raise RemoteProtocolError("the server sent a malformed frame: a long control frame")
        elif (received.opcode == CONT) != self._inside_message:
            raise RemoteProtocolError("the server sent a malformed frame: a fragment out of place")
        else:
            self._inside_message = not received.final

    def _recv(self, size: int) -> bytes:
        # The parser asks until it has what it wants, so this is the place that can stop it.
        if self._frames.length is not None and self._frames.length > MAX_FRAME:
            raise RemoteProtocolError(
                f"the server sent a frame of {self._frames.length} bytes; {MAX_FRAME} is the limit"
            )
        if self._position < len(self._ahead):
            end = self._position + size
            data = self._ahead[self._position : end]
            self._position = end
            return data
        if size >= _DIRECT:
            return self._recv_socket(size)
        self._ahead = self._recv_socket(_READ_AHEAD)
        self._position = size
        return self._ahead[:size]

    def _recv_socket(self, size: int) -> bytes:
        try:
            data = self._sock.recv(size)
        except ssl.SSLWantWriteError:
            raise WouldBlock(selectors.EVENT_WRITE) from None
        except (ssl.SSLWantReadError, BlockingIOError):
            raise WouldBlock(selectors.EVENT_READ) from None
        if not data:
            raise EOFError("the server closed the connection")
        return data


def frame(payload: Buffer, opcode: int = BINARY) -> bytes:
    """Build one masked frame.

    Args:
        payload: of the whole message; a client's message must not be fragmented.
        opcode: of a data or a control frame.

    Threads: any; masking costs time, so it is done by the caller and not by the loop.
    """
    data = bytes(payload)
    if len(data) >= _WORTH_COMPILED and (build := _compiled()):
        return build(opcode, data)
    built: bytes = ABNF.create_frame(data, opcode).format()
    return built


def prepare() -> None:
    """Import what ``frame`` may need, in the place of a loop's thread, where everybody would wait for it.

    Threads: any.
    """
    _compiled()


@functools.cache
def _compiled() -> Optional[Callable[[int, bytes], bytes]]:
    """Return what builds frames with a compiled mask (the extra ``speed``), or None where that is not."""
    try:
        import websockets.speedups  # noqa: F401 - without it the other is no faster
        from websockets import frames

        def build(opcode: int, data: bytes) -> bytes:
            return frames.Frame(frames.Opcode(opcode), data).serialize(mask=True)

        build(BINARY, b"")  # a release that is too old has other arguments
    except (ImportError, AttributeError, TypeError):
        return None
    return build


def upgrade(
    sock: Socket,
    target: str,
    headers: Headers,
    subprotocols: Sequence[str],
    what: str,
    deadline: Deadline,
) -> Wire:
    """Ask for a WebSocket.

    Args:
        sock: connected; the caller closes it if this raises.
        target: path and query.
        headers: with ``Host``; checked by ``check_headers``.
        subprotocols: in order of preference, sent as one header line (servers read only the first).
        what: the request in words, for errors.
        deadline: for request and answer together.

    Raises:
        ApiError: the server refused.
        ConnectTimeout: the deadline passed.
        ConnectFailed: the connection broke, or this is no HTTP server.
        RemoteProtocolError: the server agreed to something that was not offered.

    Threads: blocks.
    """
    client, ahead = _shake(sock, target, headers, subprotocols, what, deadline)
    return Wire(sock, client.subprotocol or "", ahead)


def connected(
    sock: Socket,
    target: str,
    headers: Headers,
    subprotocols: Sequence[str],
    what: str,
    deadline: Deadline,
    timeout: Optional[float],
) -> WebSocket:
    """Ask for a WebSocket, and hand it on as one of websocket-client's.

    Args:
        timeout: seconds for each of its calls from then on, None for ever. The rest: see ``upgrade``.

    Threads: blocks.
    """
    client, ahead = _shake(sock, target, headers, subprotocols, what, deadline)
    client.sock = cast("Any", PatientSocket(sock, timeout, ahead))
    client.settimeout(timeout)
    return client


def _shake(
    sock: Socket,
    target: str,
    headers: Headers,
    subprotocols: Sequence[str],
    what: str,
    deadline: Deadline,
) -> tuple[WebSocket, bytes]:
    """Return a client behind its handshake, and the bytes that came behind the answer."""
    handshake = _HandshakeSocket(sock, deadline, _MAX_HEAD + MAX_ERROR_BODY)
    client: Any = WebSocket(enable_multithread=True)
    host = dict(headers)["Host"]
    failure = None
    try:
        client.connect(
            _URL + target,
            socket=handshake,
            host=host,
            header=[f"{name}: {value}" for name, value in headers if name != "Host"],
            subprotocols=list(subprotocols),
            suppress_origin=True,
            redirect_limit=0,
        )
    except Exception as exc:  # whatever websocket-client makes of the answer, it is read anew
        failure = exc
    # Releases differ in what a redirect is with redirect_limit=0: only 101 counts.
    if failure is None and client.status == 101:
        return client, handshake.rest()
    refusal = read_refusal(handshake)
    if refusal is not None:
        raise _explain(refusal, subprotocols, what) from None  # it is the answer, not a failure
    if deadline.expired():
        raise ConnectTimeout(f"{what}: no answer within the time limit") from failure
    said = "what came is no HTTP" if handshake.received() else "the server closed the connection"
    if handshake.broken is not None:
        # With TLS 1.3 this is where the server says what it thinks of the client's certificate.
        said = f"the connection broke: {handshake.broken}"
    raise ConnectFailed(f"{what}: no answer, {said}") from failure


def _explain(response: Response, subprotocols: Sequence[str], what: str) -> KubewsError:
    offered = ", ".join(subprotocols)
    if response.code == 101:
        chosen = response.headers.get("sec-websocket-protocol") or "none"
        return RemoteProtocolError(
            f"{what}: the server's upgrade is not usable (offered {offered}; it chose {chosen})"
        )
    hint = ""
    if response.code == 403:
        # The literal answer of x/net/websocket to an unknown subprotocol (protocol: hybi.go).
        hint = f"the server knows none of the offered subprotocols ({offered})"
    elif 300 <= response.code < 400:
        location = response.headers.get("location", "elsewhere")
        hint = f"the server redirects to {location}, and credentials are not sent after it"
    return api_error(response, what, hint)
