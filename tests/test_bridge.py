"""Descriptors of streams: select, selectors, asyncio and child processes, served by the loop."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import select
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from support import eventually, in_thread, resources, seconds
from transport.interrupts import Interrupted, interrupt, points, run_with
from transport.peers import SUCCESS, close_frame, data, opened

import kubews
from kubews import PIPE, Pod, Stream, bridge
from kubews.session import Session
from kubews.testing import Faults
from kubews.transport.deadline import Deadline

MIB = 1 << 20


def readable(*files: object, timeout: float = 10.0) -> list[object]:
    return select.select(files, [], [], seconds(timeout))[0]


@pytest.mark.half_close
def test_select_tells_which_stream_has_something(pod: Pod) -> None:
    script = "read x; echo out; read x; echo err >&2; read x"
    with pod.popen(script, shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert not readable(process.stdout, process.stderr, timeout=0.05)
        process.stdin.write(b"\n")
        assert readable(process.stdout, process.stderr) == [process.stdout]
        assert process.stdout.readline() == b"out\n"
        assert not readable(process.stdout, process.stderr, timeout=0.05)
        process.stdin.write(b"\n")
        assert readable(process.stdout, process.stderr) == [process.stderr]
        assert process.stderr.readline() == b"err\n"
        process.stdin.write(b"\n")
        assert process.wait(seconds(10)) == 0
        assert readable(process.stdout)
        assert process.stdout.read() == b""


def test_selectors_read_everything_of_two_streams(pod: Pod) -> None:
    script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2"
    with pod.popen(script, shell=True, stdout=PIPE, stderr=PIPE, bufsize=0) as process:
        counts = {process.stdout: 0, process.stderr: 0}
        with selectors.DefaultSelector() as selector:
            for stream in counts:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(seconds(10)):
                    data = os.read(key.fd, 65536)
                    counts[key.fileobj] += len(data)
                    if not data:
                        selector.unregister(key.fileobj)
        assert list(counts.values()) == [3_000_000, 2_000_000]
        assert process.wait(seconds(10)) == 0


def test_a_local_process_reads_what_a_remote_one_writes(pod: Pod) -> None:
    with pod.popen(["seq", "300000"], stdout=PIPE) as remote:
        local = subprocess.Popen(["wc", "-l"], stdin=remote.stdout, stdout=subprocess.PIPE)
        remote.stdout.close()  # the child has a copy, and goes on
        assert local.communicate(timeout=seconds(30))[0].strip() == b"300000"
        assert remote.wait(seconds(10)) == 0


def test_leaving_the_block_does_not_cut_off_a_child(pod: Pod) -> None:
    script = "sleep 0.3; seq 100000"
    with pod.popen(script, shell=True, stdout=PIPE) as remote:
        local = subprocess.Popen(["wc", "-l"], stdin=remote.stdout, stdout=subprocess.PIPE)
    assert remote.returncode == 0
    assert local.communicate(timeout=seconds(30))[0].strip() == b"100000"


def test_a_child_opens_dev_stdin(pod: Pod) -> None:
    """A socket could not be opened by that name."""
    with pod.popen(["echo", "by name"], stdout=PIPE) as remote:
        done = subprocess.run(
            ["cat", "/dev/stdin"], stdin=remote.stdout, capture_output=True, timeout=seconds(10)
        )
        assert done.stdout == b"by name\n"


def test_a_child_after_the_process_has_ended(pod: Pod) -> None:
    """The connection and its loop are gone; what was buffered is not."""
    for size in (10, 3 * MIB):
        process = pod.popen(["head", "-c", str(size), "/dev/zero"], stdout=PIPE)
        assert process.wait(seconds(10)) == 0
        process._connection.join(kubews.transport.deadline.Deadline(seconds(5)))
        done = subprocess.run(["wc", "-c"], stdin=process.stdout, capture_output=True, check=True)
        assert int(done.stdout) == size
        process.stdout.close()
        process.close()


@pytest.mark.half_close
def test_a_local_process_writes_what_a_remote_one_reads(pod: Pod) -> None:
    with pod.popen(["wc", "-c"], stdin=PIPE, stdout=PIPE) as remote:
        command = ["head", "-c", "5000000", "/dev/zero"]
        with subprocess.Popen(command, stdout=remote.stdin) as local:
            remote.stdin.close()  # the end comes when the child has closed its copy, too
            assert local.wait(seconds(30)) == 0
        assert int(remote.stdout.read()) == 5_000_000


@pytest.mark.half_close
def test_writes_and_the_end_through_a_descriptor(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin.write(b"before;") == 7
        assert select.select([], [process.stdin], [], seconds(10))[1] == [process.stdin]
        assert process.stdin.write(b"x" * 500_000) == 500_000
        os.write(process.stdin.fileno(), b";after")
        process.stdin.close()
        assert process.stdout.read() == b"before;" + b"x" * 500_000 + b";after"


@pytest.mark.half_close
def test_a_process_that_ends_breaks_the_pipe(pod: Pod) -> None:
    with pod.popen(["true"], stdin=PIPE) as process:
        select.select([], [process.stdin], [], 0)
        assert process.wait(seconds(10)) == 0

        def broken() -> bool:
            try:
                process.stdin.write(b"x")
            except BrokenPipeError:
                return True
            return False

        assert eventually(broken)


@pytest.mark.half_close
def test_a_write_to_a_broken_descriptor_says_whose_it_was(pod: Pod) -> None:
    with pod.popen(["true"], stdin=PIPE) as process:
        process.stdin.fileno()
        assert process.wait(seconds(10)) == 0
        with pytest.raises(kubews.StreamBroken, match=f"{pod.name}: the process or the"):
            eventually(lambda: not process.stdin.write(b"x"))


@pytest.mark.half_close
def test_a_write_to_a_descriptor_that_does_not_block_waits_for_it(pod: Pod) -> None:
    class Counting:
        calls = 0

        def __init__(self, end: io.RawIOBase) -> None:
            self.end = end

        def write(self, data: memoryview) -> Optional[int]:
            self.calls += 1
            return self.end.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.end, name)

    with pod.popen("sleep 1; wc -c", shell=True, stdin=PIPE, stdout=PIPE) as process:
        os.set_blocking(process.stdin.fileno(), False)
        bridge = process.stdin._bridge
        counting = bridge.end = Counting(bridge.end)
        process.stdin.write(bytes(20_000_000))
        assert counting.calls < 10_000
        process.stdin.close()
        assert process.stdout.read() == b"20000000\n"


@pytest.mark.half_close
def test_who_writes_to_a_descriptor_that_does_not_block_hears_of_its_close(pod: Pod) -> None:
    with pod.popen(["sleep", "3"], stdin=PIPE) as process:
        os.set_blocking(process.stdin.fileno(), False)
        writer = in_thread(process.stdin.write, bytes(32 << 20))
        assert eventually(lambda: process._connection._outbox)
        process.stdin.close()
        with pytest.raises(ValueError, match="closed file"):
            writer.result(seconds(10))
        process.close()


def test_reads_of_every_kind_go_through_the_descriptor(pod: Pod) -> None:
    with pod.popen(["printf", "one\\ntwo\\nthree\\nrest"], stdout=PIPE, bufsize=0) as process:
        stream = process.stdout
        assert stream.read(1) == b"o"
        assert not stream.bridged
        assert stream.fileno() == stream.fileno()
        assert stream.bridged
        assert stream.readline() == b"ne\n"
        assert stream.recv(4, timeout=seconds(10)) == b"two\n"
        buffer = bytearray(6)
        assert stream.readinto(memoryview(buffer).cast("B")) == 6
        assert buffer == b"three\n"
        assert stream.peek() == b""
        assert stream.readall() == b"rest"
        assert stream.read() == stream.read(5) == stream.recv(5) == b""


@pytest.mark.half_close
@pytest.mark.parametrize("bufsize", [0, -1])
@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(3),
        lambda stream: stream.readline()[:3],
        lambda stream: stream.read()[:3],
        lambda stream: bytes(filled) if stream.readinto(filled := bytearray(3)) else b"",
        lambda stream: getattr(stream, "raw", stream).recv(3, seconds(20)),
    ],
    ids=["read", "readline", "all", "readinto", "recv"],
)
def test_who_reads_already_goes_on_at_the_descriptor(pod: Pod, read: Any, bufsize: int) -> None:
    script = "read x; echo one; echo two"
    with pod.popen(script, shell=True, stdin=PIPE, stdout=PIPE, bufsize=bufsize) as process:
        thread = in_thread(read, process.stdout)
        assert eventually(process._connection.pipes[1].readers.starving)
        process.stdout.fileno()
        process.stdin.write(b"\n")
        assert thread.result(seconds(20)) == b"one"


@pytest.mark.half_close
def test_recv_has_its_time_limit(pod: Pod) -> None:
    with pod.popen(["sh", "-c", "read x"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        process.stdout.fileno()
        begin = time.monotonic()
        with pytest.raises(kubews.ReadTimeout):
            process.stdout.recv(1, timeout=0.1)
        assert time.monotonic() - begin < seconds(2)
        process.stdin.write(b"\n")


def test_text_through_a_descriptor(pod: Pod) -> None:
    with pod.popen(["printf", "é\\nü"], stdout=PIPE, text=True) as process:
        assert readable(process.stdout)
        assert process.stdout.readlines() == ["é\n", "ü"]


def test_a_slow_reader_of_a_descriptor_stops_the_sender(pod: Pod) -> None:
    with pod.popen(["head", "-c", "40000000", "/dev/zero"], stdout=PIPE, bufsize=0) as process:
        pipe = process.stdout._pipe
        process.stdout.fileno()
        assert eventually(lambda: pipe.size >= 4 * MIB)
        waiting = in_thread(process.wait, seconds(30))
        time.sleep(0.5)
        assert pipe.size < 6 * MIB
        assert waiting.running
        assert len(process.stdout.read()) == 40_000_000
        assert waiting.result() == 0


def test_a_reader_that_leaves_hangs_up(pod: Pod) -> None:
    """As a local process gets SIGPIPE: the session ends, and nothing is read for nobody."""
    for script in ("yes a line | head -n 5000000", "echo line; exec sleep 100"):
        process = pod.popen(script, shell=True, stdout=PIPE)
        child = subprocess.Popen(["head", "-n", "1"], stdin=process.stdout, stdout=PIPE)
        assert len(child.communicate()[0].splitlines()) == 1
        if "yes" in script:
            with process:
                pass
            assert process.returncode is None
        else:
            process.stdout.close()
            assert eventually(lambda: not process._connection.bridges)  # noqa: B023
            process.close()


def test_a_lost_connection_looks_like_the_end_to_a_child_and_wait_tells(pod: Pod, local) -> None:
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["echo", "x"], stdout=PIPE)
    done = subprocess.run(["cat"], stdin=process.stdout, capture_output=True, timeout=seconds(10))
    assert done.stdout == b"x\n"
    with pytest.raises(kubews.ConnectionLost):
        process.wait(seconds(10))
    with pytest.raises(kubews.ConnectionLost):
        process.stdout.read()
    process.close()
    local.next_faults(Faults(no_status=True))
    process = pod.popen(["echo", "x"], stdout=PIPE, bufsize=0)
    process.stdout.fileno()
    assert process.stdout.read(10) == b"x\n"
    for read in (process.stdout.readall, lambda: process.stdout.read(1)):
        with pytest.raises(kubews.ConnectionLost):
            read()
    process.close()


def test_a_descriptor_outlives_its_streams(pod: Pod) -> None:
    descriptor = pod.popen(["seq", "100000"], stdout=PIPE, bufsize=0).stdout.detach_fd()
    gc.collect()
    with open(descriptor) as file:
        assert sum(1 for _ in file) == 100_000


@pytest.mark.half_close
def test_a_detached_stdin_ends_with_its_descriptor(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        descriptor = process.stdin.detach_fd()
        assert process.stdin.closed
        with open(descriptor, "wb") as file:
            file.write(b"through it")
        assert process.stdout.read() == b"through it"


def test_what_is_forgotten_is_collected(pod: Pod) -> None:
    """The fixture looks for threads and descriptors."""

    def forget() -> None:
        stream = pod.popen(["sleep", "100"], stdout=PIPE, bufsize=0).stdout
        stream.fileno()
        stream.close()
        del stream
        assert eventually(lambda: not any("web-0" in each.name for each in threading.enumerate()))

    with pytest.warns(ResourceWarning, match="is still running"):
        forget()


def test_close_ends_what_waits_for_a_descriptor(pod: Pod) -> None:
    process = pod.popen(["sleep", "100"], stdout=PIPE)
    process.stdout.fileno()
    reading = in_thread(process.stdout.read)
    time.sleep(0.1)
    assert reading.running
    process.close()
    with pytest.raises((kubews.ConnectionLost, ValueError)):
        reading.result()


def test_old_servers_have_no_descriptor_for_input(old_pod: Pod) -> None:
    """Nobody could tell the process of its end."""
    with old_pod.popen(["head", "-c", "2"], stdin=PIPE, stdout=PIPE) as process:
        with pytest.raises(kubews.HalfCloseUnsupported):
            process.stdin.fileno()
        assert not process.stdin.bridged
        process.stdin.write(b"ab")
        assert readable(process.stdout)
        assert process.stdout.read() == b"ab"


@pytest.mark.half_close
def test_communicate_says_that_its_input_would_overtake_what_a_descriptor_holds(pod: Pod) -> None:
    wrapped: list[Any] = [
        lambda stream: io.BufferedWriter(stream),
        lambda stream: os.fdopen(stream.detach_fd(), "wb"),
    ]
    for wrap in wrapped:
        with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            process.stdin.fileno()
            process.stdin = wrap(process.stdin)
            process.stdin.write(b"first")
            with pytest.raises(ValueError, match=r"fileno\(\)"):
                process.communicate(b"second")
            process.stdin.close()
            assert process.stdout.read() == b"first"


def test_communicate_says_that_it_has_nothing_to_read(pod: Pod) -> None:
    with pod.popen(["echo", "x"], stdout=PIPE) as process:
        process.stdout.fileno()
        with pytest.raises(ValueError, match=r"fileno\(\)"):
            process.communicate()
        assert process.stdout.read() == b"x\n"


@pytest.mark.half_close
def test_asyncio_reads_and_writes_pipes(pod: Pod) -> None:
    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stdout)
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        transport.write(b"to and fro\n")
        line = await reader.readline()
        transport.write(b"y" * 300_000)
        transport.close()
        return line + await reader.read()

    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        said = asyncio.run(asyncio.wait_for(talk(), seconds(30)))
    assert said == b"to and fro\n" + b"y" * 300_000


def test_add_reader(pod: Pod) -> None:
    async def first() -> bytes:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(process.stdout, arrived.set)
        await arrived.wait()
        loop.remove_reader(process.stdout)
        return process.stdout.read(100)

    with pod.popen(["echo", "ready"], stdout=PIPE, bufsize=0) as process:
        assert asyncio.run(asyncio.wait_for(first(), seconds(10))) == b"ready\n"


@pytest.mark.half_close
def test_a_stream_given_as_a_file_may_be_closed_at_once(pod: Pod) -> None:
    """It is used by a duplicate of its descriptor, as every file is."""
    for options in ({}, {"text": True}, {"bufsize": 0}):
        with pod.popen("sleep 0.1; seq 20000", shell=True, stdout=PIPE, **options) as source:
            with pod.popen(["tail", "-n", "1"], stdin=source.stdout, stdout=PIPE) as target:
                source.stdout.close()
                assert target.communicate() == (b"20000\n", None)
        assert source.returncode == 0
        with pod.popen(["tail", "-n", "1"], stdin=PIPE, stdout=PIPE, **options) as target:
            with pod.popen("sleep 0.1; seq 20000", shell=True, stdout=target.stdin) as source:
                target.stdin.close()
            assert source.returncode == 0
            assert target.stdout.read().strip() in (b"20000", "20000")


@pytest.mark.half_close
def test_a_stream_that_is_lost_is_no_end_of_another_processs_input(pod: Pod, local) -> None:
    local.next_faults(Faults(match="/exec", drop_after=50_000))
    with pod.popen(["head", "-c", "100000", "/dev/zero"], stdout=PIPE) as source:
        with pod.popen(["wc", "-c"], stdin=source.stdout, stdout=PIPE) as target:
            source.stdout.close()
            with pytest.raises(kubews.ConnectionLost, match="connection lost"):
                target.wait(seconds(20))
        with pytest.raises(kubews.ConnectionLost):
            source.wait(seconds(20))


def test_a_descriptor_that_does_not_block_loses_nothing_of_a_lost_process_r5(
    pod: Pod, local
) -> None:
    """R-5: that nothing is there yet is not the end; nor is it for who looks without taking."""
    size = 3 << 20
    local.next_faults(Faults(no_status=True))
    with pod.popen(["head", "-c", str(size), "/dev/zero"], stdout=PIPE) as process:
        os.set_blocking(process.stdout.fileno(), False)
        with pytest.raises(kubews.ConnectionLost):
            process.wait(seconds(20))
        count = 0
        with pytest.raises(kubews.ConnectionLost):
            while True:
                if not process.stdout.peek():
                    select.select([process.stdout], [], [], seconds(10))
                count += len(process.stdout.read1(100_000) or b"")
        assert count == size


@pytest.mark.parametrize("bufsize", [0, -1])
def test_text_before_a_loss_comes_through_a_descriptor_too_r5(
    pod: Pod, local, bufsize: int
) -> None:
    """R-5."""
    local.next_faults(Faults(no_status=True))
    with pod.popen(["printf", "one\\ntwo"], stdout=PIPE, text=True, bufsize=bufsize) as process:
        process.stdout.fileno()
        assert process.stdout.readline() == "one\n"
        assert process.stdout.readline() == "two"
        with pytest.raises(kubews.ConnectionLost):
            process.stdout.readline()
        with pytest.raises(kubews.ConnectionLost):
            process.wait()


@pytest.mark.parametrize("bufsize", [0, -1])
def test_an_abort_is_no_end_of_what_comes_through_a_descriptor(pod: Pod, bufsize: int) -> None:
    # More than descriptors hold, so that some of it has arrived and is not in them.
    with pod.popen(
        "head -c 1000000 /dev/zero; sleep 5", stdout=PIPE, bufsize=bufsize, shell=True
    ) as p:
        p.stdout.fileno()
        assert eventually(lambda: p._connection.pipes[1].size)
        (p.stdout if bufsize == 0 else p.stdout.raw).abort()
        with pytest.raises(kubews.ConnectionLost, match="closed on this side"):
            while p.stdout.read(100_000):
                pass
        with pytest.raises(kubews.ConnectionLost):
            p.wait()


@pytest.mark.half_close
def test_an_abort_is_no_end_of_another_processs_input(pod: Pod) -> None:
    with (
        pod.popen(["cat", "/dev/zero"], stdout=PIPE) as source,
        pod.popen("sleep 1; wc -c", stdin=source.stdout, stdout=PIPE, shell=True) as target,
    ):
        assert eventually(lambda: source._connection.pipes[1].size)
        source.stdout.raw.abort()
        with pytest.raises(kubews.ConnectionLost, match="closed on this side"):
            target.wait(seconds(20))
        with pytest.raises(kubews.ConnectionLost):
            source.wait()


def many(pod: Pod) -> Iterator[kubews.Popen]:
    for _ in range(20):
        yield pod.popen(["echo", "x"], stdout=PIPE, bufsize=0)


def test_many_descriptors_in_one_select(pod: Pod) -> None:
    processes = list(many(pod))
    pending = {process.stdout: process for process in processes}
    while pending:
        for stream in readable(*pending):
            assert stream.read(10) in (b"x\n", b"")
            assert pending.pop(stream).wait(seconds(10)) == 0
    for process in processes:
        process.close()


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of sockets are no files there")
def test_the_descriptor_is_a_pipe_and_not_inherited(pod: Pod) -> None:
    with pod.popen(["true"], stdout=PIPE) as process:
        descriptor = process.stdout.fileno()
        assert not os.get_inheritable(descriptor)
        with pytest.raises((OSError, io.UnsupportedOperation)):
            os.lseek(descriptor, 0, os.SEEK_CUR)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
@pytest.mark.half_close
def test_a_fork_does_not_hold_up_the_end(pod: Pod) -> None:
    with pod.popen(["sh", "-c", "read x; echo done"], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.fileno()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until the parent is done
            os._exit(0)
        process.stdin.write(b"\n")
        try:
            assert in_thread(process.stdout.read).result() == b"done\n"
        finally:
            os.close(read)
            os.close(write)
            os.waitpid(child, 0)


def test_a_descriptor_made_while_the_loop_stops_has_all_of_the_output() -> None:
    """Of a command that is just over, nobody may get what fits into a pipe for everything."""
    block = bytes(50_000)
    with opened() as (connection, peer):
        stream = Stream(Session(connection), 1, connection.pipes[1])
        peer.send(*[data(1, block)] * 10)
        assert eventually(lambda: connection.pipes[1].size == 500_000)
        held = threading.Event()
        connection._loop.call_soon(held.wait, seconds(10))
        assert eventually(lambda: not connection._loop._posts)  # so the next two are of one round
        connection._loop.call_soon(connection._loop.stop)
        making = in_thread(stream.fileno)
        assert eventually(lambda: len(connection._loop._posts) >= 2)
        held.set()
        descriptor = making.result()
        count = 0
        while piece := os.read(descriptor, 1 << 16):
            count += len(piece)
        assert count == 500_000
        stream.close()


def test_communicate_does_not_return_what_a_descriptor_has_left_of_it(pod: Pod, place: str) -> None:
    """What another thread takes while it gathers is no part of the output."""
    go_on = f"/tmp/{place}"
    script = (
        f"printf a; until rm {go_on} 2>/dev/null; do sleep 0.05; done; head -c 300000 /dev/zero"
    )
    with pod.popen(script, shell=True, stdout=PIPE) as process:
        gathering = in_thread(process.communicate)
        assert eventually(lambda: process._connection.pipes[1].size == 1)
        process.stdout.fileno()
        kubews.check_call(["touch", go_on], pod=pod)
        with pytest.raises(ValueError, match=r"fileno\(\)"):
            gathering.result(seconds(20))
        got = b""
        while piece := process.stdout.raw.recv(1 << 20, seconds(10)):
            got += piece
        assert got


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # ends of pipes that nobody has yet
def test_an_interrupted_fileno_loses_no_byte() -> None:
    """The loop takes bytes as soon as it hears of a descriptor, so that has to be in somebody's hands then."""
    for number in points():
        with opened() as (connection, peer):
            stream = Stream(Session(connection), 1, connection.pipes[1])
            peer.send(data(1, b"before, "))
            assert eventually(lambda: connection.pipes[1].size)
            try:
                _, reached = run_with(stream.fileno, number, interrupt)
            except Interrupted:
                reached = True
            peer.send(data(1, b"behind"), data(3, SUCCESS), close_frame())
            got = b""
            while piece := stream.recv(100, seconds(10)):
                got += piece
            assert got == b"before, behind", number
            stream.close()
        if not reached:
            return


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_signal_while_a_pair_is_made_leaves_no_end_open_r49() -> None:
    """R-49: at any point, in the middle of it too."""
    for number in points():
        before = resources()
        try:
            (reader, writer), reached = run_with(bridge._pair, number, interrupt, bridge.__file__)
            reader.close()
            writer.close()
        except Interrupted:
            reached = True
        assert resources() == before, number
        if not reached:
            return


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_child_gets_all_that_an_ended_process_has_left_behind(end: str) -> None:
    """Though its Popen is closed before the server has closed the connection, and the child is slow."""
    with opened() as (connection, peer):
        stdout = Stream(Session(connection), 1, connection.pipes[1])
        descriptor = os.dup(stdout.fileno())
        sending = in_thread(peer.send, *[data(1, bytes(50_000))] * 10, data(3, SUCCESS))
        connection.status.get(Deadline(seconds(10)))
        sending.result()
        stdout.close()
        started = time.monotonic()
        connection.close(0.1) if end == "close" else connection.abort()
        assert time.monotonic() - started < seconds(3)  # and not until the child has read
        connection.closed.get(Deadline(seconds(10)))
        with open(descriptor, "rb") as file:
            assert len(file.read()) == 500_000


