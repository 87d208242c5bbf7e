"""Copiers: files of the user that block, fail, or are not what they seem."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
import time

import pytest
from support import eventually, in_thread, seconds
from transport.interrupts import Interrupted, interrupt, points, run_with
from transport.peers import SUCCESS, data, opened

import kubews
from kubews import DEVNULL, PIPE, Pod
from kubews.copier import InputCopier, OutputCopier
from kubews.testing import Faults
from kubews.transport.deadline import Deadline
from kubews.userfiles import Source, descriptor_of, sink_for


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
    sink = sink_for(write)
    writing = in_thread(sink.write, data)
    received = bytearray()
    while len(received) < len(data):
        received += os.read(read, 4096)
    writing.result(seconds(5))
    sink.close()
    sink.close()
    os.close(read)
    os.close(write)
    assert received == data


@pytest.mark.half_close
def test_an_input_that_raises_is_what_the_caller_sees(pod: Pod) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        pod.run(["cat"], stdin=Broken(), capture_output=True)


@pytest.mark.half_close
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


@pytest.mark.half_close
def test_one_pod_feeds_another(pod: Pod) -> None:
    with pod.popen(["seq", "100000"], stdout=PIPE) as source:
        assert int(pod.check_output(["wc", "-l"], stdin=source.stdout)) == 100_000


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.half_close
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
        {"bufsize": -5, "stdout": PIPE},
        {"stdin": 12345},
        {"stdout": 12345},
    ):
        with pytest.raises((TypeError, ValueError, LookupError, OSError)):
            pod.run(["touch", "mark"], **options)
        assert pod.call(["ls", "mark"], stdout=DEVNULL, stderr=DEVNULL) != 0
    with pytest.raises(TypeError, match="use input="):
        pod.run(["cat"], stdin="the input itself")


@pytest.mark.half_close
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


@pytest.mark.half_close
def test_a_file_may_be_closed_as_soon_as_the_process_runs(pod: Pod, tmp_path) -> None:
    """As with subprocess: its number may be another file's by the time that the output comes."""
    with open(tmp_path / "out", "wb") as out:
        process = pod.popen("read x; echo result", shell=True, stdin=PIPE, stdout=out)
    with process, open(tmp_path / "precious", "wb"):
        process.stdin.write(b"\n")
        assert process.wait(seconds(10)) == 0
    assert (tmp_path / "out").read_bytes() == b"result\n"
    assert (tmp_path / "precious").read_bytes() == b""

    data = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as source:
        process = pod.popen(["cat"], stdin=source, stdout=PIPE)
    with process, open(tmp_path / "out", "rb"):
        assert process.stdout.read() == data


def test_the_pipe_idioms_of_subprocess(pod: Pod) -> None:
    read, write = os.pipe()
    with pod.popen(["echo", "through a pipe"], stdout=write):
        os.close(write)
        with open(read, "rb") as file:
            assert file.read() == b"through a pipe\n"


@pytest.mark.half_close
def test_a_pod_that_feeds_another_does_so_at_once(pod: Pod) -> None:
    """What comes is passed on as it comes: neither bytes nor lines wait for a full buffer."""
    script = "echo first; read x; echo second"
    for options in ({}, {"bufsize": 0}, {"text": True}):
        with pod.popen(script, shell=True, stdin=PIPE, stdout=PIPE, **options) as source:
            with pod.popen(["cat"], stdin=source.stdout, stdout=PIPE, bufsize=0) as sink:
                assert sink.stdout.recv(10, timeout=seconds(10)) == b"first\n"
                source.stdin.write("\n" if "text" in options else b"\n")
                assert sink.stdout.read() == b"second\n"


def test_a_logger_in_place_of_stdout_gets_text(pod: Pod, monkeypatch) -> None:
    class Logger:
        text = ""

        def write(self, message: str) -> None:
            self.text += message + ""

    monkeypatch.setattr(sys, "stdout", Logger())
    assert pod.call(["echo", "é"]) == 0
    assert sys.stdout.text == "é\n"


