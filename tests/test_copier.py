"""Copiers: files of the user that block, fail, or are not what they seem."""

from __future__ import annotations

import io
import os
import sys

import pytest
from support import in_thread, seconds

import kubews
from kubews import DEVNULL, PIPE, Pod
from kubews.copier import descriptor_of, sink_for
from kubews.testing import Faults


class Bytes:
    """A file with nothing but write()."""

    def __init__(self, most: int | None = None) -> None:
        self.data = bytearray()
        self._most = most

    def write(self, data) -> int | None:
        taken = bytes(data)[: self._most]
        self.data += taken
        return None if self._most is None else len(taken)


class Text:
    """What notebooks put in place of sys.stdout."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        assert isinstance(text, str)
        self.text += text


def test_descriptors(monkeypatch, tmp_path) -> None:
    assert descriptor_of(5) == 5
    assert descriptor_of(io.BytesIO()) is None
    assert descriptor_of(Bytes()) is None
    with open(tmp_path / "file", "w") as file:
        assert descriptor_of(file) == file.fileno()
        monkeypatch.setattr(sys, "stdout", file)
        assert descriptor_of(file) is None  # whoever replaced sys.stdout wants to see the text
        monkeypatch.setattr(sys, "__stdout__", file)
        assert descriptor_of(file) == file.fileno()
    assert descriptor_of(file) is None


def test_a_file_that_takes_less_than_it_is_given() -> None:
    for file in (Bytes(), Bytes(3)):
        sink = sink_for(file)
        sink.write(b"0123456789")
        sink.finish()
        assert file.data == b"0123456789"


def test_text_that_is_cut_within_a_character() -> None:
    file = Text()
    sink = sink_for(file)
    for piece in (b"\xc3", b"\xa9x\xff", b"\xc3"):
        sink.write(piece)
    sink.finish()
    assert file.text == "éx\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_a_descriptor_that_is_full_is_waited_for_r54() -> None:
    """R-54: a non-blocking stdout is no BlockingIOError in the middle of the output."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    data = b"x" * 300_000
    writing = in_thread(sink_for(write).write, data)
    received = bytearray()
    while len(received) < len(data):
        received += os.read(read, 4096)
    writing.result(seconds(5))
    os.close(read)
    os.close(write)
    assert received == data


def test_an_input_that_raises_is_what_the_caller_sees(pod: Pod) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        pod.run(["cat"], stdin=Broken(), capture_output=True)


def test_what_a_file_raises_is_told_even_if_it_is_one_of_our_own_r3(pod: Pod, local) -> None:
    """R-3: output that was thrown away is no success, whatever the file's exception looks like."""
    with pod.popen(["true"], stdin=PIPE) as ended:
        ended.wait(seconds(10))
        with pytest.raises(kubews.StreamBroken):
            pod.run(["head", "-c", "3000000", "/dev/zero"], stdout=ended.stdin)
    local.next_faults(Faults(drop_after=2000))
    with pod.popen(["seq", "100000"], stdout=PIPE) as source:
        with pytest.raises(kubews.ConnectionLost):
            pod.run(["wc", "-l"], stdin=source.stdout, capture_output=True, timeout=seconds(10))
        source.close()
        source._leave = lambda: None  # how it ended is unknown, which is the point


def test_one_pod_feeds_another(pod: Pod) -> None:
    with pod.popen(["seq", "100000"], stdout=PIPE) as source:
        assert int(pod.check_output(["wc", "-l"], stdin=source.stdout)) == 100_000


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_timeout_of_a_file_is_not_one_of_the_command(pod: Pod, timeout: float | None) -> None:
    class Late:
        def write(self, data) -> None:
            raise TimeoutError("the disk timed out")

        def read(self, size: int) -> bytes:
            raise TimeoutError("the disk timed out")

    with pytest.raises(TimeoutError, match="the disk timed out"):
        pod.run(["echo", "hi"], stdout=Late(), timeout=timeout)
    with pytest.raises(TimeoutError, match="the disk timed out"):
        pod.run(["cat"], stdin=Late(), stdout=DEVNULL, timeout=timeout)


def test_whatever_can_be_refused_is_refused_before_the_command_runs(pod: Pod, tmp_path) -> None:
    with open(tmp_path / "closed", "w") as closed:
        pass
    mark = tmp_path / "mark"
    for options in (
        {"stdout": "out.txt"},
        {"stderr": object()},
        {"stdout": closed},
        {"stdin": closed},
        {"stdin": "the input itself"},
        {"stdin": b"the input itself"},
        {"stdin": object()},
        {"encoding": "nope", "stdout": PIPE},
        {"errors": "nope", "stdout": PIPE},
        {"bufsize": "1", "stdout": PIPE},
    ):
        with pytest.raises((TypeError, ValueError, LookupError)):
            pod.run(["touch", mark], **options)
        assert not mark.exists()
    with pytest.raises(TypeError, match="use input="):
        pod.run(["cat"], stdin="the input itself")


def test_the_encoding_holds_for_files_too(pod: Pod) -> None:
    text = io.StringIO()
    pod.run(["printf", "\\351"], stdout=text, encoding="latin-1")
    assert text.getvalue() == "é"
    done = pod.run(["wc", "-c"], stdin=io.StringIO("é"), encoding="latin-1", stdout=PIPE)
    assert done.stdout.strip() == "1"


def test_an_output_that_raises_something_odd(pod: Pod) -> None:
    class Exits:
        def write(self, data) -> None:
            raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        pod.run(["echo", "x"], stdout=Exits())


def test_no_stdout_at_all_is_no_problem(pod: Pod, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert pod.call(["echo", "x"]) == 0
