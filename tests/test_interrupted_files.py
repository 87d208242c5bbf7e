"""Files of pods that are being written when a signal comes, or the connection goes."""

from __future__ import annotations

import contextlib
import dis
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from podprograms import PROGRAMS, Programs, directory_of, nothing_unfinished
from support import eventually, in_thread, seconds

from kubews import Pod
from kubews.errors import CopyError, TruncatedTransfer
from kubews.files.podreader import PodReader
from kubews.files.podwriter import PodWriter
from kubews.testing import Faults, LocalCluster

pytestmark = pytest.mark.half_close


class Alarm(BaseException):
    """What a handler raises, in the place of KeyboardInterrupt."""


def raw_of(file: Any) -> PodWriter:
    """Return what a buffered or a text file writes to."""
    raw: PodWriter = getattr(file, "buffer", file).raw
    return raw


def nothing_temporary(pod: Pod) -> bool:
    """Tell whether what was written under another name goes, as it may after its writer."""
    return eventually(lambda: b".kubews-" not in pod.check_output(["ls", "-A"]), seconds(10))


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_ctrl_c_while_the_last_of_a_file_is_sent_leaves_the_old_one_r49(
    programs: Programs, tmp_path: Path, mode: str
) -> None:
    """R-46 too: what goes on afterwards gives nothing without an end the name."""
    go = tmp_path / "go"
    waits = (
        f"test $# = 0 || exec /bin/cat $@; while [ ! -e {go} ]; do sleep 0.05; done; exec /bin/cat"
    )
    pod = programs(PROGRAMS, cat=waits)
    old = directory_of(pod) / "f"
    old.write_text("before")
    file = pod.open("f", mode)
    raw = raw_of(file)
    outbox = raw._process.stdin._connection._outbox
    full = 0
    while full < 10:  # nothing on the way takes more
        if outbox.has_room():
            raw.write(bytes(32768))
            full = 0
        else:
            full += 1
            time.sleep(0.02)
    # What a buffer holds; and, of text, what waits before it and has no room in it.
    file.write("b" * 260_000 if mode == "w" else b"b" * 260_000)
    file.write("c" * 8000 if mode == "w" else b"c")

    def interrupt() -> None:
        assert eventually(lambda: bool(outbox.writers), seconds(10))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        go.touch()

    interrupting = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        file.close()
    interrupting.result(seconds(20))
    assert file.closed
    assert old.read_text() == "before"
    assert eventually(lambda: nothing_unfinished(directory_of(pod)), seconds(10))


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_handler_that_uses_a_file_within_a_call_of_it_loses_nothing_r49(
    pod: Pod, place: str, mode: str
) -> None:
    """As for files here: ``io`` refuses it, and the call goes on."""
    file = pod.open(place, mode)
    raw = raw_of(file)
    send = raw._send

    def interrupted(data: memoryview) -> None:
        more = "more" if mode == "w" else b"more"
        for call in (lambda: file.write(more), file.flush, file.close):
            with pytest.raises(RuntimeError, match="reentrant"):
                call()
        send(data)

    raw._send = interrupted
    letters = ["x" * 300_000, "y" * 300_000]
    for each in letters:
        file.write(each if mode == "w" else each.encode())
    file.flush()
    raw._send = send
    file.close()
    assert pod.check_output(["cat", place], text=True) == "".join(letters)


