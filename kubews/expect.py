"""pexpect for programs in pods: ``spawn`` is what ``pexpect.spawn`` is for programs of this machine.

::

    import kubews.expect

    python = kubews.expect.spawn(pod, ["python3", "-i"], encoding="utf-8")
    python.expect(">>> ")
    python.sendline("6 * 7")
    python.expect("42")

It needs pexpect: ``pip install pexpect``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Optional, Union

from kubews.command import StrOrBytesPath
from kubews.errors import KubewsError, ReadTimeout, StreamBroken
from kubews.popen import PIPE, Popen

try:
    import pexpect
    from pexpect.spawnbase import SpawnBase
except ImportError as exc:
    raise ImportError("kubews.expect needs pexpect: pip install pexpect", name="pexpect") from exc

if TYPE_CHECKING:
    from kubews.targets import Target

_CONTROL = {"@": 0, "`": 0, "[": 27, "{": 27, "\\": 28, "|": 28, "]": 29, "}": 29}
_CONTROL |= {"^": 30, "~": 30, "_": 31, "?": 127}


class spawn(SpawnBase):  # type: ignore[misc]  # the name that scripts know
    """A program in a pod with a terminal, driven by a script.

    What it can do, its arguments and its attributes are those of ``pexpect.spawn``. What differs: where nobody
    knows how the program ended, ``ConnectionLost`` is raised, and never ``pexpect.EOF``; ``close`` does not end
    the program, which sees no more than that nothing comes any more; and nothing is known of signals, so that
    ``signalstatus`` is None and ``exitstatus`` of a program that signal n has killed is 128 + n.

    Args:
        pod: a name such as ``web-0`` or ``deploy/web``, or a ``Pod``.
        command: the program and its arguments.
        args: more arguments.
        timeout: seconds that ``expect`` waits by default; None for ever.
        maxread: bytes that are read at a time.
        searchwindowsize: how far back ``expect`` looks; None for everything.
        logfile: gets everything that is sent and read; also ``logfile_send`` and ``logfile_read``.
        cwd: directory in the container.
        env: variables to add.
        encoding: of text; None for bytes.
        codec_errors: what to do with what is not text.
        dimensions: rows and columns of the terminal.
        **options: as for ``Popen``: ``namespace``, ``container``, ``client``, ``wait_ready`` and so on.

    Raises:
        ApiError: the server refused.
        ConnectFailed: it could not be reached.

    Threads: one.
    """

    #: How much of what came is shown in the messages of exceptions.
    str_last_chars = 100

    def __init__(
        self,
        pod: Union[str, Target],
        command: Sequence[StrOrBytesPath],
        args: Sequence[StrOrBytesPath] = (),
        timeout: Optional[float] = 30,
        maxread: int = 2000,
        searchwindowsize: Optional[int] = None,
        logfile: Optional[IO[Any]] = None,
        cwd: Optional[StrOrBytesPath] = None,
        env: Optional[Mapping[str, str]] = None,
        encoding: Optional[str] = None,
        codec_errors: str = "strict",
        dimensions: tuple[int, int] = (24, 80),
        **options: Any,
    ) -> None:
        super().__init__(timeout, maxread, searchwindowsize, logfile, encoding, codec_errors)
        if isinstance(command, (str, bytes)):  # not split as pexpect would: no shell is meant
            command = [command]
        self.args = [*command, *args]
        self.command = self.args[0]
        self.closed = self.terminated = False
        self.delaybeforesend = None
        self.linesep = b"\n" if encoding is None else "\n"
        self.process = Popen(
            self.args,
            bufsize=0,
            pod=pod,
            stdin=PIPE,
            stdout=PIPE,
            tty=True,
            cwd=cwd,
            env=env,
            **options,
        )
        self.name = f"<{self.command!r} in {self.process.pod!r}>"
        with contextlib.suppress(
            StreamBroken
        ):  # it has ended already; its output and exit code are there
            self.setwinsize(*dimensions)

    def __str__(self) -> str:
        # In the messages of pexpect's exceptions: what one needs to see why a pattern did not match.
        return (
            f"{self.process!r}\nbuffer (last {self.str_last_chars} chars): "
            f"{self.buffer[-self.str_last_chars :]!r}\nbefore (last {self.str_last_chars} chars): "
            f"{self.before[-self.str_last_chars :] if self.before else self.before!r}\n"
            f"after: {self.after!r}\nmatch: {self.match!r}\nexitstatus: {self.exitstatus}"
        )

    # -- reading

    def read_nonblocking(self, size: int = 1, timeout: Optional[float] = -1) -> Any:
        """Read what is there, at most ``size`` bytes.

        Args:
            size: bytes.
            timeout: seconds to wait for the first; -1 for the default, None for ever.

        Returns:
            At least one character, or none if only a part of one is there.

        Raises:
            pexpect.TIMEOUT: nothing came.
            pexpect.EOF: the program has ended.
            ConnectionLost: nobody knows how it ended.

        Threads: blocks.
        """
        if timeout == -1:
            timeout = self.timeout
        try:
            data = self.process.stdout.recv(size, timeout=timeout)
        except ReadTimeout as exc:
            raise pexpect.TIMEOUT("Timeout exceeded.") from exc
        if not data:
            self.flag_eof = True
            self.isalive()
            raise pexpect.EOF("End Of File (EOF).")
        text = self._decoder.decode(data, final=False)
        self._log(text, "read")
        return text

    def eof(self) -> bool:
        """Return whether the end has been read."""
        return bool(self.flag_eof)

    def fileno(self) -> int:
        """Return a descriptor to wait for output with; see ``Stream.fileno``."""
        return int(self.process.stdout.fileno())

    def isatty(self) -> bool:
        """Return True: the program has a terminal."""
        return True

    # -- writing

    def send(self, s: Union[str, bytes]) -> int:
        """Type something; return the number of bytes.

        Threads: blocks while the queue to the server is full.
        """
        text = self._coerce_send_string(s)
        self._log(text, "send")
        return int(self.process.stdin.write(self._encoder.encode(text, final=False)))

    def sendline(self, s: Union[str, bytes] = "") -> int:
        """Type something and a line feed; return the number of bytes."""
        return self.send(self._coerce_send_string(s) + self.linesep)

    def write(self, s: Union[str, bytes]) -> None:
        """Type something."""
        self.send(s)

    def writelines(self, sequence: Iterable[Union[str, bytes]]) -> None:
        """Type each of several strings."""
        for s in sequence:
            self.write(s)

    def sendcontrol(self, char: str) -> int:
        """Type a key with Ctrl: a letter or one of ``@[\\]^_?``; return the number of bytes sent.

        Raises:
            ValueError: there is no such key.
        """
        key = char.lower()
        if len(key) == 1 and "a" <= key <= "z":
            return self._press(ord(key) - 96)
        if key not in _CONTROL:
            raise ValueError(f"there is no key Ctrl-{char}")
        return self._press(_CONTROL[key])

    def sendeof(self) -> None:
        """Type Ctrl-D: the end of the input, at the beginning of a line."""
        self._press(4)

    def sendintr(self) -> None:
        """Type Ctrl-C."""
        self._press(3)

    def _press(self, code: int) -> int:
        key = bytes((code,))
        self._log(key if self.encoding is None else key.decode(), "send")
        return int(self.process.stdin.write(key))

    # -- the terminal

    def getwinsize(self) -> tuple[int, int]:
        """Return the rows and columns that were set."""
        return self._size

    def setwinsize(self, rows: int, cols: int) -> None:
        """Set the size of the program's terminal; it gets SIGWINCH."""
        self._size = (rows, cols)
        self.process.resize(rows, cols)

    # -- the end

    def isalive(self) -> bool:
        """Return whether the program runs; set ``exitstatus`` if not.

        Raises:
            ConnectionLost: nobody knows how it ended.
            ExecError: it could not start.
        """
        if not self.terminated:
            self.exitstatus = self.status = self.process.poll()
            self.terminated = self.exitstatus is not None
        return not self.terminated

    def wait(self) -> Optional[int]:
        """Wait until the program ends; return its exit code. What is not read yet can be read then.

        Threads: blocks.
        """
        self.process.wait()
        self.isalive()
        code: Optional[int] = self.exitstatus
        return code

    def kill(self, sig: int) -> None:
        """Send a signal; see ``Popen.send_signal``."""
        self.process.send_signal(sig)

    def terminate(self, force: bool = False) -> bool:
        """Ask the program to end, or force it to; see ``Popen.terminate``. Return whether it has ended."""
        if force:
            self.process.kill()
        else:
            self.process.terminate()
        return not self.isalive()

    def close(self, force: bool = True) -> None:
        """Close the connection; again is nothing.

        ``exitstatus`` is set if the program has ended. One that has not is left alone: end it before, with
        ``sendeof`` or a command of its own, and wait for ``pexpect.EOF``.

        Args:
            force: as for ``pexpect.spawn``, without a meaning here.

        Threads: blocks for up to a second.
        """
        if self.closed:
            return
        with contextlib.suppress(KubewsError):  # told already, or of no interest
            self.isalive()
        self.process.close()
        self.closed = True
