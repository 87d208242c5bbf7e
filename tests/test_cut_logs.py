"""Logs that are cut: each line once whatever happens meanwhile, or a gap that is told."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import AnyCluster
from logpods import SLEEP, STAMP, UNAVAILABLE, WAIT, added, cut, go, lines_of, said, unavailable
from support import eventually, in_thread, seconds

import kubews
from kubews import podlogs
from kubews.testing import Faults, LocalCluster

HOME = str(Path(kubews.__file__).parent)


# On every cluster.


def test_lines_long_and_short_come_once_through_cuts_r51(cluster: AnyCluster) -> None:
    """Of two streams, whose lines a runtime may stamp in another order than it writes them."""
    script = (
        f"for i in $(seq 40); do if [ $i = 21 ]; then {WAIT}fi; "
        "seq -f $i.%03.0f 250; seq -f e$i.%03.0f 50 >&2; "
        "head -c 40000 /dev/zero | tr '\\0' x; echo; done; exit 2"
    )
    with added(cluster, WAIT + script) as pod, pod.logs(follow=True) as log:
        go(pod)
        lines = []
        for line in log:
            lines.append(line)
            if len(lines) % 2500 == 0:
                cut(log)
            if len(lines) == 2500:
                go(pod)
        assert (log.reason, log.exit_code, log.gaps) == ("ended", 2, [])
        assert log.resumed >= 1  # the later ones may come when all has arrived
        with pod.logs() as again:
            assert again.read() == b"".join(lines)
    whole = b"".join(lines)
    for number in (*range(1, 41),):
        assert whole.count(b"\n%d.250\n" % number) == 1
    assert whole.count(b"x") == 40 * 40000


@pytest.mark.parametrize(("options", "pause"), [({"tail": 2}, 0.1), ({"since": 3}, 0.25)])
def test_what_was_not_asked_for_does_not_come_after_a_cut_r51(
    cluster: AnyCluster, options: dict[str, Any], pause: float
) -> None:
    """A server begins again with a whole second, in which there may be lines before the first."""
    script = f"for i in $(seq 16); do echo $i; sleep {pause}; done; {WAIT}echo more; {SLEEP}"
    with added(cluster, script) as pod:
        said(pod, 16)
        with pod.logs(follow=True, **options) as log:
            before = lines_until(log, b"16\n")
            cut(log)
            go(pod)
            assert before + lines_until(log, b"more\n") == [
                *(b"%d\n" % number for number in range(17 - len(before), 17)),
                b"more\n",
            ]
            assert (log.resumed, log.gaps) == (1, [])


def lines_until(log: kubews.Logs[bytes], last: bytes) -> list[bytes]:
    lines = []
    while not lines or lines[-1] != last:
        lines.append(log.readline(timeout=seconds(20)))
    return lines


# What only LocalCluster can do.


@pytest.mark.parametrize("tail", [1, 3, 60, 80, 99])
def test_a_tail_of_equal_lines_comes_once_r51(local: LocalCluster, tail: int) -> None:
    """A runtime may give all lines that it reads at once the same time."""
    with added(local, None) as pod:
        local.write_log(pod.name, "a\nb\n" + "x\n" * 96 + "y\n")
        expected = [b"a\n", b"b\n", *[b"x\n"] * 96, b"y\n"][-tail:]
        with pod.logs(follow=True, tail=tail) as log:
            assert lines_of(log, tail) == expected
            cut(log)
            local.write_log(pod.name, "z\n")
            assert log.readline(timeout=seconds(20)) == b"z\n"
            assert log.gaps == []


@pytest.mark.parametrize("options", [{"tail": 0}, {"tail": 0, "since": 3600}, {"since": 1}])
def test_what_comes_while_nothing_has_come_yet_is_not_lost_r51(
    local: LocalCluster, options: dict[str, Any]
) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "old\n")
        time.sleep(2.1)  # what is a little older than what was asked for may come, too
        with pod.logs(follow=True, **options) as log:
            with unavailable(local, pod, log):
                local.write_log(pod.name, "new\n")
                with contextlib.suppress(kubews.ReadTimeout):
                    log.readline(timeout=1.2)  # longer than what it asks for
            assert log.readline(timeout=seconds(20)) == b"new\n"
            assert log.gaps == []


def test_what_comes_behind_an_empty_tail_is_more_than_a_tail_r51(
    local: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubews.logs._GOOD", 0.05)
    with added(local, None) as pod, pod.logs(follow=True, tail=2) as log:
        with pytest.raises(kubews.ReadTimeout):
            log.readline(timeout=0.1)
        with unavailable(local, pod, log):
            local.write_log(pod.name, "1\n2\n3\n4\n")
            reading = in_thread(log.readline)
        assert [reading.result(20), *lines_of(log, 3)] == [b"1\n", b"2\n", b"3\n", b"4\n"]


def test_a_tail_of_nothing_stays_so_at_the_end_of_the_container(local: LocalCluster) -> None:
    with added(local, "echo last; exit 3") as pod:
        said(pod, 1)
        assert eventually(lambda: "terminated" in str(pod.get()["status"]))
        with pod.logs(follow=True, tail=0) as log:
            assert (log.read(), log.reason, log.exit_code) == (b"", "ended", 3)


@pytest.mark.parametrize("options", [{}, {"follow": True}, {"follow": True, "timestamps": True}])
def test_a_limit_within_the_first_line_is_reached(
    local: LocalCluster, options: dict[str, Any]
) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "2" * 100 + "\n")
        with pod.logs(limit_bytes=3, **options) as log:
            assert (len(log.read()), log.reason) == (3, "limit")


def test_a_limit_counts_what_is_given_out_and_not_what_is_sent_again(local: LocalCluster) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "one\ntwo\n")
        with pod.logs(follow=True, limit_bytes=13) as log:
            assert lines_of(log, 2) == [b"one\n", b"two\n"]
            cut(log)
            local.write_log(pod.name, "three\nfour\n")
            assert (log.read(), log.reason) == (b"three", "limit")


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_log_that_is_there_before_the_server_has_heard_of_the_container(
    local: LocalCluster, restarts: int
) -> None:
    """A kubelet gives it as soon as the container runs, and tells the API server of that a little later."""
    with added(local, f"echo begun; {WAIT}exit 3") as pod:
        said(pod, 1)
        waiting = {"name": "a", "restartCount": 0, "state": {"waiting": {}}}
        document = pod.get()
        document["status"]["containerStatuses"] = [waiting]
        body = json.dumps(document).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        early = (head % len(body)).encode() + body
        local.next_faults(Faults(match=f"pods/{pod.name}", response=early))
        with pod.logs(follow=True, container="a") as log:
            assert log.readline() == b"begun\n"
            if restarts:
                with unavailable(local, pod, log):
                    for _ in range(restarts):
                        local.restart_container(pod.name)
            else:
                go(pod)
            assert log.read() == b""
            code, gaps = {0: (3, 0), 1: (137, 0), 2: (None, 1)}[restarts]
            assert (log.reason, log.exit_code, len(log.gaps)) == ("ended", code, gaps)


def test_a_forgotten_log_is_not_opened_again(local: LocalCluster) -> None:
    with added(local, None) as pod:
        logs = [pod.logs(follow=True, patience=math.inf)]
        with unavailable(local, pod):
            cut(logs[0])
            with contextlib.suppress(kubews.ReadTimeout):
                logs[0].readline(timeout=0.05)
            thread = next(each for each in threading.enumerate() if pod.name in each.name)
            logs.clear()
            gc.collect()
            thread.join(seconds(10))
            assert not thread.is_alive()


def follow_all(local: LocalCluster, half: int) -> None:
    """Follow twice so many lines through two cuts and a rotation."""
    width = 31 + 8  # a stamp and seven digits
    script = f"seq -f %07.0f 1 {half}; {WAIT}seq -f %07.0f {half + 1} {2 * half}"
    with added(local, script) as pod:
        # The first in the first half; the second, whatever is sent again, in the second.
        cuts = [half * width // 3, half * width + half * width // 4]
        local.next_faults(
            Faults(match=f"{pod.name}/log", drop_after=cuts[0]),
            Faults(match=f"{pod.name}/log", end_after=cuts[1]),
        )
        with pod.logs(follow=True) as log:
            for number in range(1, 2 * half + 1):
                line = log.readline(timeout=seconds(60))
                assert line == b"%07d\n" % number
                if number == half:
                    local.rotate_log(pod.name)
                    go(pod)
            assert log.readline() == b""
            assert (log.reason, log.exit_code, log.gaps) == ("ended", 0, [])
            assert log.resumed == 2


def test_each_of_many_lines_once_through_cuts_and_a_rotation_r51(local: LocalCluster) -> None:
    follow_all(local, 20_000)


@pytest.mark.long
def test_each_of_a_million_lines_once_through_cuts_and_a_rotation_r51(local: LocalCluster) -> None:
    follow_all(local, 500_000)


@pytest.mark.parametrize(
    ("how", "size"),
    [
        *(("end_after", size) for size in (1, 20, 31, 32, 33, 34, 2048, 4000)),
        *(("drop_after", size) for size in (1, 2, 2051, 2054, 3000)),
    ],
)
def test_equal_lines_cut_anywhere_come_as_often_as_they_were_written_r51(
    local: LocalCluster, how: str, size: int
) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "x\n" * 100)
        local.write_log(pod.name, "y\n" * 50)
        cut: dict[str, Any] = {how: size}
        local.next_faults(*[Faults(match=f"{pod.name}/log", **cut)] * 2)
        with pod.logs(follow=True) as log:
            assert lines_of(log, 150) == [b"x\n"] * 100 + [b"y\n"] * 50
            local.write_log(pod.name, "z\n")
            assert log.readline() == b"z\n"
            assert log.gaps == []


class Alarm(BaseException):
    """What a signal raises here, in the place of KeyboardInterrupt."""


@contextlib.contextmanager
def interrupts(interval: float) -> Iterator[list[int]]:
    """Raise Alarm again and again where it is armed, by a list that is not empty; it disarms itself.

    Only in code of kubews: a lock of logging, or a thread that is being started, Ctrl-C can spoil for good.
    """
    armed: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if armed and frame.f_code.co_filename.startswith(HOME):
            armed.clear()
            raise Alarm

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield armed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.filterwarnings("ignore:the log of:ResourceWarning")  # opened, and never taken
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # and so is its end
@pytest.mark.parametrize("follow", [True, False])
def test_ctrl_c_loses_at_most_the_line_of_its_call_r49(local: LocalCluster, follow: bool) -> None:
    with added(local, "seq -f %07.0f 1 20000") as pod:
        said(pod, 20_000)
        numbers, stopped = [], 0
        local.next_faults(*[Faults(match=f"{pod.name}/log", end_after=300_000)] * follow)
        with pod.logs(follow=follow) as log, interrupts(0.001) as armed:
            while True:
                try:
                    if (
                        stopped < 100
                    ):  # on a busy machine every step is interrupted, and none is done
                        armed.append(1)
                    line = log.readline(timeout=seconds(20))
                    armed.clear()
                except Alarm:
                    stopped += 1
                    continue
                if not line:
                    break
                numbers.append(int(line))
        assert log.gaps == []
        assert numbers == sorted(set(numbers))
        assert 20_000 - stopped <= len(numbers) <= 20_000
        assert stopped


def test_what_was_rotated_away_during_a_cut_is_a_gap_r51(local: LocalCluster) -> None:
    with added(local, None) as pod, pod.logs(follow=True) as log:
        local.write_log(pod.name, "one\n")
        assert log.readline() == b"one\n"
        with unavailable(local, pod, log):
            local.write_log(pod.name, "lost\n")
            local.rotate_log(pod.name)
            local.write_log(pod.name, "two\n")
            reading = in_thread(log.readline)
            assert eventually(lambda: log._resumption is not None)  # type: ignore[attr-defined]
        assert reading.result(20) == b"two\n"
        (gap,) = log.gaps
        assert gap.source == f"pod default/{pod.name}, container a"
        assert re.fullmatch(STAMP, gap.after)
        assert re.fullmatch(STAMP, gap.before)
        assert gap.after < gap.before
        assert (log.resumed, log.reason) == (1, None)


def test_what_is_still_there_after_a_rotation_is_no_gap_r51(local: LocalCluster) -> None:
    with added(local, None) as pod, pod.logs(follow=True) as log:
        local.write_log(pod.name, "begun\n")
        assert lines_of(log, 1) == [b"begun\n"]  # so the server has opened what will be rotated
        local.write_log(pod.name, "one\n")
        local.rotate_log(pod.name)
        local.write_log(pod.name, "two\n")
        assert lines_of(log, 2) == [b"one\n", b"two\n"]
        with unavailable(local, pod, log):
            local.write_log(pod.name, "three\n")
            reading = in_thread(log.readline)
        assert reading.result(20) == b"three\n"
        assert log.gaps == []


def test_a_restart_ends_the_log_of_the_run_before_r51(local: LocalCluster) -> None:
    with added(local, f"echo begun; {SLEEP}") as pod:
        with pod.logs(follow=True) as log:
            assert log.readline() == b"begun\n"
            with unavailable(local, pod, log):
                local.write_log(pod.name, "last\n")
                local.restart_container(pod.name)
                reading = in_thread(log.read)
            assert reading.result(20) == b"last\n"
            assert (log.reason, log.exit_code, log.gaps) == ("ended", 137, [])
        with pod.logs(previous=True) as log:
            assert log.read() == b"begun\nlast\n"
        with pod.logs(previous=True, follow=True) as log:
            assert (log.read(), log.reason) == (b"begun\nlast\n", "ended")


def test_a_run_that_is_two_restarts_ago_is_a_gap(local: LocalCluster) -> None:
    with added(local, f"echo begun; {SLEEP}") as pod, pod.logs(follow=True) as log:
        assert log.readline() == b"begun\n"
        with unavailable(local, pod, log):
            for _ in range(2):
                local.restart_container(pod.name)
            reading = in_thread(log.read)
        assert reading.result(20) == b""
        assert (log.reason, len(log.gaps)) == ("ended", 1)


def test_a_deleted_pod_is_told_r51(local: LocalCluster) -> None:
    with added(local, f"echo begun; {SLEEP}") as pod, pod.logs(follow=True) as log:
        assert log.readline() == b"begun\n"
        local.write_log(pod.name, "last words")
        reading = in_thread(log.read)
        local.delete_pod(pod.name)
        assert reading.result(20) == b"last words"
        assert (log.reason, log.exit_code, log.gaps) == ("deleted", None, [])


def test_what_a_deleted_pod_may_have_said_during_a_cut_is_a_gap(local: LocalCluster) -> None:
    with added(local, None) as pod, pod.logs(follow=True) as log:
        local.write_log(pod.name, "one\n")
        assert log.readline() == b"one\n"
        with unavailable(local, pod, log):
            local.delete_pod(pod.name)
            assert log.readline() == b""
        assert (log.reason, len(log.gaps)) == ("deleted", 1)


def test_a_cut_that_lasts_is_a_loss(local: LocalCluster) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "one\ntwo\n")
        with pod.logs(follow=True, patience=1) as log:
            assert log.readline() == b"one\n"
            assert log.readline() == b"two\n"
            with unavailable(local, pod, log):
                with pytest.raises(kubews.ConnectionLost, match=r"does not go on: .*503") as info:
                    log.readline()
                assert isinstance(info.value.__cause__, kubews.ServerError)
                with pytest.raises(kubews.ConnectionLost):
                    log.read()
                assert log.reason == "lost"


def test_a_loss_of_one_of_several_can_be_passed_over(local: LocalCluster) -> None:
    failures: list[Exception] = []
    with added(local, None) as pod, added(local, f"{WAIT}echo late") as other:
        local.write_log(pod.name, "one\n")
        both = [each.in_container(each.choose_container(each.get())) for each in (pod, other)]
        with podlogs.merge(
            both, prefix=False, follow=True, patience=1, failed=failures.append
        ) as log:
            assert log.readline() == b"one\n"
            with unavailable(local, pod, log.sources[0]):
                assert eventually(lambda: failures, 20)
            go(other)
            assert log.read() == b"late\n"
            assert [each.reason for each in log.sources] == ["lost", "ended"]
    assert re.search("does not go on: .*503", str(failures))


def test_without_patience_a_cut_is_a_loss_and_the_end_is_none(local: LocalCluster) -> None:
    with added(local, f"echo begun; {WAIT}exit 3") as pod:
        reasons = []
        for end in (cut, lambda log: go(pod)):
            with pod.logs(follow=True, patience=0) as log:
                assert log.readline() == b"begun\n"
                end(log)
                with contextlib.suppress(kubews.ConnectionLost):
                    assert log.read() == b""
                reasons.append((log.reason, log.exit_code))
        assert reasons == [("lost", None), ("ended", 3)]


def test_a_log_that_ends_again_and_again_is_a_loss(
    local: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubews.logs._TOLD", 1.5)
    with added(local, None) as pod:
        local.write_log(pod.name, "one\n")
        local.faults = Faults(match=f"{pod.name}/log", end_after=35)
        try:
            with pod.logs(follow=True, patience=1.5) as log:
                assert log.readline() == b"one\n"
                with pytest.raises(kubews.ConnectionLost, match="does not go on"):
                    log.readline()
                assert log.resumed >= 2
        finally:
            local.faults = Faults()


def test_a_kubelet_that_has_just_begun_is_waited_for(local: LocalCluster) -> None:
    body = b'{"kind":"Status","status":"Failure","message":"container \\"a\\" is not available","code":400}'
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with added(local, None) as pod, pod.logs(follow=True) as log:
        local.next_faults(*[Faults(match=f"{pod.name}/log", response=refusal)] * 2)
        cut(log)
        local.write_log(pod.name, "one\n")
        assert log.readline(timeout=seconds(20)) == b"one\n"
        assert log.gaps == []


def test_without_following_a_cut_is_a_loss_with_what_came(local: LocalCluster) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "one\n" + 3000 * "x" + "\n")
        local.next_faults(Faults(match=f"{pod.name}/log", drop_after=2500))
        with pod.logs(text=True) as log:
            with pytest.raises(kubews.ConnectionLost, match="only one that is followed") as info:
                log.read()
            assert info.value.partial == "one\n"
            assert isinstance(info.value.__cause__, kubews.ConnectionLost)
            assert log.reason == "lost"


def test_closing_while_it_waits_for_the_server_r51(local: LocalCluster) -> None:
    with added(local, None) as pod:
        log = pod.logs(follow=True)
        with unavailable(local, pod, log):
            reading = in_thread(log.readline)
            assert eventually(lambda: log._resumption is not None)  # type: ignore[attr-defined]
            begin = time.monotonic()
            log.close()
            assert reading.result(5) == b""
            assert time.monotonic() - begin < seconds(1)
        assert log.reason == "closed"


def test_closing_while_it_is_opened_again_is_no_forgetting(local: LocalCluster) -> None:
    with added(local, None) as pod, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            with pod.logs(follow=True) as log:
                local.next_faults(Faults(match=f"{pod.name}/log", response_delay=0.2))
                cut(log)
                with contextlib.suppress(kubews.ReadTimeout):
                    log.readline(timeout=0.05)
                thread = next(each for each in threading.enumerate() if pod.name in each.name)
            thread.join(seconds(10))
            assert not thread.is_alive()
        gc.collect()
        assert [str(each.message) for each in caught] == []


def test_a_long_line_is_one_line(local: LocalCluster) -> None:
    long = b"x" * (1 << 20) + b"\n"
    with added(local, None) as pod:
        local.write_log(pod.name, long + b"short\n")
        local.next_faults(Faults(match=f"{pod.name}/log", drop_after=300_000))
        with pod.logs(follow=True) as log:
            assert [len(line) for line in lines_of(log, 2)] == [len(long), 6]


FORKED = """
import os, sys
import kubews