class Behind:
    """Raises Alarm in a function, behind one of its calls: there the interpreter looks for signals.

    Args:
        function: the one.
        number: of the call, from 0.
    """

    def __init__(self, function: Any, number: int) -> None:
        self._code, self._left = function.__code__, number
        steps = pairwise(dis.get_instructions(self._code))
        self._offsets = {after.offset for one, after in steps if one.opname.startswith("CALL")}
        self.raised = False

    def __enter__(self) -> Behind:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if frame.f_code is not self._code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in self._offsets:
            if not self._left:
                self.raised = True
                raise Alarm
            self._left -= 1
        return self._trace


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_signal_behind_any_call_doubles_nothing_and_leaves_no_hole_r49(
    pod: Pod, place: str, mode: str
) -> None:
    """R-46 too: closing, which sends what a buffer has still, makes it the whole file or leaves the old one."""
    pod.run(["sh", "-c", f"echo old >{place}"], check=True)
    results = set()
    for number in count():
        # What fills a buffer; what, of a text, waits before that; and what makes all of it be sent.
        texts = ["a" * (256 << 10), "b" * 6000, f"{number} " * 1000]
        file = pod.open(place, mode)
        written = ""
        with Behind(PodWriter.write, number) as behind, contextlib.suppress(Alarm):
            for text in texts:
                file.write(text if mode == "w" else text.encode())
                written += text
            file.flush()
        before = pod.check_output(["cat", place], text=True)
        closed = True
        try:
            try:
                file.write("end" if mode == "w" else b"end")
            finally:
                file.close()
        except TruncatedTransfer:
            closed = False
        now = pod.check_output(["cat", place], text=True)
        if not behind.raised:
            assert now == "".join(texts) + "end"
            break
        # Of a write that was interrupted nobody knows, of those before it everybody does.
        rest = "".join(texts)[len(written) :]
        assert now in ([f"{written}end", f"{written}{rest}end"] if closed else [before])
        results.add(closed)
    assert False in results


@pytest.mark.parametrize("part", [PodReader.readinto, PodReader._reach])
def test_a_signal_behind_any_call_shifts_nothing_that_is_read_r49(
    pod: Pod, place: str, tmp_path: Path, part: Any
) -> None:
    """R-46 too: it may come while what lies before the place to be read is skipped."""
    (tmp_path / "data").write_bytes(data := os.urandom(1_000_000))
    pod.copy_to(tmp_path / "data", place)
    for number in count():
        with pod.open(place, "rb") as file:
            file.read(10)
            with Behind(part, number) as behind, contextlib.suppress(Alarm):
                file.seek(270_000)
                file.read(10)
            file.seek(270_000)
            assert file.read(10) == data[270_000:270_010]
            assert file.read() == data[270_010:]
        if not behind.raised:
            break
    assert number


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_file_whose_writing_a_signal_has_interrupted_takes_no_more_r49(
    pod: Pod, place: str, mode: str
) -> None:
    """R-46 too: there would be a hole in it."""
    pod.run(["sh", "-c", f"echo old >{place}"], check=True)
    file = pod.open(place, mode)
    raw = raw_of(file)
    send = raw._send

    def interrupted(data: memoryview) -> None:
        send(data[:100])
        raise Alarm

    raw._send = interrupted
    file.write("x" * 1000 if mode == "w" else b"x" * 1000)
    with pytest.raises(Alarm):
        file.flush()
    raw._send = send
    with pytest.raises(TruncatedTransfer, match=f"{place} was interrupted.*write it anew"):
        raw.write(b"more")
    file.write("more" if mode == "w" else b"more")
    with pytest.raises(TruncatedTransfer, match="was interrupted"):
        file.close()
    assert file.closed
    assert pod.check_output(["cat", place]) == b"old\n"
    assert nothing_temporary(pod)


