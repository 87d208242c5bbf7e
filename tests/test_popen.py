"""Popen: a process while it runs."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path

import pytest
from support import eventually, in_thread, seconds

import kubews
from kubews import DEVNULL, PIPE, STDOUT, Pod
from kubews.testing import Faults, LocalCluster
from kubews.transport import live
from kubews.transport.link import Link


@pytest.mark.half_close
def test_a_conversation_with_a_process(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.subprotocol == "v5.channel.k8s.io"
        assert process.poll() is None
        assert process.stdin.write(b"one\n") == 4
        assert process.stdout.readline() == b"one\n"
        process.stdin.write(b"two\nthree")
        process.stdin.close()
        assert process.stdout.read() == b"two\nthree"
        assert process.wait(seconds(10)) == 0
    assert process.returncode == 0
    assert process.stdin.closed
    assert process.stdout.closed


@pytest.mark.half_close
def test_closing_stdin_is_a_half_close_r18(pod: Pod) -> None:
    """R-18: output and exit code still arrive after stdin has been closed."""
    with pod.popen(["sh", "-c", "cat; echo end; exit 7"], stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"data;")
        process.stdin.close()
        process.stdin.close()
        assert process.stdout.read() == b"data;end\n"
        assert process.wait(seconds(10)) == 7
        with pytest.raises(ValueError, match="closed"):
            process.stdin.write(b"more")


def test_closing_stdin_on_an_old_server_raises_once_r18(old_pod: Pod) -> None:
    """R-18: never a silent no-op, never a closed socket: what the process writes still arrives."""
    process = old_pod.popen(["head", "-c", "4"], stdin=PIPE, stdout=PIPE)
    process.stdin.write(b"da")
    with pytest.raises(kubews.HalfCloseUnsupported, match=r"v4\.channel\.k8s\.io"):
        process.stdin.close()
    process.stdin.close()
    assert process.stdin.closed
    process.close()

    with old_pod.popen(["head", "-c", "4"], stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"data")
        assert process.stdout.read() == b"data"
        assert process.wait(seconds(10)) == 0

    with pytest.raises(kubews.HalfCloseUnsupported):
        with old_pod.popen(["cat"], stdin=PIPE):
            pass


def test_an_input_file_on_an_old_server_is_refused_before_a_byte_is_sent(old_pod: Pod) -> None:
    with pytest.raises(kubews.HalfCloseUnsupported):
        old_pod.popen(["cat"], stdin=io.BytesIO(b"data"))


@pytest.mark.half_close
def test_text_and_line_buffering(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, bufsize=1) as process:
        process.stdin.write("é\n")
        assert process.stdout.readline() == "é\n"
        process.stdin.write("a\nb\n")
        process.stdin.close()
        assert list(process.stdout) == ["a\n", "b\n"]


@pytest.mark.half_close
def test_bufsize_0_gives_the_raw_stream(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        assert isinstance(process.stdout, kubews.Stream)
        process.stdin.write(b"abc")
        assert process.stdout.read(2) == b"ab"
        assert process.stdout.read(2) == b"c"
    with pod.popen(["echo", "é"], stdout=PIPE, bufsize=0, text=True) as process:
        assert process.stdout.read() == "é\n"


@pytest.mark.half_close
def test_communicate_can_be_called_again_after_a_timeout(pod: Pod) -> None:
    script = "cat; sleep 1; echo later"
    with pod.popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            process.communicate(b"input;", timeout=0.3)
        assert caught.value.stdout in (b"", b"input;")
        with pytest.raises(ValueError, match="Cannot send input"):
            process.communicate(b"again")
        assert process.communicate(timeout=seconds(20)) == (b"input;later\n", b"")
        assert process.returncode == 0


def test_what_comes_behind_a_communicate_that_gave_up_is_bounded_r24(pod: Pod) -> None:
    """R-24: nobody collects any more, so the sender waits again; the next call has all of it."""
    with pod.popen("sleep 1; head -c 40000000 /dev/zero", shell=True, stdout=PIPE) as process:
        with pytest.raises(kubews.TimeoutExpired):
            process.communicate(timeout=0.3)
        pipe = process._connection.pipes[1]
        assert eventually(lambda: pipe.size >= 4 << 20)
        time.sleep(0.5)
        assert pipe.size < 16 << 20
        assert process.communicate() == (bytes(40_000_000), None)


@pytest.mark.parametrize("text", [False, True])
def test_close_in_a_signal_handler_closes_what_is_being_read(pod: Pod, text: bool) -> None:
    process = pod.popen(["sleep", "5"], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=text)
    previous = signal.signal(signal.SIGALRM, lambda *_: process.close())
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(ValueError, match="closed"):
            process.stdout.readline()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert process.stdin.closed
    assert process.stdout.closed
    assert process.stderr.closed


def test_communicate_includes_what_the_reader_has_buffered(pod: Pod) -> None:
    with pod.popen(["echo", "abc"], stdout=PIPE) as process:
        assert process.stdout.read(1) == b"a"
        assert process.communicate() == (b"bc\n", None)


def test_communicate_again_loses_no_text_of_a_call_that_was_stopped(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "printf 'one\\ntwo\\n'; echo err >&2"
    with pod.popen(script, shell=True, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout.readline() == "one\n"
        assert process.stderr.read(1) == "e"

        def stopped() -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(process.stderr, "read", stopped)
            process.communicate()
        for _ in range(2):
            assert process.communicate() == ("two\n", "rr\n")


@pytest.mark.half_close
@pytest.mark.parametrize("how", ["untouched", "touched", "wrapped"])
def test_communicate_again_says_again_that_it_is_not_text(pod: Pod, how: str) -> None:
    pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    script = "echo a; read x; printf 'b\\351c'"
    with pod.popen(script, shell=True, text=True, **pipes) as process:
        if how != "untouched":
            assert process.stdout.readline() == "a\n"
        if how == "wrapped":
            process.stdout = io.TextIOWrapper(process.stdout.detach(), encoding="utf-8")
        for _ in range(3):
            with pytest.raises(UnicodeDecodeError):
                process.communicate()
        assert process.returncode == 0


@pytest.mark.half_close
def test_what_a_wrapper_of_the_users_holds_may_be_unwanted(pod: Pod) -> None:
    with pod.popen(["true"], stdin=PIPE) as process:
        process.stdin = io.BufferedWriter(process.stdin)
        process.stdin.write(b"held")
        process.wait()
        assert process.communicate(b"sent") == (None, None)
        assert process.stdin.closed


def test_communicate_again_gives_the_same(pod: Pod) -> None:
    for options in ({}, {"text": True}, {"bufsize": 0}):
        with pod.popen(["printf", "a\\r\\nb"], stdout=PIPE, stderr=PIPE, **options) as process:
            first = process.communicate()
            assert process.communicate() == first
            assert first[0] == ("a\nb" if "text" in options else b"a\r\nb")
    with pod.popen(["printf", "a\\nb\\nc"], stdout=PIPE, text=True) as process:
        assert process.stdout.readline() == "a\n"
        assert process.communicate() == ("b\nc", None)


def test_a_detached_wrapper_does_not_disturb_the_end(pod: Pod) -> None:
    with pod.popen(["echo", "x"], stdout=PIPE, stderr=PIPE) as process:
        raw = process.stdout.detach()
        assert raw.readline() == b"x\n"
    assert process.returncode == 0


def test_closing_here_is_not_blamed_on_the_server(pod: Pod) -> None:
    process = pod.popen(["sleep", "5"], stdout=PIPE)
    waiting = in_thread(process.wait)
    process.close()
    with pytest.raises(kubews.ConnectionLost, match="closed on this side"):
        waiting.result()


@pytest.mark.half_close
def test_communicate_is_for_one_thread_at_a_time(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        entered, leave = threading.Event(), threading.Event()
        original = process._communicate

        def slow(*args):
            entered.set()
            leave.wait(seconds(5))
            return original(*args)

        process._communicate = slow
        first = in_thread(process.communicate, b"x")
        assert entered.wait(seconds(5))
        with pytest.raises(RuntimeError, match="another thread"):
            process.communicate()
        leave.set()
        assert first.result() == (b"x", None)
    with pod.popen(["true"], stdout=DEVNULL) as process:
        with pytest.raises(ValueError, match="input needs stdin=PIPE"):
            process.communicate(b"x")


def test_wait_with_a_timeout(pod: Pod) -> None:
    with pod.popen(["sh", "-c", "read line; exit 3"], stdin=PIPE, stderr=DEVNULL) as process:
        begin = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert time.monotonic() - begin < seconds(1)
        assert process.returncode is None
        process.stdin.write(b"\n")
        assert process.wait(seconds(10)) == 3
        assert process.poll() == 3


@pytest.mark.half_close
def test_a_process_that_ignores_its_input_breaks_the_pipe_r21(cluster, pod: Pod) -> None:
    """R-21: writing after the end is a BrokenPipeError, and the exit code is there all the same.

    Of more than some 128 KiB that nobody reads containerd never gets rid, and never tells the end.
    """
    size = 5_000_000 if isinstance(cluster, LocalCluster) else 50_000
    with pod.popen(["sh", "-c", "exit 5"], stdin=PIPE) as process:
        assert process.wait(seconds(10)) == 5
        with pytest.raises(BrokenPipeError, match="web-0"):
            process.stdin.write(b"too late")
    # communicate swallows it, as subprocess does
    assert pod.run(["sh", "-c", "exit 6"], input=b"x" * size).returncode == 6


@pytest.mark.half_close
def test_any_size_of_write_goes_out_in_small_messages_r19(pod: Pod) -> None:
    """R-19: one write of many megabytes is cut into messages that every server takes."""
    size = 40 << 20
    with pod.popen(["wc", "-c"], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin.write(b"x" * size) == size
        process.stdin.close()
        assert int(process.stdout.read()) == size
    for piece in (1, 4096, 1 << 20):
        with pod.popen(["wc", "-c"], stdin=PIPE, stdout=PIPE) as process:
            for _ in range(20):
                process.stdin.write(bytes(piece))
            process.stdin.close()
            assert int(process.stdout.read()) == 20 * piece


def test_wait_ends_behind_output_that_nobody_reads(pod: Pod) -> None:
    with pod.popen(["head", "-c", "12000000", "/dev/zero"], stdout=PIPE) as process:
        assert process.wait(seconds(30)) == 0
        assert len(process.stdout.read()) == 12_000_000


def test_stderr_can_be_read_behind_a_full_stdout(pod: Pod) -> None:
    script = "head -c 9000000 /dev/zero; echo message >&2"
    with pod.popen(["sh", "-c", script], stdout=PIPE, stderr=PIPE) as process:
        assert process.stderr.readline() == b"message\n"
        assert len(process.stdout.read()) == 9_000_000


def test_leaving_the_block_early_hangs_up_as_sigpipe_would(pod: Pod) -> None:
    with pod.popen(["sh", "-c", "yes line | head -n 3000000"], stdout=PIPE) as process:
        for line in process.stdout:
            assert line == b"line\n"
            break
    assert process.returncode is None
    # but a process that has nothing more to say is waited for
    with pod.popen(["sh", "-c", "echo line; sleep 0.2; exit 4"], stdout=PIPE) as process:
        process.stdout.readline()
    assert process.returncode == 4


def test_leaving_the_block_by_an_exception_does_not_wait(pod: Pod) -> None:
    begin = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        with pod.popen(["sleep", "5"], stdout=PIPE):
            raise ZeroDivisionError
    assert time.monotonic() - begin < seconds(3)


def test_what_a_file_does_not_take_is_held_back_at_the_sender_r24(pod: Pod) -> None:
    """R-24: a file that is slow bounds memory like a reader that is."""
    reading, writing = os.pipe()
    with pod.popen(["head", "-c", "40000000", "/dev/zero"], stdout=writing) as process:
        os.close(writing)
        pipe = process._connection.pipes[1]
        assert eventually(lambda: pipe.size >= 4 << 20)
        time.sleep(0.5)
        assert pipe.size < 16 << 20
        with open(reading, "rb") as file:
            assert len(file.read()) == 40_000_000


def test_close_with_a_dead_server_takes_a_second_r13(pod: Pod, local: LocalCluster) -> None:
    """R-13. The best of three counts: a machine that is busy elsewhere is not what is tested."""
    took = []
    for _ in range(3):
        local.next_faults(Faults(pong=False, close_frame=False, stop_reading_after=0))
        process = pod.popen(["sleep", "600"], stdin=PIPE, stdout=PIPE)
        writer = in_thread(process.stdin.write, bytes(50_000_000))
        assert eventually(lambda process=process: process._connection._outbox.writers.starving())
        begin = time.monotonic()
        process.close()
        took.append(time.monotonic() - begin)
        with pytest.raises(kubews.StreamBroken):
            writer.result()
    assert min(took) < 1 + seconds(0.1)


def test_a_start_that_fails_closes_its_connection_at_once_r26(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-26: not only when its exception, which holds it, is forgotten."""
    made = []

    def fails(self: kubews.Popen, *args: object) -> None:
        made.append(self._connection)
        raise ZeroDivisionError

    monkeypatch.setattr(kubews.Popen, "_wire_up", fails)
    with pytest.raises(ZeroDivisionError) as caught:
        pod.popen(["sleep", "5"], stdout=PIPE)
    assert made[0].closed.done(), caught
    made.clear()


