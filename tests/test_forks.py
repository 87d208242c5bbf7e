"""A fork with live connections: dead in the child with a clear error, untouched in the parent (R-52)."""

from __future__ import annotations

import os

import pytest
from children import run, start
from support import seconds

from kubews import Pod

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# In the child everything about the parent's process ends at once; what raises says why.
CHILD = """
def dead(name, call, *allowed):
    begin = time.monotonic()
    try:
        result = call()
    except (kubews.ConnectionLost, kubews.StreamBroken) as exc:
        result = type(exc).__name__
        assert "fork" in str(exc), (name, exc)
    took = time.monotonic() - begin
    assert took < 1 and (not allowed or result in allowed), (name, result, took)

def all_dead(p):
    lost = "ConnectionLost"
    # What was known is known, though not whether all of it was copied.
    dead("poll", p.poll, lost, 0)
    dead("wait", p.wait, lost, 0)
    dead("wait with a time limit", lambda: p.wait(10), lost, 0)
    for out in (p.stdout, p.stderr):
        if out is not None:
            dead("read", out.read, lost)
            dead("read some", lambda: out.read(1), lost)
            dead("readline", out.readline, lost)
            dead("iteration", lambda: next(out), lost)
            for name in ("read1", "peek", "recv"):
                if hasattr(out, name):
                    dead(name, lambda: getattr(out, name)(1), lost)
            for name in ("readinto", "readinto1"):
                if hasattr(out, name):
                    dead(name, lambda: getattr(out, name)(bytearray(1)), lost)
    if p.stdin is not None and not p.stdin.closed:
        data = "x" if "Text" in type(p.stdin).__name__ else b"x"
        dead("write", lambda: p.stdin.write(data), "StreamBroken")
    dead("communicate", p.communicate, lost)
    if p.stdin is not None:
        dead("close stdin", p.stdin.close, None)
    for out in (p.stdout, p.stderr):
        if out is not None:
            dead("close", out.close, None)
    dead("close all", p.close, None)
    dead("close again", p.close, None)

def in_fork(function, *args):
    "Run it in a fork; die loudly if it fails."
    import faulthandler, traceback
    pid = os.fork()
    if not pid:
        code = 1
        try:
            faulthandler.dump_traceback_later(20, exit=True)
            function(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def reap(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def check(program: str, pod: Pod, cluster) -> None:
    ended = run(CHILD + program, cluster.kubeconfig)
    assert (ended.code, ended.err) == (0, ""), ended.err
    assert ended.took < 5


def test_a_fork_that_leaves_the_block_ends_nothing_but_may_r50(pod: Pod, cluster) -> None:
    """R-50, R-52: what is ended without a word is the parent's, and what is ended by name is whoever's."""
    program = """
process = pod.popen(["sleep", "1000"], signals=True)

def leave():
    try:
        with process:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass

reap(in_fork(leave))
process.send_signal(0)
assert process.poll() is None
reap(in_fork(process.kill))
assert process.wait(10) == 137
assert process.end()
process.close()
ending()
"""
    check(program, pod, cluster)


@pytest.mark.parametrize(
    "options", ["", ", bufsize=0", ", text=True", ", stderr=STDOUT, bufsize=100"]
)
@pytest.mark.half_close
def test_a_fork_of_a_live_process_is_dead_at_once_r52(pod: Pod, cluster, options: str) -> None:
    """R-52: with threads of the parent inside reads, in locks and in the queue of writers."""
    program = f"""
p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE{options})
x = "x" if "text" in {options!r} else b"x"
p.stdin.write(x)
assert p.stdout.read(1) == x
parked(p.stdout)
thread(p.wait)
for _ in range(3):
    reap(in_fork(all_dead, p))
# The parent has noticed nothing.
p.stdin.write(x)
p.stdin.close()
assert p.wait(30) == 0
ending()
"""
    check(program, pod, cluster)


@pytest.mark.half_close
def test_forks_amid_traffic_leave_both_sides_whole_r52(pod: Pod, cluster) -> None:
    """R-52: 40 forks at random moments of four full-duplex streams over TLS; every byte arrives."""
    program = """
import hashlib, random

def traffic(number, sums):
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, bufsize=0) as p:
        sent, received = hashlib.sha256(), hashlib.sha256()
        def upload():
            block = random.Random(number).randbytes(65536)
            for turn in range(200):
                piece = turn.to_bytes(4, "big") + block
                sent.update(piece)
                p.stdin.write(piece)
            p.stdin.close()
        processes.append(p)
        writer = thread(upload)
        while piece := p.stdout.read(1 << 16):
            received.update(piece)
        writer.join()
        sums.append(sent.digest() == received.digest() and p.wait() == 0)

def child(processes):
    for p in processes:
        if p._connection.inherited and not p.stdout.closed:
            all_dead(p)
        else:
            dead("wait", p.wait, 0, "ConnectionLost")  # it was over, or about to be
    assert pod.run(["echo", "new"], stdout=PIPE).stdout == b"new\\n"
    client.close()

processes, sums, pause = [], [], random.Random(3)
threads = [thread(traffic, number, sums) for number in range(4)]
while len(processes) < 4:
    time.sleep(0.001)