@pytest.mark.parametrize("kind", [Alarm, OSError, TypeError, ValueError, UnicodeError, KeyError])
@pytest.mark.parametrize("call", ["flush", "tell"])
def test_a_text_that_io_has_forgotten_is_missed_r49(
    pod: Pod, place: str, kind: type[BaseException], call: str
) -> None:
    """R-46 too: whatever a handler raises, though texts that cannot be written raise the same."""
    file = pod.open(place, "w")
    raw = raw_of(file)
    file.write("a" * (256 << 10))  # fills a buffer
    file.write("b" * 6000)  # waits before it, and is forgotten when that cannot be sent
    check = raw._check

    def interrupted() -> None:
        raw._check = check
        raise kind

    raw._check = interrupted
    with pytest.raises(kind):
        getattr(file, call)()
    file.write("c")
    with pytest.raises(TruncatedTransfer, match="was interrupted"):
        file.close()
    assert pod.run(["test", "-e", place]).returncode == 1


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_handler_that_fails_while_a_file_is_closed_ends_that_r49(
    pod: Pod, place: str, mode: str
) -> None:
    """Also by what ``io`` says when it closes the same file."""
    for make in (RuntimeError, None):
        file = pod.open(place, mode)
        raw = raw_of(file)

        def interrupted(data: memoryview, make: Any = make, file: Any = file) -> None:
            if make is not None:
                raise make("of the handler")
            file.close()

        raw._send = interrupted
        file.write("x" if mode == "w" else b"x")
        with pytest.raises(RuntimeError, match="of the handler" if make else "reentrant"):
            file.close()
        assert file.closed
        file.close()
        assert pod.run(["test", "-e", place]).returncode == 1
        assert nothing_temporary(pod)


@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize("method", ["write", "close", "_commit"])
def test_ctrl_c_at_the_first_step_of_a_part_of_closing_leaves_nothing_r49(
    pod: Pod, place: str, monkeypatch: pytest.MonkeyPatch, mode: str, method: str
) -> None:
    """Nobody who is told of Ctrl-C finds a file; and closing again is nothing."""

    def interrupted(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    file = pod.open(place, mode)
    file.write("x" if mode == "w" else b"x")
    if method != "write":
        file.flush()
    monkeypatch.setattr(PodWriter, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        file.close()
    assert file.closed
    file.close()
    assert pod.run(["test", "-e", place]).returncode == 1
    assert nothing_temporary(pod)


def test_what_a_handler_raises_is_no_failure_of_the_file_r49(programs: Programs) -> None:
    class OfTheUser(Exception):
        pass

    file = programs(PROGRAMS, cat="head -c 1000").open("f", "wb")
    raw = raw_of(file)
    raw.write(bytes(2000))
    raw._process.wait(seconds(20))
    finish = raw._finish

    def interrupted() -> bytes:
        raw._finish = finish
        raise OfTheUser

    raw._finish = interrupted
    with pytest.raises(OfTheUser):
        raw.write(b"more")
    with pytest.raises(TruncatedTransfer, match="was interrupted"):
        file.close()


def test_a_lost_connection_is_told_once_r46(pod: Pod, place: str) -> None:
    """By writing and by closing, with the same words."""
    file = pod.open(place, "wb")
    connection = file.raw._process._connection
    connection.abort("the cable is cut")
    assert eventually(connection.status.done)
    said = []
    for call in (lambda: file.write(bytes(600_000)), file.close):
        with pytest.raises(TruncatedTransfer) as caught:
            call()
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].count("the cable is cut") == 1
    assert said[0].count("was cut after") == 1


@pytest.mark.parametrize(
    ("mode", "content", "unknown"),
    [("wb", b"new", "whether it has replaced"), ("ab", b"oldnew", "how much of it is appended to")],
)
def test_a_cut_while_a_file_gets_its_name_is_no_lie_r46(
    local: LocalCluster, pod: Pod, place: str, mode: str, content: bytes, unknown: str
) -> None:
    """R-8: nobody knows whether it has its name. This one has."""
    pod.run(["sh", "-c", f"printf old >{place}"], check=True)
    file = pod.open(place, mode)
    file.write(b"new")
    local.next_faults(Faults(match="mv", no_status=True))
    with pytest.raises(CopyError, match=f"not known {unknown} ./{place}: ") as caught:
        file.close()
    assert not isinstance(caught.value, TruncatedTransfer)
    assert eventually(lambda: pod.check_output(["cat", place]) == content, seconds(10))
