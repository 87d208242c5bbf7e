"""What a LocalCluster leaves behind: nothing. (conftest.py checks it after every test, too.)"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from children import Program, interrupt_another_thread
from rawclient import SCALE, RawClient, port_of
from support import eventually, runs

import kubews.testing
from kubews.testing import Faults, LocalCluster


def wait_until_dead(pid: int) -> None:
    assert eventually(lambda: not runs(pid), 10), f"process {pid} still runs"


@pytest.mark.parametrize("process", [False, True])
def test_close_ends_everything_and_is_idempotent(process: bool) -> None:
    cluster = LocalCluster(process=process)
    cluster.add_pod("box", {"main": ["sleep", "1000"]})
    with RawClient(cluster) as idle, RawClient(cluster) as busy:
        assert busy.exec("sh", "-c", "sleep 1000 & echo $!; cat", stdin=True).status == 101
        busy.until(b"\n")
        pids = [cluster.execs[0].pid, int(busy.channel(1))]
        assert cluster.connections == 2
        start = time.monotonic()
        cluster.close()
        cluster.close()
        assert time.monotonic() - start < 5 * SCALE
        assert not idle.pump()
        busy.run_out()
    for pid in pids:
        wait_until_dead(pid)
    assert not Path(cluster.kubeconfig).parent.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(cluster)))


def test_close_while_the_client_does_not_read() -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"main": None})
        client = RawClient(cluster)
        client.exec("cat", "/dev/zero")
        time.sleep(0.2 * SCALE)
    client.sock.close()


def test_close_while_the_process_does_not_read() -> None:
    with LocalCluster() as cluster:
        cluster.add_pod("box", {"main": None})
        client = RawClient(cluster)
        client.exec("sleep", "1000", stdin=True)
        client.send(b"\0" + bytes(1 << 20))
    client.sock.close()


def test_files_are_private(cluster: LocalCluster) -> None:
    path = Path(cluster.kubeconfig)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_pod_that_has_made_its_files_read_only(cluster: LocalCluster) -> None:
    pod = cluster.add_pod("ro", {"main": None})
    inner = pod.directory / "main" / "inner"
    inner.mkdir()
    (inner / "file").write_text("x")
    inner.chmod(0o500)
    cluster.delete_pod("ro")
    assert not pod.directory.exists()


def test_kubeconfig_has_a_context_for_each_token(cluster: LocalCluster) -> None:
    cluster.add_user("eve", token="eves-token")
    config = json.loads(Path(cluster.kubeconfig).read_text())
    assert config["current-context"] == "kubernetes-admin"
    assert [context["name"] for context in config["contexts"]] == ["kubernetes-admin", "eve"]
    assert config["users"][1] == {"name": "eve", "user": {"token": "eves-token"}}
    other = json.loads(cluster.kubeconfig_text("eve", namespace="shop"))
    assert other["current-context"] == "eve"
    assert other["contexts"][0]["context"]["namespace"] == "shop"


def test_a_forgotten_cluster_is_cleaned_up() -> None:
    cluster = LocalCluster()
    cluster.add_pod("box", {"main": ["sleep", "1000"]})
    directory = Path(cluster.kubeconfig).parent
    del cluster
    gc.collect()
    assert not directory.exists()


def run_python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    root = Path(kubews.testing.__file__).parent.parent.parent
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=30 * SCALE,
        **options,  # type: ignore[call-overload]
    )


FORGET = """
from kubews.testing import LocalCluster
cluster = LocalCluster(process={process})
pod = cluster.add_pod("box", {{"main": ["sh", "-c", "echo $$ > pid; exec sleep 1000"]}})
cluster.add_pod("other", {{"main": None}})
print(cluster.kubeconfig, flush=True)
import pathlib, time
path = pod.directory / "main/pid"
while not path.exists() or not path.read_text():
    time.sleep(0.01)
