"""Streams: what they have beyond the contract of files, which ``contract`` tests."""

from __future__ import annotations

import gc
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import in_thread, seconds
from transport.interrupts import Interrupted, interrupt, points, run_with, signalled
from transport.peers import opened

import kubews
from kubews import PIPE, Pod, Stream
from kubews.files.podreader import PodReader
from kubews.files.podwriter import PodWriter
from kubews.session import Session
from kubews.transport.exchange import HttpResponse
from kubews.transport.pipe import Pipe


@contextmanager
def stdout() -> Iterator[tuple[Stream, Pipe]]:
    """Give a stream over a connection whose peer says nothing, and its pipe."""
    with opened() as (connection, _):
        pipe = connection.pipes[1]
        yield Stream(Session(connection), 1, pipe), pipe


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
        with pod.popen(["sleep", "5"], stdout=PIPE, bufsize=0) as process:
            reading = in_thread(process.stdout.read, 1)
            time.sleep(0.1)
            assert reading.running
            getattr(process.stdout, end)()
            with pytest.raises((ValueError, kubews.ConnectionLost)):
                reading.result()
            process.close()


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


def test_the_end_of_everything_is_behind_what_comes_after_another_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stdout() as (stream, pipe):
        pipe.feed(memoryview(b"another's"))

        def taken_by_another(taken: list[bytes]) -> bytes:
            monkeypatch.undo()
            assert pipe.take_all() == b"another's"
            nothing = pipe.take_all()
            pipe.feed(memoryview(b"ours"))
            pipe.finish()
            return nothing

        monkeypatch.setattr(pipe, "take_all", taken_by_another)
        assert stream.read() == b"ours"


def test_a_loss_is_no_end_though_another_reader_has_taken_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stdout() as (stream, pipe):
        pipe.feed(memoryview(b"another's"))
        pipe.finish(kubews.ConnectionLost("gone"))

        def taken_by_another(taken: list[bytes]) -> bytes:
            monkeypatch.undo()
            assert pipe.take_all() == b"another's"
            return pipe.take_all(taken)

        monkeypatch.setattr(pipe, "take_all", taken_by_another)
        with pytest.raises(kubews.ConnectionLost, match="gone"):
            stream.read()


@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupt_at_any_point_of_reading_everything_loses_nothing_r49(lost: bool) -> None:
    """R-49: and no more is told as what came before a loss than there was."""
    for number in points():
        with stdout() as (stream, pipe):
            pipe.feed(memoryview(b"some"))
            pipe.finish(kubews.ConnectionLost("gone") if lost else None)
            try:
                result, reached = run_with(stream.readall, number, interrupt)
                assert (result, pipe.size) == (b"some", 0)
            except kubews.ConnectionLost as exc:
                partial, reached = exc.partial, False
            except Interrupted:
                assert pipe.buffered() == b"some", number
                reached = True
        if not reached:
            assert number > 5
            assert not lost or partial == b"some"
            return


def test_the_timeout_of_a_signal_handler_is_not_that_of_recv(pod: Pod) -> None:
    class Late(TimeoutError):
        pass

    def handler(number: int, frame: object) -> None:
        raise Late("of the handler")

    with pod.popen(["sleep", "5"], stdout=PIPE, bufsize=0) as process:
        with signalled(handler), pytest.raises(Late, match="of the handler"):
            process.stdout.recv(10, timeout=seconds(5))
        process.close()


@pytest.mark.parametrize("kind", [Stream, PodReader, PodWriter, HttpResponse])
def test_what_ctrl_c_has_half_made_is_forgotten_in_silence_r49(
    kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-49: Python tells of what such a finalizer raises in its development mode, and from 3.13 on."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    kind.__new__(kind)
    gc.collect()
    assert told == []


def test_an_interrupted_close_of_an_output_can_be_made_again() -> None:
    """Or its bytes would be kept for a reader that nobody can be any more."""
    for number in points():
        with stdout() as (stream, pipe):
            pipe.feed(memoryview(b"unread"))
            try:
                _, reached = run_with(stream.close, number, interrupt)
            except Interrupted:
                reached = True
                stream.close()
            assert stream.closed
            assert not pipe.size
            with pytest.raises(ValueError, match="closed"):
                stream.read(1)
        if not reached:
            return


def test_a_forgotten_stdin_on_an_old_server_makes_no_noise(old_pod: Pod) -> None:
    for options in ({}, {"text": True}):
        process = old_pod.popen(["head", "-c", "1"], stdin=PIPE, stdout=PIPE, **options)
        process.stdin.write("x" if options else b"x")
        process.stdin = None
        gc.collect()
        assert process.wait(seconds(5)) == 0
        process.close()


@pytest.mark.half_close
def test_a_buffered_writer_gathers_small_writes(pod: Pod) -> None:
    with pod.popen(["wc", "-l"], stdin=PIPE, stdout=PIPE) as process:
        with io.BufferedWriter(process.stdin, 65536) as writer:
            for number in range(20_000):
                writer.write(b"row %d\n" % number)
        assert process.stdin.closed
        assert int(process.stdout.read()) == 20_000