def test_the_thread_of_the_connection_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up everybody, and an interpreter that exits may stop it in the middle."""
    threads: list[threading.Thread] = []

    def compiled() -> None:
        threads.append(threading.current_thread())

    monkeypatch.setattr("kubews.transport.wire._compiled", compiled)
    with opened() as (connection, peer):
        stdin = Stream(Session(connection), 0)
        sending = in_thread(os.write, stdin.fileno(), bytes(50_000))
        assert len(peer.read_data()) == 50_000
        sending.result()
        assert threads[0] is threading.current_thread()
        assert connection._loop._thread in threads
        stdin.close()


def test_input_goes_on_when_another_writer_has_just_filled_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that began before there was a descriptor."""
    with opened() as (connection, peer):
        stdin = Stream(Session(connection), 0)
        descriptor = stdin.fileno()
        settled = threading.Event()
        connection._loop.call_soon(settled.set)
        assert settled.wait(seconds(10))  # the bridge has looked for the first time
        answers = [True, False, False, False]  # room when the bridge asks, none when it sends
        has_room = connection._outbox.has_room
        monkeypatch.setattr(
            connection._outbox, "has_room", lambda: answers.pop(0) if answers else has_room()
        )
        os.write(descriptor, b"from here")
        assert eventually(lambda: not answers)
        connection._post_flush()  # the loop sends what the other has queued, and so asks again
        assert peer.read_data() == b"from here"
        stdin.close()
        assert peer.read_frame()[1] == b"\xff\0"