def test_a_binary_file_gets_bytes_and_must_take_some(pod: Pod) -> None:
    class Nothing:
        def write(self, data) -> int:
            return 0

    class Decoding:
        text = ""

        def write(self, data: bytes) -> None:
            self.text += data.decode()

    file = Decoding()
    assert pod.call(["echo", "x"], stdout=file) == 0
    assert file.text == "x\n"
    with pytest.raises(OSError, match=r"Nothing\.write\(\) takes no bytes"):
        pod.run(["echo", "x"], stdout=Nothing())


def test_a_refused_command_closes_what_it_has_taken_of_the_files(client) -> None:
    """The fixture counts descriptors."""
    with open(os.devnull, "r+b") as file:
        for options in ({}, {"wait_ready": 0.01}):
            with pytest.raises((kubews.NotFound, kubews.NotReady)):
                client.pod("nope").popen(["true"], stdin=file, stdout=file, **options)


@pytest.mark.half_close
def test_an_unread_channel_stays_within_its_limit_whatever_is_copied_beside_it(
    pod: Pod, tmp_path
) -> None:
    """A copier that waits for stderr, or for room for input, is as patient as the kernel."""
    (tmp_path / "in").write_bytes(bytes(40 << 20))
    for args, path in ((["head", "-c", "40000000", "/dev/zero"], os.devnull), (["cat"], "in")):
        with open(tmp_path / path, "rb") as source:
            process = pod.popen(args, stdin=source, stdout=PIPE, bufsize=0)
        with process:
            pipe = process.stdout._pipe
            assert eventually(lambda: pipe.size >= 4 << 20)  # noqa: B023
            time.sleep(0.5)
            assert pipe.size < 6 << 20
            assert len(process.stdout.read()) >= 40_000_000


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_an_interrupt_closes_no_descriptor_twice_r49(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """R-49: the number may be another file's by then, in another thread."""
    original = io.FileIO

    def made_and_lost(*args, **options) -> None:
        original(*args, **options)
        raise Interrupted

    with open(tmp_path / "file", "wb") as file:
        monkeypatch.setattr(io, "FileIO", made_and_lost)
        with pytest.raises(Interrupted):
            sink_for(file, None, None, text=False)
        file.write(b"still ours")


def test_a_close_before_all_is_copied_is_no_success() -> None:
    """Though the process has ended well, its output is not in the file."""
    read, write = os.pipe()
    with opened() as (connection, peer), open(read, "rb"), open(write, "wb") as file:
        copier = OutputCopier(connection, connection.pipes[1], sink_for(file))
        peer.send(*[data(1, bytes(50_000))] * 10, data(3, SUCCESS))
        connection.status.get(Deadline(seconds(10)))
        assert eventually(lambda: not select.select([], [write], [], 0)[1])
        closing = in_thread(connection.close, 0.1)
        assert eventually(lambda: connection.pipes[1].ended)
        os.read(read, 1 << 16)  # a terminal that goes on again
        os.read(read, 1 << 16)
        with pytest.raises(kubews.ConnectionLost, match="not all of the output"):
            copier.done.get(Deadline(seconds(10)))
        closing.result()


@pytest.mark.descriptors_may_leak(1)  # an eventfd whose number Ctrl-C keeps from Python
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of a file for which no thread was started
def test_an_interrupted_start_leaves_no_thread_at_a_terminal() -> None:
    read, write = os.pipe()
    with open(read, "rb") as terminal, open(write, "wb"):
        for number in points():
            with opened() as (connection, _):
                try:
                    _, reached = run_with(
                        lambda: InputCopier(connection, 0, Source(terminal, None, None)),
                        number,
                        interrupt,
                    )
                except Interrupted:
                    reached = True
            assert eventually(
                lambda: not any("input of" in thread.name for thread in threading.enumerate())
            ), number
            if not reached:
                return
