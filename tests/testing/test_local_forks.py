"""A fork that lives on holds nothing up: neither the end of a cluster nor that of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rawclient import SCALE
from support import runs

ROOT = Path(__file__).parent.parent.parent

PROLOGUE = """
import os, signal, socket, sys, time, warnings
from kubews.testing import LocalCluster
sys.path.insert(0, {tests!r})
from rawclient import SCALE, RawClient, port_of
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads

def fork():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid

cluster = LocalCluster(process={process})
pod = cluster.add_pod("box", {{"main": ["sh", "-c", "echo $$ > pid; exec sleep 1000"]}})
path = pod.directory / "main/pid"
while not path.exists() or not path.read_text():
    time.sleep(0.01)
print(cluster.kubeconfig, path.read_text().strip(), flush=True)
"""

CLOSE = """
with RawClient(cluster) as client:
    assert client.exec("cat", stdin=True).status == 101
    child = fork()
    client.send(b"\\xff\\0")
    client.run_out()  # cat has seen the end of its input, and we that of the connection
    assert client.ended == "close_notify", client.ended
start = time.monotonic()
cluster.close()
assert time.monotonic() - start < 5 * SCALE, time.monotonic() - start
try:
    socket.create_connection(("127.0.0.1", port_of(cluster)))
except ConnectionRefusedError:
    print("refused", flush=True)
assert not os.path.exists(os.path.dirname(cluster.kubeconfig))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""

KILLED = """
print(fork(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

# Descriptors that the hook of os.fork does not close: those of a fork that C code makes.
UNAWARE = """
import ctypes
libc = ctypes.CDLL(None)
libc.usleep.argtypes = [ctypes.c_uint]
child = libc.fork()
if child == 0:
    while True:
        libc.usleep(1000000)
start = time.monotonic()
cluster.close()
assert time.monotonic() - start < 5 * SCALE, time.monotonic() - start
try:
    socket.create_connection(("127.0.0.1", port_of(cluster)))
except ConnectionRefusedError:
    print("refused", flush=True)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""

INSIDE = """
child = os.fork()
if child == 0:
    for change, name in (
        (cluster.add_pod, "x"), (cluster.add_user, "x"), (cluster.delete_pod, "box")
    ):
        try:
            change(name)
        except RuntimeError as exc:
            assert "fork" in str(exc)
        else:
            os._exit(1)
    with cluster.client() as client:  # but it can be used
        assert client.pod("box").check_output(["echo", "hi"]) == b"hi\\n"
    cluster.close()
    assert os.path.exists(cluster.kubeconfig)
    sys.exit(0)  # runs the exit handlers, and complains of what was not closed
assert os.waitpid(child, 0)[1] == 0
with cluster.client() as client:
    assert client.pod("box").check_output(["echo", "hi"]) == b"hi\\n"
cluster.close()
"""


def start(code: str, process: bool) -> subprocess.Popen[str]:
    prologue = PROLOGUE.format(process=process, tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", prologue + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, process: bool) -> str:
    with start(code, process) as child:
        try:
            output, errors = child.communicate(timeout=30 * SCALE)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    assert (child.returncode, errors) == (0, "")
    return output


@pytest.mark.parametrize("process", [False, True])
def test_a_fork_that_lives_on_does_not_hold_up_the_end(process: bool) -> None:
    assert "refused" in run(CLOSE, process)


@pytest.mark.skipif(sys.platform != "linux", reason="a listener cannot be shut down everywhere")
@pytest.mark.parametrize("process", [False, True])
def test_nor_does_one_that_python_does_not_know_of(process: bool) -> None:
    assert "refused" in run(UNAWARE, process)


@pytest.mark.parametrize("process", [False, True])
def test_a_fork_may_use_the_cluster_but_not_change_or_end_it(process: bool) -> None:
    run(INSIDE, process)


@pytest.mark.parametrize("process", [False, True])
def test_nothing_outlives_a_killed_process_but_its_fork(process: bool) -> None:
    with start(KILLED, process) as child:
        assert child.stdout is not None
        kubeconfig, pid = child.stdout.readline().split()
        fork = int(child.stdout.readline())
        try:
            end = time.monotonic() + 10 * SCALE
            directory = Path(kubeconfig).parent
            while time.monotonic() < end and (directory.exists() or runs(int(pid))):
                time.sleep(0.01)
            assert runs(fork)
            assert not directory.exists()
            assert not runs(int(pid))
        finally:
            os.kill(fork, 9)
