"""Logs: what can be asked for, how they are read, and why they end."""

from __future__ import annotations

import contextlib
import datetime
import re
import threading
import time
from typing import Any

import pytest
from clusters import AnyCluster
from logpods import SLEEP, STAMP, UNAVAILABLE, WAIT, added, go, lines_of, said
from support import eventually, in_thread, seconds

import kubews
from kubews import Client, Pod
from kubews.mergedlogs import _Merge, _Source
from kubews.protocol.logs import LOG
from kubews.testing import Faults, LocalCluster
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.wait import Ticket, WaitQueue, nothing, wait_for

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
            ({"since": datetime.datetime.min.replace(tzinfo=now.tzinfo)}, b"one\ntwo\nthree\n"),
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
        ({"tial": 1}, TypeError, r"^logs\(\) got an unexpected keyword argument 'tial'$"),
        ({"merged": True}, TypeError, r"^logs\(\) got an unexpected keyword argument 'merged'$"),
        ({"encoding": "nope"}, LookupError, "unknown encoding: nope"),
        ({"errors": "nope"}, LookupError, "unknown error handler name 'nope'"),
        ({"wait": 1}, TypeError, "wait"),
    ],
)
def test_options_that_cannot_be(
    pod: Pod, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pod.logs(**options)


@pytest.mark.parametrize("options", [{"tial": 1}, {"encoding": "nope"}, {"errors": "nope"}])
def test_options_are_looked_at_before_anything_is_asked(
    client: Client, options: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, LookupError)):
        client.logs("app=nowhere", **options)


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


def test_waiting_for_pods_and_containers_that_are_not_there_yet(local: LocalCluster) -> None:
    with local.client() as client, contextlib.ExitStack() as stack:
        opening = [
            in_thread(lambda: client.logs("app=log-to-come", wait_ready=seconds(20), follow=True)),
            in_thread(
                lambda: client.pod("job/log-to-come").logs(wait_ready=seconds(20), follow=True)
            ),
        ]
        waiting = b'{"kind":"Status","code":400,"message":"container \\"a\\" is waiting to start"}'
        refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s"
        refusals = [Faults(match="/log", response=refusal % (len(waiting), waiting))] * 2
        local.next_faults(*refusals)
        stack.enter_context(added(local, "echo begun", labels={"app": "log-to-come"}))
        local.add_workload("job/log-to-come", selector={"app": "log-to-come"})
        for each in opening:
            with each.result(20) as log:
                assert log.read().endswith(b"begun\n")


def test_a_container_that_has_ended_is_not_waited_for(local: LocalCluster) -> None:
    script = f"echo begun; {SLEEP}"
    with added(local, "exit 3", script, init_containers=["before"]) as pod:
        said(pod, 1, container="b")
        assert eventually(lambda: "exitCode': 3" in str(pod.get()["status"]))
        begin = time.monotonic()
        for name, code in (("a", 3), ("before", 0)):
            with pod.logs(container=name, follow=True, wait_ready=seconds(60)) as log:
                assert (log.read(), log.reason, log.exit_code) == (b"", "ended", code)
        with pytest.raises(kubews.BadRequest, match="is not valid"):
            pod.logs(container="no", wait_ready=seconds(60))
        assert time.monotonic() - begin < seconds(50)


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


def test_one_that_cannot_be_read_does_not_hide_the_others(local: LocalCluster) -> None:
    """As in every rollout, where one pod waits to start."""
    labels = {"app": "rolled-out"}
    with (
        added(local, None, labels=labels) as pod,
        added(local, None, state="waiting", labels=labels) as waiting,
        local.client() as client,
    ):
        local.write_log(pod.name, "one\n")
        with pytest.raises(kubews.BadRequest, match="is waiting to start"):
            client.logs("app=rolled-out")
        for options in ({}, {"follow": True}):
            with client.logs("app=rolled-out", ignore_errors=True, text=True, **options) as log:
                assert log.readline(timeout=seconds(20)) == f"[pod/{pod.name}/a] one\n"
                (error,) = log.ignored
                assert isinstance(error, kubews.BadRequest)
                assert waiting.name in str(error)
        with waiting.logs(ignore_errors=True) as log:
            assert (log.read(), len(log.ignored)) == (b"", 1)
        with pod.logs(all_containers=True) as log:
            assert (log.read(), log.ignored) == (b"one\n", [])