print(path.read_text().strip(), flush=True)
{ending}
"""


def test_a_cluster_that_is_never_closed_ends_with_the_interpreter() -> None:
    result = run_python(FORGET.format(process=False, ending=""))
    assert (result.returncode, result.stderr) == (0, "")
    kubeconfig, pid = result.stdout.split()
    assert not Path(kubeconfig).parent.exists()
    wait_until_dead(int(pid))


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_process_that_is_killed(number: int, process: bool) -> None:
    ending = f"import os; os.kill(os.getpid(), {int(number)})"
    result = run_python(FORGET.format(process=process, ending=ending))
    assert (result.returncode, result.stderr) == (-number, "")
    kubeconfig, pid = result.stdout.split()
    wait_until_dead(int(pid))
    end = time.monotonic() + 10 * SCALE
    while Path(kubeconfig).parent.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(kubeconfig).parent.exists()


def test_a_fork_does_not_end_the_cluster() -> None:
    code = """
import os, sys
from kubews.testing import LocalCluster
with LocalCluster() as cluster:
    cluster.add_pod("box", {"main": None})
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads
    pid = os.fork()
    if pid == 0:
        sys.exit(0)  # runs the exit handlers of the child
    os.waitpid(pid, 0)
    assert os.path.exists(cluster.kubeconfig)
    assert cluster.connections == 0
"""
    result = run_python(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_process_of_its_own_does_the_same(cluster: LocalCluster) -> None:
    with LocalCluster("1.29", process=True, status_metadata=False) as remote:
        pod = remote.add_pod("box", {"main": None}, labels={"a": "b"})
        assert (pod.name, pod.namespace) == ("box", "default")
        token = remote.add_user("eve", verbs={"get"}, token="t")
        assert token == "t"
        remote.faults = Faults(no_status=True)
        remote.next_faults(Faults(status=b"x"))
        for status in (b"x", b""):
            with RawClient(remote) as client:
                client.exec("echo", "hi", protocols=["v4.channel.k8s.io"])
                client.run_out()
            assert (client.channel(1), client.channel(3)) == (b"hi\n", status)
        assert len(remote.requests) == 2
        assert remote.requests[0].query[1] == ("command", "echo")
        remote.wait_idle()
        assert remote.execs == []
        with pytest.raises(ValueError, match="exists already"):
            remote.add_pod("box")
        with pytest.raises(KeyError):
            remote.delete_pod("nope")
        remote.delete_pod("box")
        assert '"t"' in remote.kubeconfig_text()
    with pytest.raises(ValueError, match="closed"):
        remote.add_pod("late")
    with pytest.raises(ValueError, match=r"1\.27"):
        LocalCluster("2", process=True)


def test_a_server_process_that_was_killed_is_reported() -> None:
    cluster = LocalCluster(process=True)
    child = cluster._host._child  # type: ignore[union-attr]
    child.kill()
    child.wait()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"has ended \(-9\)"):
            cluster.add_pod("box")
    cluster.close()


def test_a_context_manager_closes_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), LocalCluster() as cluster:
        raise ZeroDivisionError
    assert not Path(cluster.kubeconfig).exists()


def test_missing_packages_are_named(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["trustme"] = None
import kubews.testing
try:
    kubews.testing.LocalCluster
except ImportError as exc:
    print(exc)
kubews.testing.Faults
"""
    result = run_python(code)
    assert result.stderr == ""
    assert 'pip install "kubews[testing]"' in result.stdout
    assert "trustme" in result.stdout