def test_close_wakes_readers_writers_and_waiters(pod: Pod) -> None:
    process = pod.popen(["sleep", "5"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    waiting = [in_thread(process.stdout.read), in_thread(process.wait)]
    waiting.append(in_thread(process.stderr.readline))
    waiting.append(in_thread(process.stdin.write, b"x" * 50_000_000))
    time.sleep(0.2)
    assert all(future.running for future in waiting)
    begin = time.monotonic()
    process.close()
    assert time.monotonic() - begin < seconds(3)  # the process has five
    for future in waiting[:3]:
        with pytest.raises((kubews.ConnectionLost, ValueError)):
            future.result()
    with pytest.raises((BrokenPipeError, ValueError)):
        waiting[3].result()
    process.close()
    with pytest.raises(kubews.ConnectionLost):
        process.poll()


@pytest.mark.half_close
def test_files_of_every_kind_take_output_and_give_input(pod: Pod, tmp_path) -> None:
    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        target.write(b"before;")
        assert pod.call(["cat"], stdin=source, stdout=target) == 0
        target.write(b";after")
    assert (tmp_path / "out").read_bytes() == b"before;from a file;after"

    memory = io.BytesIO()
    assert pod.call(["cat"], stdin=io.BytesIO(b"x" * 200_000), stdout=memory) == 0
    assert memory.getvalue() == b"x" * 200_000
    text = io.StringIO()
    assert pod.call(["cat"], stdin=io.StringIO("é" * 40_000), stdout=text) == 0
    assert text.getvalue() == "é" * 40_000

    with open(tmp_path / "both", "w") as target:
        pod.call("echo 1; echo 2 >&2", shell=True, stdout=target.fileno(), stderr=STDOUT)
    assert sorted((tmp_path / "both").read_text().split()) == ["1", "2"]
    with pytest.raises(TypeError, match="write"):
        pod.run(["true"], stdout=object())


@pytest.mark.half_close
def test_a_local_process_feeds_a_remote_one(pod: Pod) -> None:
    with subprocess.Popen(["echo", "piped"], stdout=subprocess.PIPE) as local:
        assert pod.check_output(["cat"], stdin=local.stdout) == b"piped\n"


@pytest.mark.half_close
def test_an_input_that_never_ends_does_not_outlive_the_process(pod: Pod) -> None:
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as local:
        assert pod.call(["true"], stdin=local.stdout) == 0
        local.kill()


def test_a_file_that_cannot_be_written_ends_the_session_with_its_own_error(pod: Pod) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        pod.run(["sh", "-c", "echo x; sleep 5"], stdout=Full())


def test_poll_knows_no_end_before_the_output_is_copied(pod: Pod) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(io.RawIOBase):
        written = 0

        def writable(self) -> bool:
            return True

        def write(self, b: object) -> int:
            begun.set()
            assert go_on.wait(seconds(20))
            size = memoryview(b).nbytes  # type: ignore[arg-type]
            self.written += size
            return size

    slow = Slow()
    with pod.popen(["head", "-c", "300000", "/dev/zero"], stdout=slow) as process:
        assert begun.wait(seconds(20))
        assert eventually(process._connection.status.done)
        for _ in range(5):
            assert process.poll() is None
        assert process.returncode is None
        go_on.set()
        assert eventually(lambda: process.poll() is not None)
        assert (process.returncode, slow.written) == (0, 300000)


def test_poll_tells_of_a_file_that_cannot_be_written(pod: Pod) -> None:
    with open("/dev/full", "wb", 0) as full:
        process = pod.popen(["echo", "x"], stdout=full)
        with pytest.raises(OSError, match="No space left"):
            eventually(lambda: process.poll() is not None)
        process.close()


def test_poll_tells_of_a_full_file_while_another_is_being_copied(pod: Pod) -> None:
    read, write = os.pipe()  # that nobody reads
    script = "echo x; head -c 200000 /dev/zero >&2"
    with (
        open("/dev/full", "wb", 0) as full,
        open(read, "rb") as reader,
        open(write, "wb", 0) as stuck,
    ):
        process = pod.popen(script, shell=True, stdout=full, stderr=stuck)
        with pytest.raises(OSError, match="No space left"):
            eventually(lambda: process.poll() is not None)
        reader.close()
        process.close()


def test_signals_to_what_has_ended_do_nothing_while_its_output_is_copied(pod: Pod) -> None:
    read, write = os.pipe()  # that nobody reads yet
    with open(read, "rb") as reader, open(write, "wb", 0) as stuck:
        with pod.popen(["head", "-c", "200000", "/dev/zero"], stdout=stuck) as process:
            assert eventually(process._connection.status.done)
            for call in (process.terminate, process.kill, lambda: process.send_signal(1)):
                call()
            assert (process.poll(), process.returncode) == (None, None)
            assert len(reader.read(200000)) == 200000
            assert process.wait(seconds(10)) == 0
    process = pod.popen(["sh", "-c", "exit 3"], stdout=DEVNULL, stderr=DEVNULL)
    assert eventually(process._connection.status.done)
    process.terminate()
    assert process.returncode == 3  # as subprocess
    process.close()


def test_what_makes_no_text_is_refused_before_the_command_runs(pod: Pod, place: str) -> None:
    for encoding in ("rot13", "locale", "no-such-encoding"):
        with pytest.raises(LookupError):
            pod.popen(["touch", f"/tmp/{place}"], stdout=PIPE, encoding=encoding)
    assert kubews.call(["test", "-e", f"/tmp/{place}"], pod=pod) == 1


def test_signals_to_what_is_lost_say_so(pod: Pod) -> None:
    with pod.popen(["sleep", "20"], stdout=PIPE) as process:
        process.stdout.raw.abort()
        with pytest.raises(kubews.ConnectionLost):
            eventually(lambda: process.poll() is not None)
        with pytest.raises(kubews.ConnectionLost):
            process.terminate()


@pytest.mark.half_close
def test_signals_tell_the_truth(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        for call in (process.terminate, process.kill, lambda: process.send_signal(1)):
            with pytest.raises(io.UnsupportedOperation, match="signals=True"):
                call()
        process.stdin.close()
        process.wait(seconds(10))
        process.kill()  # nothing to do, as for subprocess


def test_a_forgotten_process_is_warned_about_and_its_connection_cut(pod: Pod) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pod.popen(["sleep", "3"], stdout=PIPE)
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert f"pod {pod.namespace}/web-0" in str(caught[0].message)


@pytest.mark.half_close
def test_who_was_told_of_the_loss_is_not_told_that_it_still_runs_r26(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-26: also before the loop's thread has gone the last step."""
    told, real = threading.Event(), live.remove

    def later(link: Link) -> None:
        told.wait(seconds(10))
        real(link)

    monkeypatch.setattr(live, "remove", later)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with open(tmp_path / "file", "wb") as not_to_be_read:
                process = pod.popen(["sleep", "100"], stdin=not_to_be_read)
                with pytest.raises(OSError, match="Bad file descriptor"):
                    process.wait(seconds(10))
            del process
            gc.collect()
        finally:
            told.set()
    assert caught == []


def test_a_stream_keeps_its_process(pod: Pod) -> None:
    assert list(pod.popen(["printf", "a\\nb\\n"], stdout=PIPE).stdout) == [b"a\n", b"b\n"]


@pytest.mark.half_close
def test_repr_says_what_and_where(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as process:
        assert "['cat']" in repr(process)
        assert f"{pod.namespace}/web-0" in repr(process)
        assert repr(process.stdin) == f"<kubews.Stream stdin of pod {pod.namespace}/web-0>"
        assert process.pid is None
        assert process.container is None
        process.stdin.close()
        assert "(closed)" in repr(process.stdin)


def test_a_tty_joins_the_streams_and_control_d_ends_input(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE, tty=True) as process:
        process.stdin.write(b"hello\n")
        assert process.stdout.readline() == b"hello\r\n"
        process.stdin.write(b"\x04")
        assert process.wait(seconds(10)) == 0
        assert process.stderr is None


def test_a_tty_leaves_the_file_for_stderr_alone(pod: Pod, tmp_path) -> None:
    with open(tmp_path / "err", "wb") as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for stderr in (None, file):
            with pod.popen(["true"], stdout=PIPE, stderr=stderr, tty=True) as process:
                process.wait(seconds(10))
        del process
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_ctrl_c_reaches_a_terminal_process(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    # As long as a busy cluster needs to tell of it.
    monkeypatch.setattr("kubews.popen._CTRL_C_GRACE", seconds(10))
    with pytest.raises(KeyboardInterrupt):
        with pod.popen(["sleep", "60"], stdin=PIPE, stdout=PIPE, tty=True) as process:
            time.sleep(0.2)
            raise KeyboardInterrupt
    assert process.poll() == 130


def test_a_background_child_that_holds_stdout_delays_the_end(pod: Pod) -> None:
    begin = time.monotonic()
    assert pod.check_output(["sh", "-c", "sleep 0.4 & echo started"]) == b"started\n"
    assert time.monotonic() - begin > 0.3


@pytest.mark.half_close
def test_many_at_once_on_one_client_r22(cluster, client) -> None:
    """R-22: threads share a client, and no call sees another's pod, output or exit code."""
    pods = [client.pod("web-0"), client.pod("pod/web-0", container="app")]

    def work(number: int) -> None:
        for turn in range(4):
            text = f"{number}-{turn}\n".encode() * 1000
            script = f"cat; exit {(number + turn) % 200}"
            pod = pods[number % 2]
            done = pod.run(["sh", "-c", script], input=text, capture_output=True)
            assert done.stdout == text
            assert done.returncode == (number + turn) % 200
            assert client.get("/version")["major"] == "1"

    futures = [in_thread(work, number) for number in range(16)]
    for future in futures:
        future.result(seconds(60))
    if isinstance(cluster, LocalCluster):
        cluster.wait_idle()


@pytest.mark.half_close
def test_communicate_cannot_send_through_a_stdin_that_was_closed(pod: Pod) -> None:
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(b"one\n")
        process.stdin.close()
        with pytest.raises(ValueError, match="stdin was closed"):
            process.communicate(b"two\n")
        assert process.communicate() == (b"one\n", None)


def test_leaving_the_block_tells_nothing_twice(pod: Pod) -> None:
    with pod.popen("yes | head -n 1000000", shell=True, stdout=PIPE) as process:
        assert process.stdout.readline() == b"y\n"
        process.close()
    assert process.returncode is None
    with pod.popen(["/no/such/program"]) as process:
        with pytest.raises(kubews.ExecError):
            process.wait(seconds(10))
    with pytest.raises(kubews.ExecError):
        with pod.popen(["/no/such/program"]):
            pass


def test_leaving_the_block_by_an_exception_does_not_wait_for_a_silent_server(monkeypatch) -> None:
    """Not one of the session: what a stuck server runs ends only with it."""
    waits: list[float | None] = []
    original = kubews.Popen.close

    def close(process: kubews.Popen, timeout: float | None = 1.0) -> None:
        waits.append(timeout)
        original(process, timeout)

    monkeypatch.setattr(kubews.Popen, "close", close)
    with LocalCluster() as cluster, cluster.client() as client:
        cluster.add_pod("web-0")
        cluster.next_faults(Faults(stop_reading_after=0, pong=False))
        with pytest.raises(kubews.TimeoutExpired):
            client.pod("web-0").run(["cat"], input=b"x" * 50_000_000, timeout=seconds(1))
    assert waits == [0.0]


@pytest.mark.parametrize("data", [b"", b"a line\n", b"no end of line"])
def test_the_input_of_a_terminal_ends_too(pod: Pod, data: bytes) -> None:
    """On every server, and however it is given: the end is what Ctrl-D sends."""
    expected = [data.replace(b"\n", b"\r\n")] * 2
    for options in ({"input": data}, {"stdin": io.BytesIO(data)}):
        done = pod.run(["cat"], tty=True, stdout=PIPE, timeout=seconds(20), **options)
        assert done.returncode == 0
        assert done.stdout.replace(b"^D", b"").replace(b"\b", b"") == b"".join(expected)
    with pod.popen(["cat"], stdin=PIPE, stdout=DEVNULL, tty=True) as process:
        process.stdin.write(data)
    assert process.returncode == 0


def test_old_servers_can_end_the_input_of_a_terminal(old_pod: Pod) -> None:
    assert old_pod.run(["cat"], tty=True, input=b"", stdout=PIPE, timeout=seconds(20)).stdout in (
        b"",
        b"^D\b\b",
    )


def test_old_servers_keep_the_output_of_a_terminal_without_input(old_pod: Pod) -> None:
    """Where no input is asked for, they end it at once, and the output of the terminal with it."""
    done = old_pod.run("tty >/dev/null && echo out", shell=True, tty=True, stdout=PIPE)
    assert (done.returncode, done.stdout) == (0, b"out\r\n")


def test_old_servers_can_have_an_input_that_is_empty(old_pod: Pod) -> None:
    assert old_pod.check_output(["wc", "-c"], input=b"").strip() == b"0"
    assert old_pod.check_output(["wc", "-c"], input="", text=True).strip() == "0"


def test_threads_may_share_a_handle_whose_container_is_not_chosen_yet_r22(cluster, client) -> None:
    """R-22: who asks while another's answer chooses is not told that nobody has chosen."""
    cluster.add_pod("pair", {"one": None, "two": None})
    try:
        for _ in range(5):
            pod = client.pod("pair")
            calls = [in_thread(pod.call, ["true"]) for _ in range(8)]
            assert [call.result(seconds(20)) for call in calls] == [0] * 8
            assert pod.container == "one"
    finally:
        cluster.delete_pod("pair")


@pytest.mark.half_close
def test_communicate_returns_no_part_of_an_output_for_all_of_it(pod: Pod) -> None:
    """Another thread may close the process when it has ended, before its output is collected."""
    process = pod.popen(
        "read x; echo out; echo err >&2", shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    process._connection.pipes[1].discard(kubews.ConnectionLost("closed"))
    with pytest.raises(kubews.ConnectionLost, match="closed") as caught:
        process.communicate(b"\n", timeout=seconds(10))
    assert caught.value.partial == (b"", b"err\n")
    process.close()


@pytest.mark.half_close
def test_communicate_returns_no_part_of_an_output_for_all_of_it_r52(pod: Pod) -> None:
    """R-52: in a fork between the Status and the end of the connection the exit code is known."""
    process = pod.popen(
        "read x; echo out; echo err >&2", shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    process._connection.pipes[1]._after_fork(kubews.ConnectionLost("it is the parent's"))
    with pytest.raises(kubews.ConnectionLost, match="the parent's") as caught:
        process.communicate(b"\n", timeout=seconds(10))
    assert caught.value.partial[1] == b"err\n"
    process.close()
