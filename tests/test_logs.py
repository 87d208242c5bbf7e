"""Logs: what is read, each line once whatever happens meanwhile, and why it ends."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import AnyCluster
from support import eventually, in_thread, seconds

import kubews
from kubews import Client, Pod
from kubews.protocol.logs import LOG
from kubews.testing import Faults, LocalCluster

HOME = str(Path(kubews.__file__).parent)
_NUMBERS = itertools.count()
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
SLEEP = "exec sleep 100000"
# What waits for a command: `go` lets it go on.
WAIT = "until [ -e go ]; do sleep 0.02; done; rm go; "
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ngone"


@contextlib.contextmanager
def added(cluster: AnyCluster, *scripts: str | None, **options: Any) -> Iterator[Pod]:
    """Have a pod whose containers ``a``, ``b`` and so on run these scripts once."""
    name = f"logging-{next(_NUMBERS)}"
    if not isinstance(cluster, LocalCluster):
        options["restart_policy"] = "Never"
    containers = {
        chr(ord("a") + number): None if script is None else ["sh", "-c", script]
        for number, script in enumerate(scripts)
    }
    cluster.add_pod(name, containers, **options)
    with cluster.client() as client:
        yield client.pod(name)
    with contextlib.suppress(KeyError, kubews.NotFound):
        cluster.delete_pod(name)


def go(pod: Pod) -> None:
    pod.check_call(["touch", "go"])


def said(pod: Pod, count: int, **options: Any) -> bytes:
    """Return a log as soon as it has so many lines: a command takes its time to begin."""

    def lines() -> bytes:
        with contextlib.suppress(kubews.BadRequest), pod.logs(**options) as log:
            return log.read()
        return b""  # it waits to start

    assert eventually(lambda: lines().count(b"\n") >= count, 20)
    return lines()


def cut(log: kubews.Logs[bytes]) -> None:
    """Cut the connection on this side, as a network does: what has arrived is still there."""
    connection = log._session.connection  # type: ignore[attr-defined]
    connection._loop.call_soon(connection._finish, "cut")
    assert eventually(connection.closed.done)


# On every cluster.


def test_a_log_is_read_to_its_end(cluster: AnyCluster) -> None:
    with added(cluster, f"echo one; echo two >&2; printf 'th\\377ree\\n'; {SLEEP}") as pod:
        assert sorted(said(pod, 3).splitlines()) == [b"one", b"th\xffree", b"two"]
        with pod.logs() as log:
            assert sorted(log) == [b"one\n", b"th\xffree\n", b"two\n"]
            assert (log.reason, log.exit_code, log.gaps, log.resumed) == ("complete", None, [], 0)
            assert (log.readline(), log.read()) == (b"", b"")
        assert log.reason == "complete"


def test_what_can_be_asked_for(cluster: AnyCluster) -> None:
    with added(cluster, f"echo one; echo two; echo three; {SLEEP}") as pod:
        said(pod, 3)
        now = datetime.datetime.now(datetime.timezone.utc)
        ago, later = now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1)
        for options, expected in (
            ({"tail": 1}, b"three\n"),
            ({"tail": 0}, b""),
            ({"since": 3600}, b"one\ntwo\nthree\n"),
            ({"since": 0.5, "tail": 0}, b""),
            ({"since": ago, "tail": 2}, b"two\nthree\n"),
            ({"since": later}, b""),
            ({"limit_bytes": 6}, b"one\ntw"),
            ({"limit_bytes": 6, "follow": True}, b"one\ntw"),
            ({"text": True}, "one\ntwo\nthree\n"),
            ({"encoding": "latin-1", "tail": 1}, "three\n"),
        ):
            with pod.logs(**options) as log:
                assert log.read() == expected, options
        for options in ({}, {"follow": True}):
            with pod.logs(timestamps=True, text=True, **options) as log:
                assert re.fullmatch(f"{STAMP} one\n", log.readline())


def test_following_to_the_end_of_the_container(cluster: AnyCluster) -> None:
    with added(cluster, f"echo begun; {WAIT}echo more; printf end; exit 3") as pod:
        with pod.logs(follow=True, container="a") as log:
            assert log.readline() == b"begun\n"
            with pytest.raises(kubews.ReadTimeout, match="no line came"):
                log.readline(timeout=0.05)
            go(pod)
            assert list(log) == [b"more\n", b"end"]
            assert (log.reason, log.exit_code, log.gaps) == ("ended", 3, [])
        with pod.logs(follow=True) as log:
            assert (log.read(), log.reason, log.exit_code) == (b"begun\nmore\nend", "ended", 3)


def test_lines_long_and_short_come_once_through_cuts_r51(cluster: AnyCluster) -> None:
    """Of two streams, whose lines a runtime may stamp in another order than it writes them."""
    script = (
        "for i in $(seq 40); do seq -f $i.%03.0f 250; seq -f e$i.%03.0f 50 >&2; "
        "head -c 40000 /dev/zero | tr '\\0' x; echo; done; exit 2"
    )
    with added(cluster, WAIT + script) as pod, pod.logs(follow=True) as log:
        go(pod)
        lines = []
        for line in log:
            lines.append(line)
            if len(lines) % 2500 == 0:
                cut(log)
        assert (log.reason, log.exit_code, log.gaps) == ("ended", 2, [])
        assert log.resumed >= 1  # the later ones may come when all has arrived
        with pod.logs() as again:
            assert again.read() == b"".join(lines)
    whole = b"".join(lines)
    for number in (*range(1, 41),):
        assert whole.count(b"\n%d.250\n" % number) == 1
    assert whole.count(b"x") == 40 * 40000


def test_refusals_are_errors_with_their_names(cluster: AnyCluster, client: Client) -> None:
    with pytest.raises(kubews.NotFound, match='"nope" not found'):
        client.pod("nope").logs()
    with pytest.raises(kubews.NotFound, match='"nope" not found'):
        client.pod("nope").logs(follow=True)
    with added(cluster, SLEEP) as pod:
        with pytest.raises(kubews.BadRequest, match="previous terminated container"):
            pod.logs(previous=True)
        with pytest.raises(kubews.BadRequest, match="container no is not valid"):
            pod.logs(container="no")
    with pytest.raises(kubews.NotReady, match="no pod with app=nowhere"):
        client.logs("app=nowhere")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tail": -1}, ValueError, "tail must be 0 or more"),
        ({"tail": "5"}, TypeError, "tail must be an int"),
        ({"limit_bytes": 0}, ValueError, "limit_bytes must be 1 or more"),
        ({"since": 0}, ValueError, "more than 0"),
        ({"since": "1h"}, TypeError, "seconds or a datetime"),
        ({"since": datetime.datetime(2026, 1, 1)}, ValueError, "no time zone"),
        ({"all_containers": True, "container": "a"}, ValueError, "every container"),
        ({"bogus": 1}, TypeError, "bogus"),
    ],
)
def test_options_that_cannot_be(
    pod: Pod, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pod.logs(**options)


def test_closing_from_another_thread_wakes_the_reader_at_once_r51(cluster: AnyCluster) -> None:
    times = []
    with added(cluster, f"echo begun; {SLEEP}") as pod:
        for _ in range(5):
            log = pod.logs(follow=True)
            assert log.readline() == b"begun\n"
            reading = in_thread(log.readline)
            pipe = log._session.connection.pipes[LOG]  # type: ignore[attr-defined]
            assert eventually(lambda pipe=pipe: pipe.readers)
            begin = time.monotonic()
            log.close()
            assert reading.result(5) == b""
            times.append(time.monotonic() - begin)
            assert (log.reason, list(log), log.read()) == ("closed", [], b"")
            log.close()
    assert min(times) < 0.1


def test_all_containers_in_the_order_of_time(cluster: AnyCluster) -> None:
    script = f"for i in 1 2; do {WAIT}echo $i; done; {SLEEP}"
    with added(cluster, script, script) as pod:
        with pod.logs(all_containers=True, prefix=True, follow=True, text=True) as log:
            expected = []
            for number in (1, 2):
                for name in "ba":
                    go(pod.in_container(name))
                    expected.append(f"[pod/{pod.name}/{name}] {number}\n")
                    assert log.readline(timeout=seconds(20)) == expected[-1]
            reading = in_thread(log.readline)
            log.close()
            assert reading.result(5) == ""
            assert log.reason == "closed"
        with pod.logs(all_containers=True, prefix=True, text=True) as log:
            assert list(log) == expected
            assert log.reason == "complete"
        with pod.logs(all_containers=True, limit_bytes=3) as log:
            assert (log.read(), log.reason) == (b"1\n1\n22", "limit")


def test_waiting_for_the_container(cluster: AnyCluster) -> None:
    with added(cluster, f"echo begun; {SLEEP}", **_soon_over(cluster)) as pod:
        with pod.logs(follow=True, wait_ready=seconds(30)) as log:
            assert log.readline() == b"begun\n"
    with added(cluster, None, state="completed") as pod:
        assert pod.logs(wait_ready=seconds(5)).read() == b""


def test_the_pods_of_a_selector(cluster: AnyCluster) -> None:
    labels = {"app": "selected"}
    script = f"echo $HOSTNAME; {WAIT}echo more; exit 4"
    with (
        added(cluster, script, labels=labels) as one,
        added(cluster, script, labels=labels) as other,
        cluster.client() as client,
    ):
        names = sorted([one.name, other.name])
        said(one, 1)
        said(other, 1)
        with client.logs("app=selected", text=True) as log:
            assert sorted(log) == [f"[pod/{name}/a] {name}\n" for name in names]
        with client.logs(
            "app=selected", follow=True, prefix=False, timestamps=True, text=True
        ) as log:
            lines = [log.readline(), log.readline()]
            assert sorted(line.split()[1] for line in lines) == names
            go(one)
            assert log.readline().endswith(" more\n")
            go(other)
            assert log.readline().endswith(" more\n")
            assert (log.readline(), log.reason) == ("", "ended")
            assert [each.exit_code for each in log.sources] == [4, 4]  # type: ignore[attr-defined]


def test_a_completed_pod_of_a_job_has_a_log(cluster: AnyCluster) -> None:
    with added(cluster, "echo done; exit 0", labels={"job": "l"}, **_soon_over(cluster)) as pod:
        cluster.add_workload("job/logged", selector={"job": "l"})
        said(pod, 1)
        with cluster.client() as client:
            job = client.pod("job/logged")
            assert eventually(lambda: job.logs().read() == b"done\n", 20)
            with job.logs(follow=True) as log:
                assert (log.read(), log.reason, log.exit_code) == (b"done\n", "ended", 0)
                assert log.pod.name == pod.name  # type: ignore[attr-defined]


def _soon_over(cluster: AnyCluster) -> dict[str, Any]:
    return {} if isinstance(cluster, LocalCluster) else {"timeout": 0}


# What only LocalCluster can do.


def lines_of(log: kubews.Logs[bytes], count: int) -> list[bytes]:
    return [log.readline(timeout=seconds(20)) for _ in range(count)]


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


@contextlib.contextmanager
def unavailable(local: LocalCluster, pod: Pod, log: kubews.Logs[bytes]) -> Iterator[None]:
    """Cut a log, and let nobody go on with it."""
    local.faults = Faults(match=f"{pod.name}/log", response=UNAVAILABLE)
    cut(log)
    try:
        yield
    finally:
        local.faults = Faults()


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
        with pod.logs(follow=True, patience=0.3) as log:
            assert log.readline() == b"one\n"
            assert log.readline() == b"two\n"
            with unavailable(local, pod, log):
                with pytest.raises(kubews.ConnectionLost, match=r"does not go on: .*503") as info:
                    log.readline()
                assert isinstance(info.value.__cause__, kubews.ServerError)
                with pytest.raises(kubews.ConnectionLost):
                    log.read()
                assert log.reason == "lost"


def test_a_log_that_ends_again_and_again_is_a_loss(local: LocalCluster) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "one\n")
        local.faults = Faults(match=f"{pod.name}/log", end_after=35)
        try:
            with pod.logs(follow=True, patience=0.5) as log:
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


def test_a_closed_client_closes_its_logs(local: LocalCluster) -> None:
    with added(local, None) as pod:
        log = pod.logs(follow=True)
        reading = in_thread(log.readline)
        pod.client.close()
        assert reading.result(5) == b""
        assert log.reason == "closed"


def test_a_role_that_may_only_read_logs_can_follow(local: LocalCluster) -> None:
    local.add_user("reader", verbs={"pods/log": ["get"]})
    with added(local, f"echo begun; {WAIT}exit 3") as pod, local.client("reader") as client:
        with client.pod(pod.name).logs(follow=True) as log:
            assert log.readline() == b"begun\n"
            go(pod)
            assert (log.read(), log.reason, log.exit_code) == (b"", "ended", None)
        local.add_user("nobody")
        with (
            local.client("nobody") as nobody,
            pytest.raises(kubews.Forbidden, match="needs the verb get on pods/log in namespace"),
        ):
            nobody.pod(pod.name).logs()


def test_pods_that_have_no_log_yet(local: LocalCluster) -> None:
    with (
        added(local, None, state="waiting") as pod,
        pytest.raises(kubews.BadRequest, match="is waiting to start: ContainerCreating"),
    ):
        pod.logs(follow=True)
    with (
        added(local, None, state="unscheduled") as pod,
        pytest.raises(kubews.NotReady, match="no node has been chosen"),
    ):
        pod.logs()


def test_a_long_line_is_one_line(local: LocalCluster) -> None:
    long = b"x" * (1 << 20) + b"\n"
    with added(local, None) as pod:
        local.write_log(pod.name, long + b"short\n")
        local.next_faults(Faults(match=f"{pod.name}/log", drop_after=300_000))
        with pod.logs(follow=True) as log:
            assert [len(line) for line in lines_of(log, 2)] == [len(long), 6]


def test_text_as_subprocess_reads_it(local: LocalCluster) -> None:
    with added(local, None) as pod:
        local.write_log(pod.name, "grüße\r\n".encode() + b"\xff\n")
        with pod.logs(text=True, errors="replace") as log:
            assert list(log) == ["grüße\n", "\ufffd\n"]
        with pod.logs(text=True) as log:
            assert log.readline() == "grüße\n"
            with pytest.raises(UnicodeDecodeError):
                log.readline()


def test_a_forgotten_log_is_cut_with_a_warning(local: LocalCluster) -> None:
    with added(local, None) as pod:
        logs = [pod.logs(follow=True)]
        with pytest.warns(ResourceWarning, match="the log of pod default/"):
            logs.clear()
        logs = [pod.logs(follow=True, prefix=True)]
        with pytest.warns(ResourceWarning, match="Logs of 1 containers> was forgotten"):
            logs.clear()


def test_one_log_of_several_that_is_lost_ends_them_all(local: LocalCluster) -> None:
    with added(local, None, None) as pod:
        local.write_log(pod.name, "one\n")
        local.faults = Faults(match="container=b", drop_after=3)
        try:
            with pod.logs(all_containers=True) as log:
                assert log.readline() == b"one\n"
                with pytest.raises(kubews.ConnectionLost):
                    log.readline()
                assert log.reason == "lost"
            local.faults = Faults(match="container=b", response=UNAVAILABLE)
            with pytest.raises(kubews.ServerError):
                pod.logs(all_containers=True)
        finally:
            local.faults = Faults()


def test_many_threads_follow_with_one_client_r22(local: LocalCluster) -> None:
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(added(local, None)) for _ in range(16)]
        client = stack.enter_context(local.client())

        def follow(pod: Pod) -> list[bytes]:
            with client.pod(pod.name).logs(follow=True) as log:
                return lines_of(log, 100)

        following = [in_thread(follow, pod) for pod in pods]
        for pod in pods:
            local.write_log(pod.name, "".join(f"{pod.name} {each}\n" for each in range(100)))
        for pod, future in zip(pods, following, strict=True):
            assert future.result(60) == [b"%s %d\n" % (pod.name.encode(), n) for n in range(100)]
