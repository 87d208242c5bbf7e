"""R-48: Popen, argument by argument and method by method, as subprocess has it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from typing import Any, Optional

import pytest
from support import eventually, in_thread, seconds


def test_attributes(sp: Any) -> None:
    with sp.Popen(["true"]) as process:
        assert process.args == ["true"]
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert process.wait(seconds(20)) == 0
        assert process.returncode == 0
    with sp.Popen("exit 3", shell=True, stdout=sp.PIPE, stderr=sp.STDOUT) as process:
        assert process.args == "exit 3"
        assert process.stdout is not None
        assert process.stderr is None
    assert process.returncode == 3


def test_bufsize_may_be_given_by_position(sp: Any) -> None:
    with sp.Popen(["printf", "x"], 0, stdout=sp.PIPE) as process:
        assert isinstance(process.stdout, io.RawIOBase)
        assert process.stdout.read() == b"x"


@pytest.mark.half_close
@pytest.mark.parametrize("bufsize", [-1, 1000, None])
def test_kinds_of_streams(sp: Any, bufsize: Optional[int]) -> None:
    options = {"stdout": sp.PIPE, "stderr": sp.PIPE, "bufsize": bufsize}
    with sp.Popen(["true"], **options) as process:
        assert isinstance(process.stdout, io.BufferedReader)
        assert isinstance(process.stderr, io.BufferedReader)
    with sp.Popen(["true"], stdin=sp.PIPE, text=True, **options) as process:
        for stream in (process.stdin, process.stdout, process.stderr):
            assert isinstance(stream, io.TextIOWrapper)
            assert stream.errors == "strict"
        process.communicate("")
    with sp.Popen(["true"], encoding="latin-1", errors="ignore", **options) as process:
        assert (process.stdout.encoding, process.stdout.errors) == ("latin-1", "ignore")


@pytest.mark.half_close
def test_a_conversation(sp: Any) -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, bufsize=0) as process:
        assert process.poll() is None
        assert process.stdin.write(b"one\n") == 4
        assert process.stdout.readline() == b"one\n"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0
        assert process.poll() == 0


@pytest.mark.half_close
def test_line_buffered_text(sp: Any) -> None:
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, bufsize=1, text=True) as process:
        process.stdin.write("é\n")  # goes out by itself
        assert process.stdout.readline() == "é\n"
        print("two", file=process.stdin)
        assert next(process.stdout) == "two\n"


def test_poll_and_wait(sp: Any) -> None:
    with sp.Popen(["sh", "-c", "read line; exit 7"], stdin=sp.PIPE, bufsize=0) as process:
        assert process.poll() is None
        assert process.returncode is None
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            process.wait(timeout=0.1)
        assert isinstance(caught.value, sp.TimeoutExpired)
        assert caught.value.cmd == process.args
        assert caught.value.timeout == 0.1
        assert (caught.value.output, caught.value.stderr) == (None, None)
        with pytest.raises(sp.TimeoutExpired):
            process.wait(0)
        process.stdin.write(b"\n")
        assert process.wait(timeout=seconds(20)) == 7
        assert process.wait() == process.poll() == process.returncode == 7


def test_poll_sees_the_end_by_itself(sp: Any) -> None:
    with sp.Popen(["sh", "-c", "exit 4"]) as process:
        assert eventually(lambda: process.poll() is not None, 20)
        assert process.returncode == 4


@pytest.mark.half_close
def test_communicate(sp: Any) -> None:
    pipes = {"stdin": sp.PIPE, "stdout": sp.PIPE, "stderr": sp.PIPE}
    script = ["sh", "-c", "cat; printf err >&2; exit 2"]
    with sp.Popen(script, **pipes) as process:
        assert process.communicate(b"in") == (b"in", b"err")
        assert process.returncode == 2
        assert process.stdin.closed
        assert process.stdout.closed
        assert process.stderr.closed
    with sp.Popen(script, text=True, **pipes) as process:
        assert process.communicate(input="é\r\n") == ("é\n", "err")
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE) as process:
        assert process.communicate(None, None) == (b"", None)
    with sp.Popen(["printf", "x"], stdout=sp.PIPE) as process:
        assert process.communicate(timeout=seconds(20)) == (b"x", None)
    with sp.Popen(["true"]) as process:
        assert process.communicate() == (None, None)


@pytest.mark.half_close
def test_communicate_with_more_than_the_buffers_hold_r16(sp: Any) -> None:
    """R-16: in either direction and on both outputs."""
    data = os.urandom(1 << 20) * 3
    pipes = {"stdin": sp.PIPE, "stdout": sp.PIPE, "stderr": sp.PIPE}
    with sp.Popen(["sh", "-c", "tee /dev/stderr"], **pipes) as process:
        assert process.communicate(data, seconds(25)) == (data, data)


@pytest.mark.half_close
def test_communicate_again_after_a_timeout(sp: Any) -> None:
    script = ["sh", "-c", "cat; sleep 2; printf later; printf err >&2"]
    with sp.Popen(script, stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.PIPE) as process:
        with pytest.raises(sp.TimeoutExpired) as caught:
            process.communicate(b"input;" * 30_000, timeout=seconds(0.2))
        assert caught.value.timeout == seconds(0.2)
        assert caught.value.cmd == script
        with pytest.raises(ValueError, match="Cannot send input after starting communication"):
            process.communicate(b"again")
        assert process.communicate() == (b"input;" * 30_000 + b"later", b"err")
        assert process.returncode == 0


def test_communicate_after_some_was_read(sp: Any) -> None:
    with sp.Popen(["printf", "a\\nb\\nc"], stdout=sp.PIPE) as process:
        assert process.stdout.readline() == b"a\n"
        assert process.communicate() == (b"b\nc", None)
    with sp.Popen(["printf", "a\\nb\\nc"], stdout=sp.PIPE, text=True) as process:
        assert process.stdout.readline() == "a\n"
        assert process.communicate() == ("b\nc", None)


def test_communicate_of_what_is_not_text(sp: Any) -> None:
    with sp.Popen(["printf", "\\351"], stdout=sp.PIPE, text=True) as process:
        with pytest.raises(UnicodeDecodeError):
            process.communicate()
        process.stdout.close()
        process.wait()


@pytest.mark.half_close
def test_communicate_uses_the_encodings_of_the_streams(sp: Any) -> None:
    script = ["sh", "-c", "cat; printf '\\351' >&2"]
    pipes = {"stdin": sp.PIPE, "stdout": sp.PIPE, "stderr": sp.PIPE}
    with sp.Popen(script, text=True, **pipes) as process:
        process.stdin.reconfigure(encoding="utf-16-le")
        process.stdout.reconfigure(encoding="latin-1")
        process.stderr.reconfigure(errors="replace")
        assert process.communicate("é") == ("\xe9\0", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("newline", ["", "\n", "\r\n"])
def test_communicate_leaves_the_ends_of_lines_if_it_was_told_to(sp: Any, newline: str) -> None:
    text = "a\r\nb\rc\r\n"
    with sp.Popen(["printf", text], stdout=sp.PIPE, text=True) as process:
        process.stdout.reconfigure(newline=newline)
        assert process.communicate() == (text, None)


@pytest.mark.parametrize("wrapped", [io.TextIOWrapper, io.BufferedReader])
def test_wrappers_of_the_users_own(sp: Any, wrapped: Any) -> None:
    for leave in (False, True):
        with sp.Popen(["printf", "a\\r\\nb"], stdout=sp.PIPE) as process:
            text = wrapped is io.TextIOWrapper
            options = {"encoding": "utf-8", "newline": ""} if text else {}
            process.stdout = wrapped(process.stdout, **options)
            if leave:
                process.wait()
            else:
                assert process.communicate() == ("a\r\nb" if text else b"a\r\nb", None)
        assert process.stdout.closed
        assert process.returncode == 0


@pytest.mark.half_close
@pytest.mark.parametrize("text", [False, True])
def test_what_a_stdin_still_holds_goes_out_before_the_input(sp: Any, text: bool) -> None:
    with sp.Popen(["cat"], 0, stdin=sp.PIPE, stdout=sp.PIPE) as process:
        raw = process.stdin
        process.stdin = io.TextIOWrapper(raw, encoding="utf-8") if text else io.BufferedWriter(raw)
        process.stdin.write("held, " if text else b"held, ")
        assert process.communicate(b"sent") == (b"held, sent", None)
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, text=True) as process:
        process.stdin.reconfigure(write_through=False)
        process.stdin.write("held, ")
        assert process.communicate("sent") == ("held, sent", None)


@pytest.mark.half_close
def test_leaving_the_block_closes_and_waits(sp: Any) -> None:
    pipes = {"stdin": sp.PIPE, "stdout": sp.PIPE, "stderr": sp.PIPE}
    with sp.Popen(["sh", "-c", "cat; exit 6"], **pipes) as process:
        pass
    assert process.returncode == 6
    assert all(stream.closed for stream in (process.stdin, process.stdout, process.stderr))


@pytest.mark.half_close
def test_a_broken_pipe(sp: Any) -> None:
    with sp.Popen(["true"], stdin=sp.PIPE, bufsize=0) as process:
        process.wait()
        with pytest.raises(BrokenPipeError):
            for _ in range(100):
                process.stdin.write(b"x" * 65536)


@pytest.mark.half_close
def test_stdin_writer_and_reader_are_independent_r16(sp: Any) -> None:
    """R-16: one thread writes, another reads, whichever is slower."""
    data = os.urandom(1 << 20) * 4
    with sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE, bufsize=0) as process:

        def write() -> None:
            for start in range(0, len(data), 70_000):
                process.stdin.write(data[start : start + 70_000])
            process.stdin.close()

        writing = in_thread(write)
        assert process.stdout.read() == data
        writing.result()
        assert process.wait() == 0


def test_waiting_in_several_threads(sp: Any) -> None:
    with sp.Popen(["sh", "-c", "sleep 0.2; exit 9"]) as process:
        waiting = [in_thread(process.wait) for _ in range(4)]
        assert [future.result() for future in waiting] == [9] * 4


def test_signals_after_the_end_do_nothing(sp: Any) -> None:
    with sp.Popen(["true"]) as process:
        process.wait()
        process.send_signal(15)
        process.terminate()
        process.kill()
    assert process.returncode == 0


def died_of(process: Any, number: int) -> bool:
    """subprocess says -n, and a Status what a shell would say."""
    return process.returncode == (
        -number if isinstance(process, subprocess.Popen) else 128 + number
    )


@pytest.mark.usefixtures("signals_are_heard")
@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda process: process.terminate(), signal.SIGTERM),
        (lambda process: process.kill(), signal.SIGKILL),
        (lambda process: process.send_signal(signal.SIGHUP), signal.SIGHUP),
        (lambda process: process.send_signal(2), signal.SIGINT),
    ],
)
def test_signals_r50(killing: Any, call: Any, number: int) -> None:
    with killing.Popen(["sleep", "20"]) as process:
        assert process.pid > 0
        assert call(process) is None
        process.wait(seconds(20))
        assert died_of(process, number)
        assert call(process) is None  # nothing to do
    assert died_of(process, number)


def test_a_signal_that_is_caught_r50(killing: Any) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with killing.Popen(["sh", "-c", script], stdout=killing.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.readline() == "caught\n"
        assert process.wait(seconds(20)) == 3


def test_a_killed_process_leaves_its_output_r50(killing: Any, enough: float) -> None:
    script = "echo out; echo err >&2; exec sleep 20"
    pipes = {"stdout": killing.PIPE, "stderr": killing.PIPE}
    with killing.Popen(["sh", "-c", script], **pipes) as process:
        with pytest.raises(killing.TimeoutExpired):
            process.communicate(timeout=enough)
        process.kill()
        assert process.communicate(timeout=seconds(20)) == (b"out\n", b"err\n")
        assert died_of(process, signal.SIGKILL)


def test_the_process_id_is_its_own_r50(killing: Any) -> None:
    with killing.Popen(["sh", "-c", "echo $$"], stdout=killing.PIPE) as process:
        assert process.pid == int(process.stdout.read())


def test_repr_tells_args_and_returncode(sp: Any) -> None:
    with sp.Popen(["true"]) as process:
        process.wait()
        assert "Popen: returncode: 0 args: ['true']" in repr(process)


def test_two_processes_are_two(sp: Any) -> None:
    with sp.Popen(["printf", "1"], stdout=sp.PIPE) as one:
        with sp.Popen(["printf", "2"], stdout=sp.PIPE) as two:
            assert (two.stdout.read(), one.stdout.read()) == (b"2", b"1")