def test_one_that_is_lost_does_not_end_the_others(local: LocalCluster) -> None:
    with added(local, None, None) as pod:
        local.write_log(pod.name, "one\n")
        local.next_faults(Faults(match="container=b", drop_after=3))
        with pod.logs(all_containers=True, ignore_errors=True) as log:
            assert log.read() == b"one\n"
        assert [type(each) for each in log.ignored] == [kubews.ConnectionLost]


def test_what_is_said_of_a_log_that_is_refused(local: LocalCluster) -> None:
    """Nothing of running something: nobody wanted to. And every container has a log."""
    with added(local, None, None, state="completed", init_containers=["before"]) as pod:
        with pytest.raises(kubews.BadRequest, match="previous terminated container") as caught:
            pod.logs(previous=True)
        assert str(caught.value).endswith("not found (HTTP 400 Bad Request)")
        with pytest.raises(kubews.BadRequest, match=r"has the containers a, b, before \(init\)$"):
            pod.logs(container="no")
    for state in ("waiting", "unscheduled"):
        with (
            added(local, None, state=state) as pod,
            pytest.raises(kubews.KubewsError, match=r"; wait_ready=SECONDS waits for it$"),
        ):
            pod.logs()
    with added(local, "exit 3", SLEEP) as pod:
        assert eventually(lambda: "exitCode': 3" in str(pod.get()["status"]))
        with pytest.raises(kubews.BadRequest, match="previous terminated container") as caught:
            pod.logs(previous=True, container="b")
        assert "waits for it" not in str(caught.value)  # nothing would come of it


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


def test_little_is_held_of_several_logs_that_nobody_reads(local: LocalCluster) -> None:
    with added(local, None, None) as pod:
        long = [b"x" * 9999 + b"\n"] * 600
        for name in "ab":
            local.write_log(pod.name, b"".join(long), container=name)
        with pod.logs(all_containers=True, follow=True) as log:
            feeders = log._merge.feeders  # type: ignore[attr-defined]
            assert eventually(lambda: len(feeders.tickets) == 2)
            held = [len(line) for each in log._merge.sources for _, _, line in each.lines]  # type: ignore[attr-defined]
            assert sum(held) < 3 << 20
            assert lines_of(log, 1200) == [long[0]] * 1200


@pytest.mark.parametrize("end", ["of a source", "by close"])
def test_a_reader_of_several_logs_sleeps_through_no_end(end: str) -> None:
    """One that comes between its look and its being known as somebody who waits."""
    over, looked = threading.Event(), threading.Event()

    class Log:
        def _next(self, deadline: Deadline) -> bytes:
            over.wait()
            return b""

        def abandon(self) -> None:
            over.set()

    class Slow(WaitQueue):
        __slots__ = ()

        def add(self, ticket: Ticket) -> None:
            looked.set()
            time.sleep(0.1)
            super().add(ticket)

    merge = _Merge([_Source(Log(), b"")], False, 0.2)  # type: ignore[arg-type]
    merge.readers = Slow()
    merge.start()
    reading = in_thread(wait_for, merge, merge.readers, merge.choose, NEVER, nothing)
    assert looked.wait(seconds(10))
    over.set() if end == "of a source" else merge.close()
    assert reading.result() == b""


def test_one_log_of_several_that_is_lost_ends_them_all(local: LocalCluster) -> None:
    with added(local, None, None) as pod:
        local.write_log(pod.name, "one\n")
        local.faults = Faults(match="container=b", drop_after=3)
        try:
            with pod.logs(all_containers=True) as log:
                # Of two connections: the loss of one may else be there before the line of the other.
                assert eventually(lambda: log._merge.sources[0].lines)  # type: ignore[attr-defined]
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
