"""Ends of programs, and what thousands of connections leave behind: in interpreters of their own."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
import time

import pytest
from children import Ended, run, start
from support import seconds

from kubews import Pod

# Every kind of blocked call, each in a daemon thread of its own, on processes that go on for ever.
BLOCKED = """
# The first large write of a program imports what it is masked with. Python runs text for some of that, which
# makes it forget, in any thread, that the program is about to end by Ctrl-C.
with pod.popen(["head", "-c", "1048576"], stdin=PIPE, stdout=DEVNULL) as first:
    first.stdin.write(bytes(1 << 20))
    first.wait()
inside = threading.Semaphore(0)

def blocked(call):
    def body():
        inside.release()
        try:
            call()
        except BaseException:
            time.sleep(1000)  # whatever comes of it, this thread is there at the exit
    thread(body)

def write(p):
    while True:
        p.stdin.write(bytes(1 << 20))

processes = []
for call in (
    lambda p: p.stdout.read(), lambda p: p.stdout.readline(), lambda p: p.stdout.read1(),
    lambda p: next(p.stdout), lambda p: p.wait(), lambda p: p.communicate(), lambda p: p.stderr.read(),
    write,
):
    p = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    processes.append(p)
    blocked(lambda call=call, p=p: call(p))
for options in ({"bufsize": 0}, {"text": True}):
    p = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE, **options)
    processes.append(p)
    blocked(p.stdout.read)
for _ in range(10):
    inside.acquire()
time.sleep(0.2)
"""

# Without this the end of the program forgets them too, but after the warnings were turned off.
ENDS = {
    "falls off the end": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise LookupError('mine')", 1, "LookupError: mine"),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", -2, "KeyboardInterrupt"),
    "the client is closed": ("client.close()", 0, ""),
    "sys.exit in a with block": ("with processes[0]: sys.exit(4)", 4, ""),
}


def quiet(ended: Ended, code: int, err: str) -> None:
    last = ended.err.rstrip().rpartition("\n")[2]
    assert (ended.code, last) == (code, err), ended.err
    if err:
        assert ended.err.startswith("Traceback"), ended.err
        assert ended.err.count("Traceback") == 1, ended.err
    assert ended.took < seconds(5)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_program_ends_though_threads_are_blocked_r52(
    pod: Pod, cluster, end: tuple[str, int, str]
) -> None:
    """R-52: readers, writers and waiters inside their calls: the right exit code, at once, no word."""
    program, code, err = end
    quiet(run(f"{BLOCKED}\nending()\n{program}\n", cluster.kubeconfig), code, err)


@pytest.mark.half_close
def test_exits_from_where_the_program_blocks_r52(pod: Pod, cluster) -> None:
    """R-52: the main thread itself is inside the call when the end comes."""
    for call in ("p.stdout.read()", "p.wait()", "p.communicate()", "p.stdin.write(bytes(1 << 26))"):
        program = f"""
def stop():
    time.sleep(0.3)
    ending()
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
p = pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE)
thread(stop)
{call}
"""
        quiet(run(program, cluster.kubeconfig), 5, "")


def test_what_is_forgotten_is_told_once_and_collected_r26(pod: Pod, cluster) -> None:
    """R-26: a ResourceWarning for each process, with the thread and the descriptors gone behind it."""
    program = """
import warnings, weakref
threads, numbers = threading.active_count(), len(os.listdir("/proc/self/fd"))
caught = []
with warnings.catch_warnings():
    warnings.simplefilter("always")
    # Without the source, which would live on in it.
    warnings.showwarning = lambda message, *_: caught.append(message)
    for options in ({}, {"text": True}, {"bufsize": 0}, {"stdout": None}):
        p = pod.popen(["sleep", "1000"], stdin=PIPE, **{"stdout": PIPE, **options})
        session, connection = weakref.ref(p._session), weakref.ref(p._connection)
        p.cycle = p
        del p
        gc.collect()
        assert session() is None
        end = time.monotonic() + 5
        while connection() is not None and time.monotonic() < end:
            time.sleep(0.01)
            gc.collect()
        assert connection() is None, gc.get_referrers(connection())
assert [type(message) for message in caught] == [ResourceWarning] * 4, caught
assert all("web-0" in str(message) for message in caught)
end = time.monotonic() + 5
while (threading.active_count(), len(os.listdir("/proc/self/fd"))) != (threads, numbers):
    assert time.monotonic() < end, threading.enumerate()
    time.sleep(0.01)
ending()
"""
    quiet(run(program, cluster.kubeconfig), 0, "")


@pytest.mark.half_close
def test_a_finalizer_in_the_thread_of_its_own_connection_ends_r26(pod: Pod, cluster) -> None:
    """R-26: the collector runs it where it likes; what would wait for itself is refused, and nothing hangs."""
    program = """
class Forgotten:
    def __init__(self, call):
        self.call, self.cycle = call, self
    def __del__(self):
        try:
            self.call()
        except RuntimeError as exc:
            refused.append("may wait for that thread" in str(exc))
        done.set()