forks = []
for number in range(40):
    time.sleep(pause.uniform(0, 0.01))
    forks.append(in_fork(child, list(processes)))
    if len(forks) == 4:
        reap(forks.pop(0))
for pid in forks:
    reap(pid)
for one in threads:
    one.join()
assert sums == [True] * 4, sums
ending()
"""
    check(program, pod, cluster)


def test_multiprocessing_with_fork_r52(pod: Pod, cluster) -> None:
    """R-52: workers use the parent's client for connections of their own."""
    program = """
import multiprocessing

def work(number):
    return int(pod.check_output(["echo", str(number)]))

context = multiprocessing.get_context("fork")
with pod.popen(["sh", "-c", "while sleep 0.01; do echo tick; done"], stdout=PIPE) as p:
    reader = thread(lambda: p.stdout.read(50_000_000))
    for _ in range(2):
        with context.Pool(3) as pool:
            assert pool.map(work, range(12)) == list(range(12))
            pool.close()
            pool.join()
    assert reader.is_alive()
    process = context.Process(target=p.wait)
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    process.start()
    process.join(20)
    os.dup2(stderr, 2)
    assert process.exitcode == 1
    p.close()
ending()
"""
    check(program, pod, cluster)


def test_a_fork_holds_no_connection_open_r52(pod: Pod, local) -> None:
    """R-52: the server sees the end when the parent closes, though a fork lives on; no number is left."""
    program = """

def inodes():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass
    return found

def child():
    assert not [name for name in inodes() if "socket" in name or "eventfd" in name], inodes()
    os.close(write)  # the program's own; what kubews has of it is closed already
    time.sleep(1000)

read, write = os.pipe()
p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
q = pod.popen(["echo", "copied"], stdout=write)
pid = in_fork(child)
assert q.wait(10) == 0
q.close()
p.close()
os.close(write)
assert os.read(read, 100) + os.read(read, 100) == b"copied\\n"
print("closed", flush=True)
sys.stdin.readline()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
ending()
"""
    local.wait_idle()
    with start(CHILD + program, local.kubeconfig) as child:
        assert child.stdout.readline() == "closed\n"
        local.wait_idle()
        _, err = child.communicate("\n", timeout=seconds(30))
    assert (child.returncode, err) == (0, "")


@pytest.mark.half_close
def test_a_fork_that_goes_on_as_a_program_r52(pod: Pod, cluster) -> None:
    """R-52: it forgets the parent's objects, uses new ones, and exits by sys.exit, without a word."""
    program = """
p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
q = pod.popen(["cat"], stdin=PIPE, stdout=PIPE, text=True)
parked(p.stdout)
parked(q.stdout)
pid = os.fork()
if not pid:
    del p, q
    gc.collect()
    new = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
    assert new.communicate(b"new") == (b"new", None)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
for process, data in ((p, b"x"), (q, "x")):
    process.stdin.write(data)
    process.stdin.close()
    assert process.wait(10) == 0
    process.close()
ending()
"""
    check(program, pod, cluster)


def test_what_had_ended_is_as_good_in_a_fork_r52(pod: Pod, cluster) -> None:
    """R-52: a process that is over is memory only."""
    program = """
p = pod.popen(["echo", "over"], stdout=PIPE)
assert p.wait(10) == 0
while not p._connection.closed.done():
    time.sleep(0.001)

def child():
    assert p.poll() == 0 and p.communicate() == (b"over\\n", None)

reap(in_fork(child))
assert p.communicate() == (b"over\\n", None)
ending()
"""
    check(program, pod, cluster)


@pytest.mark.half_close
@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_that_a_fork_closes_is_still_the_parent_s_to_write_r52(
    pod: Pod, cluster, place: str, mode: str
) -> None:
    """R-52: whether the child closes it, or leaves its block as ``sys.exit`` does."""
    program = f"""
file = pod.open({place!r}, {mode!r})
text = (lambda letters: letters) if {mode!r} == "w" else str.encode
file.write(text("all "))
file.flush()

def closing():
    try:
        file.close()
    except kubews.TruncatedTransfer:
        pass

def leaving():
    try:
        with file:
            raise SystemExit
    except SystemExit:
        pass

reap(in_fork(closing))
reap(in_fork(leaving))
file.write(text("of it"))
file.close()
assert pod.check_output(["cat", {place!r}]) == b"all of it"
ending()
"""
    check(program, pod, cluster)


def test_a_proxy_that_is_none_by_now_concerns_no_fork_r52(pod: Pod, cluster) -> None:
    """R-52: what a client was made with was looked at then; a fork does not fail by it, and tells all."""
    program = """
import dataclasses
elsewhere = dataclasses.replace(client.config.cluster, server="https://192.0.2.1", proxy_url=None)  # through a proxy
others = [kubews.Client(dataclasses.replace(client.config, cluster=elsewhere)) for _ in range(3)]
processes = [pod.popen(["sleep", "1000"]) for _ in range(3)]
os.environ["https_proxy"] = os.environ["HTTPS_PROXY"] = "nothing://x"

def child():
    for p in processes:
        try:
            p.wait(5)
        except kubews.ConnectionLost:
            pass

reap(in_fork(child))
for p in processes:
    p.close()
ending()
"""
    check(program, pod, cluster)
