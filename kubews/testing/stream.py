"""An exec stream after the upgrade: frames on one side, a process on the other.

One thread carries a stream: it polls the socket, the process's pipes and its exit, and moves bytes
only where the other side takes them. A client that does not read blocks the process on its pipe; a
process that does not read stops the reading from the client, pongs included, as on a real server.

Threads: everything here belongs to the thread of its connection.
"""

from __future__ import annotations

import base64
import binascii
import collections
import os
import select
from typing import TYPE_CHECKING, Optional, Union

from websockets.frames import Frame, Opcode

from kubews.testing.attachments import Attachment
from kubews.testing.containers import Container
from kubews.testing.dialect import Dialect, Options
from kubews.testing.frames import GoServerProtocol, close_frame
from kubews.testing.messages import Messages
from kubews.testing.processes import CannotStart, ExecProcess, PodGone
from kubews.testing.resize import Resizer, Wedged
from kubews.testing.tls import HANGUP, Bytes, Gone, Wire

if TYPE_CHECKING:
    from kubews.testing.connection import Connection

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

_V5_PIECE = 32 << 10  # io.Copy's buffer in the translator
_READ = 64 << 10
# What a real server takes for a process that does not read, besides its pipe: containerd's fifo, and
# the buffers of the two that copy into and out of it.
_ROOM = 128 << 10
_HIGH = 256 << 10  # bytes waiting for the client above which a process is not read

Carried = Union[ExecProcess, Attachment]