def collect_there(call):
    done.clear()
    Forgotten(call)
    p._connection._loop.call_soon(gc.collect)
    assert done.wait(5)

refused, done = [], threading.Event()
gc.disable()
p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
calls = [p.wait, p.stdout.read, p.stdout.peek, lambda: p.stdin.write(bytes(8 << 20))]
for call in calls:
    collect_there(call)
assert len(p.stdout.read(8 << 20)) == 8 << 20
p.stdin.close()
assert p.wait(10) == 0
assert refused == [True] * (len(calls) - 1), refused
p.close()
ending()
"""
    quiet(run(program, cluster.kubeconfig), 0, "")


CYCLES = """
ROUNDS = {rounds}
def count():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))

def settled(expected):
    end = time.monotonic() + 10
    while count() != expected and time.monotonic() < end:
        time.sleep(0.01)
    return count()

pod.run(["true"])
before = settled((1, count()[1]))
for number in range(ROUNDS):
    if number % 4 == 0:
        assert pod.run(["true"], stdout=PIPE).returncode == 0
    elif number % 4 == 1:
        pod.popen(["cat"], stdin=PIPE, stdout=PIPE).close()
    elif number % 4 == 2:
        with pod.popen(["echo", "x"], stdout=PIPE, text=True) as p:
            assert p.stdout.readline() == "x\\n"
    else:
        p = pod.popen(["sleep", "1000"], stdout=PIPE, bufsize=0)
        reader = thread(lambda: p.stdout.recv(1))
        p.stdout.abort()
        reader.join()
        p.close(0)