pod = kubews.Client(kubews.Config.load(sys.argv[1])).pod(sys.argv[2])
log = pod.logs(follow=True, tail=1, text=True, all_containers=sys.argv[3] == "merged")
assert log.readline(timeout=20) == "line\\n"
if sys.argv[3] == "cut":
    try:
        while log.readline(timeout=1):
            pass
    except TimeoutError:
        pass
child = os.fork()
if not child:
    try:
        while log.readline():
            pass
    except kubews.ConnectionLost as exc:
        os._exit("fork" in str(exc))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
if sys.argv[3] == "merged":
    assert log.readline(timeout=20) == "line\\n"
log.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("state", ["merged", "cut"])
def test_a_log_is_dead_in_a_fork_r52(local: LocalCluster, state: str) -> None:
    """R-52: also while threads of the parent read it, or open it again."""
    with added(local, "while echo line; do sleep 0.05; done") as pod:
        said(pod, 1)
        if state == "cut":
            local.next_faults(Faults(match=f"{pod.name}/log", drop_after=150))
            local.faults = Faults(match=f"{pod.name}/log", response=UNAVAILABLE)
        try:
            program = [sys.executable, "-X", "dev", "-W", "error", "-c", FORKED]
            done = subprocess.run(
                [*program, str(local.kubeconfig), pod.name, state],
                timeout=seconds(60), capture_output=True, text=True,
            )  # fmt: skip
        finally:
            local.faults = Faults()
        assert done.returncode == 0, done.stderr