def test_the_names_of_the_package() -> None:
    assert set(kubews.testing.__all__) == {
        "FOREVER",
        "Faults",
        "LocalCluster",
        "LocalPod",
        "ServicePort",
    }
    for name in kubews.testing.__all__:
        assert getattr(kubews.testing, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kubews.testing.nonsense


@pytest.mark.parametrize(
    "tell",
    [
        pytest.param(lambda child: child.send_signal(signal.SIGINT), id="main thread"),
        pytest.param(
            interrupt_another_thread,
            id="another thread",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc"),
        ),
    ],
)
def test_the_command_line_serves_until_it_is_told_to_end(tell: Callable[[Program], None]) -> None:
    root = Path(kubews.testing.__file__).parent.parent.parent
    child = Program(
        [sys.executable, "-m", "kubews.testing", "--version", "1.30", "--pod", "a", "--pod", "b"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        line = child.stdout.readline().strip()
        path = Path(line.removeprefix("export KUBECONFIG="))
        assert path.exists()
        time.sleep(0.2)  # or it may not wait yet
        tell(child)
        assert child.wait(10 * SCALE) == 0
    assert not path.exists()


@pytest.mark.parametrize("process", [False, True])
def test_of_several_threads_that_close_all_wait_for_the_end(process: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster = LocalCluster(process=process)
        for number in range(5):
            cluster.add_pod(f"box-{number}", {"main": ["sleep", "1000"]})
        directory = Path(cluster.kubeconfig).parent
        barrier = threading.Barrier(4)

        def close() -> bool:
            barrier.wait(10 * SCALE)
            cluster.close()
            return directory.exists()

        with ThreadPoolExecutor(4) as pool:
            closing = [pool.submit(close) for _ in range(4)]
            assert [each.result(15 * SCALE) for each in closing] == [False] * 4


@pytest.mark.parametrize("process", [False, True])
def test_a_closed_cluster_takes_nothing(process: bool) -> None:
    with LocalCluster(process=process) as cluster:
        pass
    with pytest.raises(ValueError, match="closed"):
        cluster.add_pod("late", {"main": ["sleep", "1000"]})
    with pytest.raises(ValueError, match="closed"):
        cluster.add_user("late")
    assert not Path(cluster.kubeconfig).parent.exists()


@pytest.mark.parametrize("process", [False, True])
def test_what_is_added_while_it_closes_is_killed_or_refused(process: bool) -> None:
    for round_ in range(5):
        cluster = LocalCluster(process=process)
        barrier = threading.Barrier(3)

        def add(
            number: int, cluster: LocalCluster = cluster, barrier: threading.Barrier = barrier
        ) -> str:
            barrier.wait(10 * SCALE)
            count = 0
            try:
                while True:
                    command = ["sh", "-c", "exec sleep 1000"]
                    cluster.add_pod(f"box-{number}-{count}", {"main": command})
                    cluster.add_user(f"user-{number}-{count}")
                    count += 1
            except ValueError as exc:
                return str(exc)

        with ThreadPoolExecutor(2) as pool:
            adding = [pool.submit(add, number) for number in range(2)]
            barrier.wait(10 * SCALE)
            time.sleep(0.01 * round_)
            cluster.close()
            assert not Path(cluster.kubeconfig).parent.exists()
            for each in adding:
                assert re.search("closed|deleted while it started", each.result(10 * SCALE))
        assert not Path(cluster.kubeconfig).parent.exists()


def test_a_pod_that_comes_back_has_a_directory_of_its_own(cluster: LocalCluster) -> None:
    for _ in range(10):
        cluster.add_pod("web-0", {"app": ["sleep", "1000"]})
        with ThreadPoolExecutor(1) as pool:
            deleting = pool.submit(cluster.delete_pod, "web-0")
            while True:
                try:
                    pod = cluster.add_pod("web-0", {"app": None})
                    break
                except ValueError:  # it is there still
                    time.sleep(0.0005)
            deleting.result(10 * SCALE)
        assert (pod.directory / "app").is_dir()
        with RawClient(cluster) as client:
            client.exec("pwd", pod="web-0", container="app")
            assert client.run_out().channel(1).decode() == f"{pod.directory}/app\n"
        cluster.delete_pod("web-0")
        assert not pod.directory.exists()


def test_a_process_of_its_own_leaves_the_environment_alone() -> None:
    with LocalCluster(process=True) as cluster:
        cluster.add_pod("box", {"main": None})
        with RawClient(cluster) as client:
            client.exec("env", "-0")
            lines = client.run_out().channel(1).decode(errors="surrogateescape").split("\0")
    seen = dict(line.partition("=")[::2] for line in lines if line)
    other = {"KUBEWS_CLUSTER", "KUBEWS_POD_UID", "HOSTNAME", "KUBERNETES_SERVICE_HOST"}
    other |= {"TERM", "LINES", "COLUMNS"}  # of the terminal of whoever started it, if he has one
    assert {k: v for k, v in seen.items() if k not in other} == {
        k: v for k, v in os.environ.items() if k not in other
    }


def test_an_argument_that_cannot_travel_harms_nothing_else() -> None:
    with LocalCluster(process=True) as cluster:
        with pytest.raises(TypeError, match="memoryview"):
            cluster.next_faults(Faults(inject=memoryview(b"x")))  # type: ignore[arg-type]
        assert cluster.add_pod("box").name == "box"