assert settled(before) == before, (before, count(), threading.enumerate())
print(before, count())
ending()
"""


def cycles(cluster, rounds: int) -> None:
    program = CYCLES.replace("{rounds}", str(rounds))
    program = (
        "threading.excepthook = lambda args: None  # readers that are woken by the end\n" + program
    )
    quiet(run(program, cluster.kubeconfig, timeout=rounds / 5 + 30), 0, "")


def test_a_hundred_openings_and_ends_leave_nothing_r13(pod: Pod, cluster) -> None:
    """R-13: the short form of the next one."""
    cycles(cluster, 100)


@pytest.mark.long
def test_a_thousand_openings_and_ends_leave_nothing_r13(pod: Pod, cluster) -> None:
    """R-13: 0 threads, 0 descriptors."""
    cycles(cluster, 1000)


@contextlib.contextmanager
def descriptors(number: int):
    """Let children have so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and number > before[1]:
        pytest.skip(f"the system allows for {before[1]} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.half_close
def test_numbers_above_1024_are_as_good_as_others_r26(pod: Pod, cluster) -> None:
    """R-26: 2000 files are open before, so that select() could not be used."""
    program = """
files = [open(os.devnull) for _ in range(2000)]
sys.stdin = files[0]
data = os.urandom(300_000)
try:
    done = pod.run(["cat"], input=data, capture_output=True, timeout=30)
except kubews.TimeoutExpired as exc:
    sys.exit(f"after 30 s {len(exc.stdout)} of 300000 bytes")
assert (done.returncode, done.stdout) == (0, data)
with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as p:
    assert p._connection._wire.fileno() > 1024
    p.stdin.write("line\\n")
    assert p.stdout.readline() == "line\\n"
with open(os.devnull, "rb") as source:
    assert source.fileno() > 1024
    assert pod.run(["cat"], stdin=source, timeout=30, stdout=PIPE).stdout == b""
assert client.get("/version")["major"] == "1"
for file in files:
    file.close()
ending()
"""
    with descriptors(4096):
        quiet(run(program, cluster.kubeconfig), 0, "")


@pytest.mark.half_close
def test_too_few_descriptors_are_a_clear_error_and_no_leak_r26(pod: Pod, cluster) -> None:
    """R-26: with any number of them left, a call works or says what is missing; then all goes on."""
    program = """
import resource
pod.run(["true"])  # what is loaded on first use needs descriptors too

def numbers():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

def settled(expected):
    end = time.monotonic() + 5
    while numbers() != expected and time.monotonic() < end:
        time.sleep(0.005)
    return numbers()

before, failed, worked = settled(numbers()), 0, 0
for left in list(range(8)) * 3:
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    for number in held[len(held) - left:]:
        os.close(number)
    del held[len(held) - left:]
    error = None
    try:
        p = pod.popen(["cat"], stdin=PIPE, stdout=PIPE)
    except (kubews.ConnectFailed, OSError, kubews.CredentialsError) as exc:
        error = exc
    else:
        worked += 1
        assert p.communicate(b"x", timeout=10)[0] == b"x"
        p.close()
    for number in held:
        os.close(number)
    if error is not None:
        failed += 1
        assert "Too many open files" in f"{error} {error.__cause__} {error.__context__}", repr(error)
    error = None
    assert settled(before) == before, (left, before, numbers(), os.listdir("/proc/self/fd"))
    assert threading.active_count() == 1, threading.enumerate()
assert failed and worked, (failed, worked)
assert pod.run(["cat"], input=b"x", stdout=PIPE).stdout == b"x"
print(failed, worked)
ending()
"""
    with descriptors(256):
        quiet(run(program, cluster.kubeconfig), 0, "")


MEMORY = """
MIB = 1 << 20

def resident():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024

def download(total):
    "Return the seconds of CPU that it takes this process."
    begin = time.process_time()
    with pod.popen(["head", "-c", str(total), "/dev/zero"], stdout=PIPE, bufsize=0) as p:
        buffer, count = memoryview(bytearray(1 << 18)), 0
        while size := p.stdout.readinto(buffer):
            count += size
        assert count == total and p.wait() == 0
    return time.process_time() - begin

def to_file(total):
    with open(os.devnull, "wb") as null:
        assert pod.call(["head", "-c", str(total), "/dev/zero"], stdout=null) == 0

def upload(total):
    block = bytes(MIB)
    with pod.popen("cat > /dev/null", shell=True, stdin=PIPE) as p:
        for _ in range(total // MIB):
            p.stdin.write(block)
        p.stdin.close()
        assert p.wait() == 0

for way in (download, to_file, upload):
    way(16 * MIB)
def median(total):
    return sorted(download(total) for _ in range(25))[12]

base = median(1)
small = median(MIB) - base
before = resident()
large = (download(TOTAL) - base) / (TOTAL / MIB)
to_file(TOTAL)
upload(TOTAL)
grown = resident() - before
print(f"{TOTAL >> 20} MiB each way: {grown:.1f} MiB more, {small * 1e3:.2f} ms of CPU for one of 1 MiB, "
      f"{large * 1e3:.2f} ms for one of many")
assert grown < 16, grown
assert large < 2 * small + 0.001, (small, large)
ending()
"""


def bounded(cluster, total: int) -> None:
    ended = run(f"TOTAL = {total}\n{MEMORY}", cluster.kubeconfig, timeout=60 + total / 1e7)
    print(ended.out)
    quiet(ended, 0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.half_close
def test_what_streams_through_is_not_kept_r24(pod: Pod, cluster) -> None:
    """R-24: 16 MiB more at the peak, and a byte of many costs what one of few does."""
    bounded(cluster, 200 << 20)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_4_gib_that_stream_through_are_not_kept_r24(pod: Pod, cluster) -> None:
    """R-24: 4 GiB down, to a file and up."""
    bounded(cluster, 4 << 30)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_idle_connections_cost_next_to_nothing_r28(pod: Pod, cluster) -> None:
    """R-28: below 0.1 % of a CPU each, and no more wake-ups than pings and pongs."""
    program = """
kubews.client.PING_INTERVAL = 2.0
processes = [pod.popen(["sleep", "1000"], stdin=PIPE, stdout=PIPE) for _ in range(20)]
for p in processes:
    thread(p.stdout.read)
# A parked call looks around once, after a second, and not again.
time.sleep(1.5)

def switches():
    total = 0
    for task in os.listdir("/proc/self/task"):
        if int(task) == os.getpid():
            continue
        with open(f"/proc/self/task/{task}/status") as status:
            total += sum(int(line.split()[1]) for line in status if line.startswith("voluntary"))
    return total

began, count, cpu = time.monotonic(), switches(), time.process_time()
time.sleep(4)
took, count, cpu = time.monotonic() - began, switches() - count, time.process_time() - cpu
print(f"{count / 20 / took:.2f} wake-ups a second, {100 * cpu / 20 / took:.4f} % of a CPU each, a ping in 2 s")
# A ping, and its pong; as many pings as can be begun in that time.
assert count <= 2 * 20 * (took // 2 + 1), (count, took)
assert cpu / 20 / took < 0.001, (cpu, took)
for p in processes:
    p.close(0)
ending()
"""
    program = "threading.excepthook = lambda args: None\n" + program
    ended = run(program, cluster.kubeconfig)
    print(ended.out)
    quiet(ended, 0, "")


def test_a_program_that_was_stopped_for_long_goes_on(pod: Pod, cluster) -> None:
    """Ctrl-Z for longer than a silent peer is waited for; the silence was this side's own."""
    program = """
        from kubews import client as settings
        from kubews.transport import heartbeat
        heartbeat.DEAD_AFTER, settings.PING_INTERVAL = 1.0, 0.2
        script = "rm -f go-on; echo begun; until test -e go-on; do sleep 0.05; done; echo done"
        with pod.popen(script, shell=True, stdout=PIPE, text=True) as process:
            print(process.stdout.readline(), end="", flush=True)
            print(process.stdout.read(), process.wait(), flush=True)
        """
    with start(program, cluster.kubeconfig) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(seconds(1.5))  # longer than a peer is waited for
        child.send_signal(signal.SIGCONT)
        time.sleep(0.5)  # for it to find that so long nothing came
        pod.check_call(["touch", "go-on"])
        assert child.communicate(timeout=seconds(20)) == ("done\n 0\n", "")
