"""Streams as the file objects that io promises; an OS pipe says what is right."""

from __future__ import annotations

import gc
import io
import os
import shutil
import time

import pytest
from support import in_thread, put, seconds

import kubews
from kubews import PIPE, Pod, Stream

PAYLOAD = b"first line\n" + bytes(range(256)) * 500 + b"\nlast line without an end"


def os_pipe(pod: Pod, **options) -> io.IOBase:
    """The oracle: what the kernel gives for the same bytes."""
    read, write = os.pipe()
    in_thread(feed, write)
    return open(read, "rb", buffering=options.get("bufsize", -1))


def feed(write: int) -> None:
    view = memoryview(PAYLOAD)
    try:
        while view:
            view = view[os.write(write, view) :]
    except BrokenPipeError:
        pass  # the reader has had enough
    finally:
        os.close(write)


def from_pod(pod: Pod, **options) -> io.IOBase:
    """The same bytes, out of a process in a pod."""
    return pod.popen(["cat", put(pod, "payload", PAYLOAD)], stdout=PIPE, **options).stdout


@pytest.fixture(params=[os_pipe, from_pod], ids=["os.pipe", "pod"])
def make(request, pod: Pod):
    """Make a stream with the payload."""
    return lambda **options: request.param(pod, **options)


def test_read_to_the_end_and_again(make) -> None:
    for bufsize in (-1, 0):
        with make(bufsize=bufsize) as stream:
            assert stream.readable()
            assert not stream.writable()
            assert not stream.seekable()
            assert stream.read() == PAYLOAD
            assert stream.read() == b""
            assert stream.read(10) == b""
            assert stream.readline() == b""
            assert stream.readinto(bytearray(10)) == 0


def test_zero_bytes_are_no_end(make) -> None:
    for bufsize in (-1, 0):
        with make(bufsize=bufsize) as stream:
            assert stream.read(0) == b""
            assert stream.readinto(bytearray()) == 0
            assert stream.read(5) == b"first"
            assert stream.readline(0) == b""
            assert stream.read() == PAYLOAD[5:]


def test_lines_iteration_and_mixed_reads_r5(make) -> None:
    """R-5: whatever the mix, the pieces add up."""
    lines = PAYLOAD.splitlines(keepends=True)
    lines = io.BytesIO(PAYLOAD).readlines()
    with make() as stream:
        assert list(stream) == lines
    with make() as stream:
        assert stream.readline() == lines[0]
        assert stream.peek(1)[:1] == PAYLOAD[len(lines[0]) : len(lines[0]) + 1]
        assert stream.readline(3) == lines[1][:3]
        assert stream.readlines() == [lines[1][3:], *lines[2:]]
    with make(bufsize=0) as stream:
        assert stream.readline() == lines[0]
        assert stream.readline(4) == lines[1][:4]
        assert stream.readlines() == [lines[1][4:], *lines[2:]]


def test_readinto_a_slice_and_other_types_of_buffer(make) -> None:
    for bufsize in (-1, 0):
        with make(bufsize=bufsize) as stream:
            target = bytearray(b"." * 20)
            count = stream.readinto(memoryview(target)[5:10])
            assert count == 5
            assert target == b"....." + PAYLOAD[:5] + b"." * 10
            words = memoryview(bytearray(8)).cast("I")
            assert stream.readinto(words) == 8
            assert words.tobytes() == PAYLOAD[5:13]
            assert len(stream.read()) == len(PAYLOAD) - 13


def test_copyfileobj_and_text(make) -> None:
    with make() as stream:
        target = io.BytesIO()
        shutil.copyfileobj(stream, target)
        assert target.getvalue() == PAYLOAD
    with io.TextIOWrapper(make(), encoding="latin-1", newline="") as text:
        assert text.read() == PAYLOAD.decode("latin-1")


def test_closed_is_closed(make) -> None:
    for bufsize in (-1, 0):
        stream = make(bufsize=bufsize)
        assert len(stream.read()) == len(PAYLOAD)
        stream.close()
        stream.close()
        assert stream.closed
        for call in (stream.read, stream.readline, lambda s=stream: s.readinto(bytearray(1))):
            with pytest.raises(ValueError, match="closed"):
                call()
        del stream, call
        gc.collect()


