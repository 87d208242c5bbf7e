"""communicate: the whole input, and then the whole output, of a process in a pod."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, Optional

from kubews.ending import Ending
from kubews.errors import (
    ConnectionLost,
    ExecError,
    HalfCloseUnsupported,
    StreamBroken,
    TimeoutExpired,
)
from kubews.protocol.channels import STDERR, STDIN, STDOUT, Channels
from kubews.streams import Stream
from kubews.transport.deadline import Deadline
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Expired, fresh
from kubews.wrappers import ReadStream, TextReadStream, universal


class Communicating(Ending):
    """The part of ``Popen`` that sends all of the input and gathers all of the output.

    Threads: one at a time.
    """

    args: Any
    stdin: Any = None
    stdout: Any = None
    stderr: Any = None
    _text: bool
    _tty: bool
    _encoding: Optional[str]
    _errors: Optional[str]
    _raw_stdin: Callable[[], Optional[Stream]]
    _lock: threading.RLock
    _communicating = False
    _results: Optional[tuple[Any, Any]] = None
    _unsent: Optional[Unsent] = None
    # What was read out of wrappers by a call that then failed, or how it was no text.
    _rests: dict[Any, Any]

    @property
    def subprotocol(self) -> str:
        """What was negotiated: ``v5.channel.k8s.io`` or ``v4.channel.k8s.io``."""
        return self._connection.subprotocol

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the exit code."""
        raise NotImplementedError

    def communicate(self, input: Any = None, timeout: Optional[float] = None) -> tuple[Any, Any]:
        """Send input, end stdin, and read everything until the process ends.

        After TimeoutExpired it can be called again, without input, and loses nothing.

        Args:
            input: bytes, or str in text mode; only with ``stdin=PIPE``.
            timeout: seconds; None for ever. What a wrapper of stdin still holds is sent without a limit.

        Returns:
            stdout and stderr, each None unless it is a PIPE.

        Raises:
            TimeoutExpired: ``stdout`` and ``stderr`` have what came so far, as bytes, without what a buffer
                has read ahead for a call before.
            ValueError: ``fileno()`` of a stream was called, perhaps in another thread meanwhile: some of the
                output is in the descriptor.
            HalfCloseUnsupported: the server (v4) cannot end stdin; nothing was sent, and the
                connection is closed.
            ConnectionLost: ``partial`` is the tuple of stdout and stderr so far; of a wrapper of your own it
                is bytes, without what that still holds.

        Threads: blocks; one at a time.
        """
        mine = False
        try:
            with self._lock:
                if self._communicating:
                    raise RuntimeError("another thread is in communicate()")
                self._communicating = mine = True
            return self._communicate(input, timeout)
        finally:
            if mine:
                self._communicating = False

    def _communicate(self, input: Any, timeout: Optional[float]) -> tuple[Any, Any]:
        deadline = Deadline(timeout)
        if self._results is not None and not input:
            return self._results
        self._refuse_descriptors()
        collected = [pipe for stream, pipe in self._outputs() if pipe and not stream.closed]
        limits = [pipe.limit for pipe in collected]
        try:
            for pipe in collected:
                pipe.unlimit()
            self._feed(input, deadline)
            for pipe in collected:
                if not pipe.wait_end(deadline):
                    raise Expired
            self.wait(deadline.remaining())
            for pipe in collected:
                # Closed by another thread, though the process has ended; or this is a fork that saw the Status only.
                if pipe.error is not None:
                    raise fresh(pipe.error)
        except (Expired, TimeoutExpired) as exc:
            so_far = [None if pipe is None else pipe.buffered() for _, pipe in self._outputs()]
            raise TimeoutExpired(self.args, timeout or 0.0, *so_far) from exc
        except (ConnectionLost, ExecError) as exc:
            out, err = (self._gathered(stream, pipe, lost=True) for stream, pipe in self._outputs())
            exc.partial = (out, err)
            raise
        finally:  # nobody collects any more
            for pipe, limit in zip(collected, limits, strict=True):
                pipe.limit = limit
        out, err = (self._gathered(stream, pipe) for stream, pipe in self._outputs())
        self._refuse_descriptors()  # another thread may just have taken some of it
        # Kept before anything is closed: a call that Ctrl-C has stopped can be made again.
        self._results = (out, err)
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        return self._results

    def _refuse_descriptors(self) -> None:
        used = [stream for stream, pipe in self._outputs() if pipe and has_descriptor(stream, pipe)]
        raw = self._raw_stdin()
        if self.stdin is not None and (raw is None or raw.bridged):  # what is gone was detached
            used.append(self.stdin)
        for stream in used:
            if not stream.closed:
                raise ValueError(f"communicate() cannot use {stream!r}: fileno() was called")

    def _feed(self, input: Any, deadline: Deadline) -> None:
        if self._unsent is None:
            if self.stdin is None:
                if input:
                    raise ValueError("input needs stdin=PIPE")
                return
            if not self.stdin.closed:
                self._need_half_close()
            elif input:
                raise ValueError("stdin was closed before communicate() could send the input")
            self._unsent = Unsent(self._encoded(input))
        elif input:
            raise ValueError("Cannot send input after starting communication")
        # The process may not want all of it; its exit code tells more than that.
        with contextlib.suppress(StreamBroken):
            if not self.stdin.closed:
                self.stdin.flush()  # what a wrapper of the user's still holds
            while not self._unsent.done:
                self._connection.send(STDIN, self._unsent, deadline)
        with contextlib.suppress(StreamBroken):
            self.stdin.close()

    def _encoded(self, input: Any) -> bytes:
        if input is None:
            return b""
        if self._text:
            encoding = getattr(self.stdin, "encoding", self._encoding)
            errors = getattr(self.stdin, "errors", self._errors)
            return bytes(input.encode(encoding or "utf-8", errors or "strict"))
        return memoryview(input).tobytes()

    def _outputs(self) -> list[tuple[Any, Optional[Pipe]]]:
        """stdout and stderr with their pipes; None and None for what the user does not read."""
        pairs = ((STDOUT, self.stdout), (STDERR, self.stderr))
        return [
            (stream, None if stream is None else self._connection.pipes[channel])
            for channel, stream in pairs
        ]

    def _gathered(self, stream: Any, pipe: Optional[Pipe], *, lost: bool = False) -> Any:
        """Return what is left of an output that has ended, and leave it there if that is possible.

        Args:
            stream: stdout or stderr.
            pipe: its bytes.
            lost: whether it may have ended within a character: what is no text is replaced.
        """
        if stream is None or pipe is None:
            return None
        if stream.closed:
            return "" if self._text else b""
        if isinstance(stream, TextReadStream):
            if stream.touched:
                return self._kept(stream, functools.partial(_rest, stream, lost=lost))
            errors = "replace" if lost else stream.errors or "strict"
            return universal(pipe.buffered().decode(stream.encoding, errors))
        if isinstance(stream, (ReadStream, Stream)) or lost:
            held = stream.held() if isinstance(stream, ReadStream) else b""
            return held + pipe.buffered()
        return self._kept(stream, stream.read)  # a wrapper of the user's

    def _kept(self, stream: Any, read: Callable[[], Any]) -> Any:
        # Some of it is in the wrapper, as characters, and so cannot be left there.
        if stream not in self._rests:
            try:
                self._rests[stream] = read()
            except UnicodeError as exc:
                self._rests[stream] = exc.with_traceback(None)  # whose frames hold us
        rest = self._rests[stream]
        if isinstance(rest, UnicodeError):
            raise fresh(rest)
        return rest

    def _need_half_close(self) -> None:
        if Channels(self.subprotocol, self._tty).can_end_stdin:
            return
        self._connection.close()
        raise HalfCloseUnsupported(
            f"{self._connection.where}: the input cannot be ended, because the server speaks "
            f"{self.subprotocol} (Kubernetes before 1.30), and the command would wait for ever. Ways "
            "round: a command that knows how much to read (head -c N) with popen(stdin=PIPE), or tty=True"
        )


def has_descriptor(stream: Any, pipe: Pipe) -> bool:
    """Tell whether an output, of which the user may have a wrapper, is used through a descriptor.

    Threads: any.
    """
    return getattr(stream, "bridged", False) or pipe.moved


def _rest(stream: TextReadStream, *, lost: bool) -> str:
    try:
        return stream.read()
    except ConnectionLost as exc:
        return str(exc.partial)
    except UnicodeDecodeError as exc:
        if not lost:
            raise
        return stream.salvaged(exc)