class ExecStream:
    """One exec stream after the 101.

    Threads: one.
    """

    def __init__(self, connection: Connection, dialect: Dialect, options: Options) -> None:
        self._connection = connection
        self._wire: Wire = connection.wire
        self._faults = connection.faults
        self._messages = Messages(self._wire, self._faults)
        self._dialect = dialect
        self._options = options
        self._protocol = GoServerProtocol()
        self._resizer = Resizer(options.tty, dialect.v5)
        self._events: collections.deque[object] = collections.deque()  # arrived, not handled
        self._input: collections.deque[Bytes] = collections.deque()  # for the process
        self._input_size = 0
        self._input_ended = not options.stdin
        # The input that nobody asked for is one that has ended (wsstream/conn.go: Read), and with a
        # terminal the runtime ends the output with it (containerd: ExecIO.Attach). There it is a race,
        # and some output may come.
        self._output_ended = options.tty and not options.stdin and not dialect.v5
        self._input_count = 0
        self._output: dict[int, bytearray] = {}
        # False: the server's read loop is stuck for good.
        self._reading = self._faults.stop_reading_after != 0
        self._status_sent = False
        self._gone = False  # the client or the connection has ended
        self._poll = select.poll()
        self._polled: dict[int, int] = {}
        self._process: Optional[Carried] = None
        self._exited = False

    # Out.

    def open(self) -> None:
        """Send the ready marker: an empty message on the lowest requested output channel."""
        self._wire.limit(self._faults.drop_after)
        channel = STDOUT if self._options.stdout else STDERR if self._options.stderr else STATUS
        self._send(channel, b"")
        self._messages.inject()

    def fail(self, status: bytes) -> None:
        """Send a status and end the stream. Blocks until it is sent."""
        self._end(status)

    def _send(self, channel: int, payload: Bytes) -> None:
        if self._dialect.base64:
            self._messages.send(b"%d" % channel + base64.b64encode(payload), Opcode.TEXT)
        else:
            self._messages.send(b"".join((bytes((channel,)), payload)))

    def _send_output(self, channel: int, data: Bytes, *, final: bool = False) -> None:
        """Send output in frames as long as the protocol's, or as the faults want them."""
        wanted = self._faults.frame_size
        if wanted:
            buffer = self._output.setdefault(channel, bytearray())
            buffer += data
            while len(buffer) >= wanted or (final and buffer):
                self._send(channel, bytes(buffer[:wanted]))
                del buffer[:wanted]
            return
        size = _V5_PIECE if self._dialect.v5 else _READ
        for start in range(0, len(data), size):
            self._send(channel, data[start : start + size])

    def _send_status(self, status: bytes) -> None:
        status = status if self._faults.status is None else self._faults.status
        if self._faults.no_status or (not status and self._faults.status is None):
            return
        self._status_sent = True
        size = self._faults.status_pieces or max(1, len(status))
        for start in range(0, max(1, len(status)), size):
            self._send(STATUS, status[start : start + size])

    def _end(self, status: bytes) -> None:
        """Send the status, the Close frame, and close TCP at once, as x/net does."""
        if not self._gone:
            if not self._status_sent:
                self._send_status(status)
            self._messages.close()
            self._wire.finish()
        self._disconnect()

    def _disconnect(self) -> None:
        if not self._gone:
            self._gone = True
            fd = self._wire.fileno()
            if self._polled.pop(fd, None) is not None:
                self._poll.unregister(fd)
            self._connection.server.disconnected(self._wire)
            if not self._reading:  # nobody will handle these
                self._events.clear()
                self._end_input()
            self._take()

    # The process.

    def execute(self, container: Container) -> None:
        """Run the command and carry its streams to the end. Blocks.

        A client that disconnects does not end the process: its input ends, its output is discarded.
        """
        options = self._options
        try:
            process = container.execute(
                options.command,
                stdin=options.stdin,
                stdout=options.stdout,
                stderr=options.stderr,
                tty=options.tty,
            )
        except CannotStart as exc:
            self.fail(self._dialect.cannot_start(str(exc)))
            return
        except PodGone:
            self.fail(self._dialect.exit(137, options.command))
            return
        try:
            self._carry(process)
        finally:
            code = container.finish(process)
        status = self._dialect.exit(code, options.command) if code else self._dialect.success()
        self._end(status)

    def attach(self, attachment: Attachment, status: bytes) -> None:
        """Carry an attachment to its end, which the status tells: no exit code comes with it. Blocks."""
        try:
            self.open()  # after the attaching: who sees the marker misses nothing from then on
            self._carry(attachment)
        finally:
            attachment.close()
        self._end(status)

    def _carry(self, process: Carried) -> None:
        self._process = process
        try:
            self._early()
            self._received(self._connection.take_trailing())
            self._pump(process)
        except BaseException:
            self._disconnect()
            process.kill()
            raise

    def _early(self) -> None:
        if self._faults.early_status:
            self._send_status(self._dialect.success())

    def _pump(self, process: Carried) -> None:
        while True:
            self._flush()
            done = process.stdout is None and process.stderr is None
            if done and (self._exited or process.exited):
                return
            if self._gone and process.detaches:
                return
            self._arm(process)
            # Without a descriptor for the exit it is looked for every 20 ms once the pipes ended.
            blind = done and process.exit_fd is None
            for fd, events in self._poll.poll(20 if blind else None):
                self._ready(process, fd, events)

    def _flush(self) -> None:
        if not self._gone:
            try:
                self._wire.flush()
            except Gone:
                self._disconnect()

    def _arm(self, process: Carried) -> None:
        """Ask poll for exactly what can be used now."""
        wanted = {self._connection.server.stop_fd: select.POLLIN}
        room = self._gone or self._wire.pending < _HIGH
        if process.exit_fd is not None and not self._exited:
            wanted[process.exit_fd] = select.POLLIN
        for fd in (process.stdout, process.stderr):
            if fd is not None and room:
                wanted[fd] = select.POLLIN
        if process.stdin is not None and self._input:
            wanted[process.stdin] = wanted.get(process.stdin, 0) | select.POLLOUT
        if not self._gone:
            sending = select.POLLOUT if self._wire.pending else 0
            wanted[self._wire.fileno()] = sending | self._reading_events()
        for fd in self._polled.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            if self._polled.get(fd) != events:
                self._poll.register(fd, events)
        self._polled = wanted

    def _reading_events(self) -> int:
        if not self._reading:
            return HANGUP  # stuck for good: at least leave when the client does
        return 0 if self._full or self._events else select.POLLIN

    @property
    def _full(self) -> bool:
        """Whether the server waits with all else until the process has read something."""
        return self._input_size > _ROOM

    def _ready(self, process: Carried, fd: int, events: int) -> None:
        if fd == self._connection.server.stop_fd:
            raise Gone("the cluster is being closed")
        if fd == process.exit_fd:
            self._exited = True
            return
        if not self._gone and fd == self._wire.fileno():
            self._socket_ready(events)
            return
        if fd == process.stdin and events & (select.POLLOUT | select.POLLERR):
            self._write_input(process)
        if fd == process.stdout and events & (select.POLLIN | select.POLLHUP):
            self._read_output(process, fd, STDOUT)
        elif fd == process.stderr:
            self._read_output(process, fd, STDERR)

    def _read_output(self, process: Carried, fd: int, channel: int) -> None:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last process has closed the terminal
        if not self._gone and (process.detaches or not self._output_ended):
            self._send_output(channel, data, final=not data)
        if data:
            return
        if channel == STDOUT:
            process.close_stdout()
        else:
            process.close_stderr()
        # containerd's ExecIO.Attach: with the end of an output the input ends, whoever still reads it.
        if not process.detaches:
            self._drop_input()

    # In.

    def _socket_ready(self, events: int) -> None:
        if not self._polled.get(self._wire.fileno(), 0) & select.POLLIN:
            if events & (select.POLLHUP | select.POLLERR | HANGUP):
                self._disconnect()  # seen while the client is not read
            return
        self._received(self._wire.receive() or b"")

    def _received(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
            # What the library wants to send is not sent: a real server answers a ping, and sees a
            # Close, only when it has got rid of everything before it.
            self._protocol.data_to_send()
            self._events.extend(self._protocol.events_received())
        self._take()

    def _take(self) -> None:
        """Handle what has arrived, up to more input than the process and the pipes take."""
        while self._events and self._reading and not self._full:
            event = self._events.popleft()
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.PING:
                if not self._gone:
                    self._messages.pong(event.data)
            elif event.opcode is Opcode.CLOSE:
                self._violation()
            elif event.opcode is not Opcode.PONG:
                # x/net takes each frame, continuations included, for a message of its own.
                self._message(event.data)
        if self._events or self._full or not self._reading:
            return
        if self._protocol.close_sent is not None and self._protocol.close_rcvd is None:
            self._violation(self._protocol.close_sent.code)
        elif self._wire.ended:
            self._disconnect()
        if self._gone:
            self._end_input()

    def _violation(self, code: int = 1000) -> None:
        """Answer a Close with Close 1000, and a violation with its code and then 1000."""
        self._events.clear()
        if self._gone:
            return
        for each in dict.fromkeys((code, 1000)):
            self._wire.queue(close_frame(each))
        try:
            self._wire.finish()
        except Gone:
            pass  # the client did not wait for the answer
        self._disconnect()

    def _message(self, data: Bytes) -> None:
        if self._dialect.base64 and data:
            try:
                data = bytes((data[0] - 48 & 255,)) + base64.b64decode(bytes(data[1:]))
            except binascii.Error:
                return
        if not data:
            return
        channel, payload = data[0], memoryview(data)[1:]
        if channel == STDIN:
            self._stdin(payload)
        elif channel == CLOSE and self._dialect.v5:
            self._close_signal(payload)
        elif channel == RESIZE and self._process is not None:
            try:
                for width, height in self._resizer.feed(bytes(payload)):
                    self._process.resize(width, height)
            except Wedged:
                self._reading = False

    def _close_signal(self, payload: Bytes) -> None:
        if len(payload) != 1 or payload[0] > RESIZE:
            self._violation()
        elif payload[0] == STDIN:
            self._end_input()

    def _stdin(self, payload: Bytes) -> None:
        self._input_count += len(payload)
        stop, drop = self._faults.stop_reading_after, self._faults.drop_after_stdin
        self._reading &= stop is None or self._input_count < stop
        if drop is not None and self._input_count >= drop:
            self._wire.limit(0)  # at the next flush
        if self._input_ended or not payload:
            return
        self._input.append(payload)
        self._input_size += len(payload)

    def _drop_input(self) -> None:
        self._input.clear()
        self._input_size = 0
        self._end_input()
        self._take()

    def _end_input(self) -> None:
        self._input_ended = True
        if not self._input and self._process is not None:
            self._process.close_stdin()

    def _write_input(self, process: Carried) -> None:
        while self._input and process.stdin is not None:
            try:
                written = os.write(process.stdin, self._input[0])
            except BlockingIOError:
                return
            except OSError:
                self._drop_input()  # the process has closed it: the rest has no reader
                return
            self._input_size -= written
            if written < len(self._input[0]):
                self._input[0] = memoryview(self._input[0])[written:]
            else:
                self._input.popleft()
        if self._input_ended and not self._input:
            process.close_stdin()
        self._take()