@pytest.mark.half_close
def test_the_raw_stream_has_what_a_wrapper_needs(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        stdin, stdout = process.stdin, process.stdout
        assert isinstance(stdin, Stream)
        assert stdin.writable()
        assert not stdin.readable()
        for call in (stdin.read, stdin.peek, lambda: stdin.recv(1), stdin.readline):
            with pytest.raises(io.UnsupportedOperation):
                call()
        with pytest.raises(io.UnsupportedOperation):
            stdout.write(b"x")
        assert stdin.write(memoryview(b"abc")) == 3
        assert stdout.peek() == b"abc"
        assert stdout.recv(0) == b""
        assert stdout.recv(2) == b"ab"
        assert stdout.read(1) == b"c"
        assert stdin.write(b"") == 0
        stdin.flush()
        stdin.close_write()
        assert stdout.recv(1, timeout=seconds(5)) == b""
        assert not stdout.isatty()


def test_a_reader_is_woken_by_close_and_by_abort(pod: Pod) -> None:
    for end in ("close", "abort"):
        with pod.popen(["sleep", "1"], stdout=PIPE, bufsize=0) as process:
            reading = in_thread(process.stdout.read, 1)
            time.sleep(0.1)
            assert reading.running
            getattr(process.stdout, end)()
            with pytest.raises((ValueError, kubews.ConnectionLost)):
                reading.result()
            process.close()


def test_concurrent_readers_divide_the_bytes(pod: Pod) -> None:
    def read() -> int:
        count = 0
        while piece := process.stdout.read(1000):
            assert set(piece) == {0}
            count += len(piece)
        return count

    with pod.popen(["head", "-c", "3000000", "/dev/zero"], stdout=PIPE, bufsize=0) as process:
        assert sum(future.result() for future in [in_thread(read) for _ in range(4)]) == 3_000_000


@pytest.mark.half_close
def test_concurrent_writers_do_not_mix_within_a_message(pod: Pod, tmp_path) -> None:
    def write(letter: bytes) -> None:
        for _ in range(50):
            process.stdin.write(letter * 999 + b"\n")

    target = tmp_path / "out"
    with open(target, "wb") as file:
        with pod.popen(["cat"], stdin=PIPE, stdout=file) as process:
            for future in [in_thread(write, letter) for letter in (b"a", b"b", b"c", b"d")]:
                future.result()
    lines = target.read_bytes().splitlines()
    assert len(lines) == 200
    assert all(len(set(line)) == 1 and len(line) == 999 for line in lines)


def test_an_interrupted_read_of_everything_loses_nothing(pod: Pod) -> None:
    with pod.popen(
        ["sh", "-c", "printf abc; read x"], stdin=PIPE, stdout=PIPE, bufsize=0
    ) as process:
        pipe = process.stdout._pipe
        original, calls = pipe.wait_data, []

        def interrupted(deadline):
            calls.append(deadline)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(deadline)

        pipe.wait_data = interrupted
        with pytest.raises(KeyboardInterrupt):
            process.stdout.read()
        pipe.wait_data = original
        process.stdin.write(b"\n")
        assert process.stdout.read() == b"abc"


def test_a_forgotten_stdin_on_an_old_server_makes_no_noise(old_pod: Pod) -> None:
    for options in ({}, {"text": True}):
        process = old_pod.popen(["head", "-c", "1"], stdin=PIPE, stdout=PIPE, **options)
        process.stdin.write("x" if options else b"x")
        process.stdin = None
        gc.collect()
        assert process.wait(seconds(5)) == 0
        process.close()


def test_text_reads_by_the_character(pod: Pod) -> None:
    with pod.popen(["printf", "a\\303\\251b\\nc"], stdout=PIPE, text=True) as process:
        assert process.stdout.read(0) == ""
        assert process.stdout.read(2) == "aé"
        assert process.stdout.readline() == "b\n"
        assert process.stdout.read(5) == "c"
        assert process.stdout.read(5) == ""
        assert process.stdout.read() == ""


@pytest.mark.half_close
def test_a_buffered_writer_gathers_small_writes(pod: Pod) -> None:
    with pod.popen(["wc", "-l"], stdin=PIPE, stdout=PIPE) as process:
        with io.BufferedWriter(process.stdin, 65536) as writer:
            for number in range(20_000):
                writer.write(b"row %d\n" % number)
        assert process.stdin.closed
        assert int(process.stdout.read()) == 20_000
