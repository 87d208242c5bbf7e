"""R-50: signals=True. Whether something is gone is seen by a look of its own into the container."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import AnyCluster
from support import eventually, seconds

import kubews
from kubews import DEVNULL, PIPE, STDOUT, Client, Pod
from kubews.signals import _SIGNAL
from kubews.testing import Faults, LocalCluster
from kubews.transport.wait import Outcome

# Prints which of its arguments are processes that run. A zombie whose parent does not ask for it has ended.
RUNNING = """
for pid; do
  read -r line <"/proc/$pid/stat" || continue
  case ${line##*)} in " Z"* | " X"*) ;; *) echo "$pid" ;; esac
done
"""

# A process with children of every kind: under nohup (busybox may lack it, but not what it does), in a
# session of its own, with an empty environment, and one whose parent has ended. Each prints its process id.
FAMILY = """
echo $$
(trap '' HUP; exec $(command -v nohup) sleep 1000 >/dev/null 2>&1) & echo $!
setsid sleep 1000 >/dev/null 2>&1 & echo $!
env -i sleep 1000 >/dev/null 2>&1 & echo $!
(sleep 1000 >/dev/null 2>&1 & echo $!)
echo all
wait
"""


def running(pod: Pod, pids: list[int]) -> list[int]:
    argv = ["sh", "-c", RUNNING, "sh", *map(str, pids)]
    return [int(line) for line in pod.check_output(argv, stderr=DEVNULL).split()]


def gone(pod: Pod, *pids: int) -> bool:
    return eventually(lambda: not running(pod, list(pids)), 10)


def family(pod: Pod) -> tuple[kubews.Popen, list[int]]:
    process = pod.popen(FAMILY, shell=True, stdout=PIPE, signals=True)
    pids = [int(line) for line in iter(process.stdout.readline, b"all\n")]
    assert len(pids) == 5
    assert running(pod, pids) == pids
    return process, pids


@pytest.fixture(scope="module")
def bash(cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pod whose sh is bash."""
    shells = str(tmp_path_factory.mktemp("shells"))
    path = os.environ["PATH"] if isinstance(cluster, LocalCluster) else "/usr/bin:/bin"
    cluster.add_pod("bash", {"app": ["sleep", "100000"]}, env={"PATH": f"{shells}:{path}"})
    with cluster.client() as client:
        script = f'mkdir -p {shells}; ln -s "$(command -v bash)" {shells}/sh'
        client.pod("bash").check_call(script, shell=True)
    yield "bash"
    cluster.delete_pod("bash")


@pytest.fixture(params=["web-0", "bash", "busybox"])
def each(request: pytest.FixtureRequest, client: Client, nothing_left_behind: None) -> Pod:
    """A pod with dash, one with bash and one with busybox for its sh."""
    name = request.param
    return client.pod(name if name == "web-0" else request.getfixturevalue(name))


def test_which_shell(each: Pod) -> None:
    """Otherwise the other tests would prove less than they say."""
    version = each.check_output('echo "${BASH_VERSION:+bash}"', shell=True, text=True).strip()
    assert version == ("bash" if each.name == "bash" else "")


@pytest.mark.parametrize(("method", "code"), [("terminate", 143), ("kill", 137)])
def test_terminate_and_kill_reach_all_that_was_started_r50(each: Pod, method, code) -> None:
    """R-50: children under nohup, of other sessions, without environment and without parents."""
    with family(each)[0] as other:
        process, pids = family(each)
        with process:
            getattr(process, method)()
            assert process.wait(seconds(10)) == code
        assert gone(each, *pids)
        assert other.poll() is None  # of the same container, and nobody meant it
        assert other.end()
    assert other.returncode == 143


LAST_PID = "/proc/sys/kernel/ns_last_pid"

# The first process of a PID namespace. It starts a shell, which waits for another one, which waits for the
# first of its three children; all with the numbers that they are to have. Then it kills the first shell and
# all below it, tells of each, and leaves the shells that still run the time to go on.
FAMILY_BY_NUMBERS = f"""
echo $(($3 - 1)) >{LAST_PID}
MARK=it sh -c '
  echo $(($1 - 1)) >{LAST_PID}
  $3 sh -c "$0" $2 &
  wait
  echo went on
' '
  echo $(($0 - 1)) >{LAST_PID}
  for each in 1 2 3; do MARK=it sleep 1000 & done
  wait $0
  echo went on
' $4 $5 "$6" &
until [ -e /proc/$(($5 + 2)) ]; do :; done
read -r stat </proc/$!/stat
tell='kill() {{ echo "kill $2"; command kill "$@"; sleep 0.05; }}'
signal="$tell; $1" shell=$2
set -- ${{stat##*)}}
$shell -c "$signal" sh MARK=it $! "${{20}}" KILL
wait $!
echo $! $?
"""


@pytest.mark.skipif(not os.path.exists(LAST_PID), reason="numbers cannot be chosen here")
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
@pytest.mark.parametrize(
    ("top", "middle", "child", "env"),
    [
        pytest.param(98, 99, 100, "", id="more digits"),
        pytest.param(700, 500, 501, "", id="top above"),
        pytest.param(500, 700, 600, "", id="middle above"),
        pytest.param(500, 501, 502, "env -i", id="middle without environment"),
    ],
)
def test_parents_are_killed_before_their_children_r50(
    shell: str, top: int, middle: int, child: int, env: str
) -> None:
    """R-50: or a shell would go on with what follows the command that it waits for, and end with success.

    A child has a lower number than its parent when the numbers have begun anew in between.
    """
    alone = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    numbers = map(str, (top, middle, child))
    done = subprocess.run(
        [*alone, "sh", "-c", FAMILY_BY_NUMBERS, "sh", _SIGNAL, shell, *numbers, env],
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds(20),
        check=True,
    )
    said = done.stdout.splitlines()
    assert said[:2] == [f"kill {top}", f"kill {middle}"]
    assert sorted(said[2:5]) == [f"kill {child + each}" for each in range(3)]
    assert said[6:] == ["refused  ", f"{top} 137"]


@pytest.fixture(scope="module")
def empty_path(
    cluster: AnyCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A pod whose PATH has one empty directory, and that directory."""
    programs = str(tmp_path_factory.mktemp("programs"))
    cluster.add_pod("poor", {"app": ["/bin/sleep", "100000"]}, env={"PATH": programs})
    with cluster.client() as client:
        client.pod("poor").check_call(["/bin/mkdir", "-p", programs])
    yield "poor", programs
    cluster.delete_pod("poor")


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_nothing_but_a_shell_is_needed_r50(
    client: Client, pod: Pod, empty_path: tuple[str, str], shell: str
) -> None:
    path = pod.run(["sh", "-c", f"command -v {shell}"], stdout=PIPE, text=True).stdout.strip()
    if not path:
        pytest.skip(f"there is no {shell} in the image of this pod")
    poor, programs = client.pod(empty_path[0]), empty_path[1]
    poor.check_call(["/bin/ln", "-sf", path, f"{programs}/sh"])
    script = "/bin/sleep 1000 & echo $$ $!; wait"
    with poor.popen(script, shell=True, stdout=PIPE, signals=True) as process:
        pids = [int(number) for number in process.stdout.readline().split()]
        assert process.pid == pids[0]
        assert process.end()
    assert process.returncode == 143
    assert gone(poor, *pids)


def test_what_a_process_has_left_behind_is_reached_r50(pod: Pod) -> None:
    script = "nohup sleep 1000 >/dev/null 2>&1 & echo $!; exit 3"
    with pod.popen(script, shell=True, stdout=PIPE, signals=True) as process:
        child = int(process.stdout.readline())
        assert process.wait(seconds(10)) == 3
    assert running(pod, [child])  # as with subprocess
    process.kill()
    assert gone(pod, child)
    assert process.end()
    assert process.returncode == 3
    process.terminate()  # nothing to do


def test_end_gives_time_and_then_kills_r50(pod: Pod, tmp_path) -> None:
    polite = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with pod.popen(polite, shell=True, stdout=PIPE, signals=True) as process:
        process.stdout.readline()
        assert process.end(grace=seconds(10))
        assert process.returncode == 5
        assert process.stdout.read() == b"bye\n"
    stubborn = "trap '' TERM; echo $$; exec sleep 1000"
    with pod.popen(stubborn, shell=True, stdout=PIPE, signals=True) as process:
        pid = int(process.stdout.readline())
        begin = time.monotonic()
        assert process.end(grace=0.3)
        assert time.monotonic() - begin > 0.3
        assert process.returncode == 137
    assert gone(pod, pid)


def test_an_end_is_not_told_before_its_output_is_copied_r50(pod: Pod) -> None:
    """R-50: ``end`` waits for no file, and ``poll`` tells the exit code when all is in it."""
    script = (
        "trap 'exit 3' TERM; head -c 200000 /dev/zero; echo said >&2; while :; do sleep 0.1; done"
    )
    read, write = os.pipe()  # that nobody reads yet
    with open(read, "rb") as reader, open(write, "wb", 0) as stuck:
        options = {"signals": True, "stdout": stuck, "stderr": PIPE}
        with pod.popen(script, shell=True, **options) as process:
            assert process.stderr.readline() == b"said\n"
            assert process.end()
            assert (process.poll(), process.returncode) == (None, None)
            assert len(reader.read(200000)) == 200000
            assert process.wait(seconds(10)) == 3
    with open("/dev/full", "wb", 0) as full:
        process = pod.popen("echo x; sleep 20", shell=True, signals=True, stdout=full)
        assert eventually(process._copiers[0].done.done)
        process.end()
        for tell in (process.poll, process.wait):
            with pytest.raises(OSError, match="No space left"):
                tell()
        process.close()


@pytest.mark.parametrize("options", [{}, {"tty": True}])
def test_a_timeout_ends_the_process_r50(pod: Pod, options: dict[str, Any]) -> None:
    """R-50: as subprocess.run kills its child."""
    script = "nohup sleep 1000 >/dev/null 2>&1 & echo $! $$; sleep 1000"
    with pytest.raises(kubews.TimeoutExpired) as caught:
        pod.run(script, shell=True, stdout=PIPE, signals=True, timeout=seconds(1.5), **options)
    assert caught.value.timeout == seconds(1.5)
    pids = [int(number) for number in caught.value.stdout.split()]
    assert len(pids) == 2
    assert gone(pod, *pids)


@pytest.mark.parametrize("exception", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_leaving_the_block_by_an_exception_ends_the_process_r50(pod: Pod, exception) -> None:
    process, pids = family(pod)
    with pytest.raises(exception), process:
        raise exception
    assert gone(pod, *pids)
    assert process.returncode == 143
    assert process.poll() == 143


def test_ctrl_c_in_run_ends_the_process_r50(pod: Pod, tmp_path) -> None:
    out = tmp_path / "out"

    def interrupt(number: int, frame: Any) -> None:
        if out.stat().st_size:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.05)
    try:
        with open(out, "wb") as file, pytest.raises(KeyboardInterrupt):
            pod.run("echo $$; exec sleep 1000", shell=True, stdout=file, signals=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gone(pod, int(out.read_text()))


def test_leaving_the_block_in_the_middle_of_output_ends_the_process_r50(pod: Pod) -> None:
    script = "trap '' PIPE; echo $$; while :; do echo line; done 2>/dev/null"
    with pod.popen(script, shell=True, stdout=PIPE, signals=True) as process:
        pid = int(process.stdout.readline())
    assert gone(pod, pid)


def test_a_closed_or_lost_session_can_end_its_process_r50(pod: Pod) -> None:
    """R-50: over another connection."""
    process, pids = family(pod)
    process.close()
    assert running(pod, pids) == pids  # closing alone ends nothing
    assert process.end()
    assert gone(pod, *pids)
    with pytest.raises(kubews.ConnectionLost):
        process.poll()
    assert process.end()  # again is nothing


@pytest.mark.parametrize("after", [200, 1200])
def test_a_block_that_loses_its_connection_ends_the_process_r50(
    pod: Pod, local, after: int
) -> None:
    """R-50: also if the connection is lost before the process id has come."""
    local.next_faults(Faults(drop_after=after, match="/exec"))
    script = "trap '' HUP PIPE; echo $$ >pid-of-lost; while :; do echo some line; sleep 0.005; done"
    with pytest.raises(kubews.ConnectionLost):
        with pod.popen(script, shell=True, stdout=PIPE, signals=True) as process:
            written = pod.check_output(
                "until test -s pid-of-lost; do sleep 0.01; done; cat pid-of-lost; rm pid-of-lost",
                shell=True,
            )
            process.stdout.read()
    assert (process.pid is None) == (after == 200)
    assert gone(pod, int(written))


def test_an_end_that_cannot_be_seen_is_warned_about_r50(cluster, pod: Pod) -> None:
    """R-50: and what the block was left for is raised all the same."""
    pids = []

    def leave() -> None:
        with cluster.client() as client:
            with client.pod("web-0").popen(["sleep", "1000"], signals=True) as process:
                pids.append(process.pid)
                client.close()
                raise ZeroDivisionError

    warned = pytest.warns(RuntimeWarning, match=r"web-0: .* may still run: .* is closed")
    with warned, pytest.raises(ZeroDivisionError):
        leave()
    assert running(pod, pids)
    pod.check_call(["sh", "-c", 'kill "$1"', "sh", str(pids[0])])


def test_the_process_alone_and_signals_by_name(pod: Pod) -> None:
    script = (
        "trap 'echo one' USR1; trap 'echo two' USR2; sleep 1000 >/dev/null & echo $!; "
        "while :; do sleep 0.05 >/dev/null; done"
    )
    with pod.popen(script, shell=True, stdout=PIPE, text=True, signals=True) as process:
        child = int(process.stdout.readline())
        for sig, said in ((signal.SIGUSR1, "one\n"), (12, "two\n")):
            process.send_signal(sig, children=False)
            assert process.stdout.readline() == said
        assert running(pod, [child])
        process.send_signal(0)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGKILL)
        assert process.wait(seconds(10)) == 137
    assert gone(pod, child)
    for bad, error in ((65, ValueError), (-1, ValueError), ("TERM", TypeError), (None, TypeError)):
        with pytest.raises(error, match="signal"):
            process.send_signal(bad)


def test_a_process_that_forks_as_fast_as_it_can_is_ended_r50(pod: Pod) -> None:
    name = f"10{secrets.randbelow(10**9):09d}"
    script = f"while :; do sleep {name} & sleep 0.01; done"
    with pod.popen(script, shell=True, signals=True) as process:
        time.sleep(0.3)
        process.kill()
        assert process.wait(seconds(10)) == 137
    look = f'for each in /proc/[0-9]*/cmdline; do read -r line <$each; echo "$line"; done 2>&1; echo {name}'
    assert eventually(lambda: pod.check_output(look, shell=True).count(name.encode()) == 2)


def same(pod: Pod, args: Any, **options: Any) -> Any:
    """Run with and without signals; return what both gave."""
    plain, watched = (
        pod.run(args, stdout=PIPE, signals=signals, **{"stderr": PIPE, **options})
        for signals in (False, True)
    )
    assert vars(watched) == vars(plain)
    return plain


def test_nothing_else_differs(each: Pod) -> None:
    """R-50: quoting, output, exit code, and how it composes with the other arguments."""
    odd = ["", "a  b", "$HOME", "'\"\\", "*", "-n", "a\nb", "é", "x=y"]
    assert same(each, ["printf", "%s|", *odd]).stdout.decode().split("|")[:-1] == odd
    done = same(each, 'echo out; echo err >&2; echo "$0"; exit 7', shell=True)
    assert (done.returncode, done.stderr) == (7, b"err\n")
    assert same(each, ["sh", "-c", "kill -9 $$"]).returncode == 137
    assert same(each, "pwd; echo $A", shell=True, cwd="/etc", env={"A": "b  c"}).stdout == (
        b"/etc\nb c\n"
    )
    assert same(each, "echo err >&2; sleep 0.5; echo out", shell=True, stderr=STDOUT).stdout == (
        b"err\nout\n"
    )
    assert same(each, "tty >/dev/null && printf 'a\\n\\nb'", shell=True, tty=True).stdout == (
        b"a\r\n\r\nb"
    )
    assert same(each, ["cat"]).stdout == b""
    with each.popen("echo $$; exec sleep 0.1", shell=True, stdout=PIPE, signals=True) as process:
        assert process.pid == int(process.stdout.read())
    missing = each.run(["no-such-program"], capture_output=True, signals=True)
    assert missing.returncode == 127
    assert missing.stderr.startswith(b"sh: ")
    assert each.run(["/etc"], capture_output=True, signals=True).returncode == 126


@pytest.mark.half_close
def test_input_arrives_whole(pod: Pod) -> None:
    data = os.urandom(300_000)
    assert pod.run(["cat"], input=data, stdout=PIPE, signals=True).stdout == data
    with pod.popen(["cat"], stdin=PIPE, stdout=PIPE, tty=True, signals=True) as process:
        process.stdin.write(b"typed\n")
        assert process.stdout.readline() == b"typed\r\n"
        assert process.stdout.readline() == b"typed\r\n"
        process.stdin.write(b"\x04")
        assert process.wait(seconds(10)) == 0


def test_without_signals_the_truth_and_the_way_r50(pod: Pod) -> None:
    process = pod.popen(["sleep", "5"], stdout=PIPE)
    for call in (process.terminate, process.kill, process.end):
        with pytest.raises(io.UnsupportedOperation, match="signals=True"):
            call()
    assert process.pid is None
    process.close()


def test_an_old_server_passes_them_too_r50(old_pod: Pod, tmp_path) -> None:
    process, pids = family(old_pod)
    with process:
        process.kill()
        assert process.wait(seconds(10)) == 137
    assert gone(old_pod, *pids)
    # Started, and then refused: nobody will hold this one.
    with pytest.raises(kubews.HalfCloseUnsupported):
        old_pod.popen(
            ["sh", "-c", "echo $$ >pid-of-mine; sleep 1000"],
            stdin=io.BytesIO(b"input"),
            signals=True,
        )
    # It may have been ended before it has written anything.
    written = old_pod.run("cat pid-of-mine", shell=True, capture_output=True).stdout
    assert not written or gone(old_pod, int(written))


def test_without_a_report_the_mark_does(pod: Pod) -> None:
    """As when Ctrl-C came before it."""
    process, pids = family(pod)
    process._tree._report = Outcome()
    with pytest.raises(kubews.ExecError, match="process id"):
        process.send_signal(signal.SIGUSR1, children=False)
    assert process.end()
    process.close()
    assert gone(pod, *pids)


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of this machine, in a session of its own."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
@pytest.mark.parametrize("shell", [each for each in SHELLS if shutil.which(each[0])], ids=str)
def test_a_process_that_has_got_the_number_of_another_is_left_alone(
    shell: list[str], stranger: int
) -> None:
    """A number is given again when its process has ended, so the time of start counts, too."""
    begun = int(Path(f"/proc/{stranger}/stat").read_text().rpartition(")")[2].split()[19])

    def look(since: int, sig: str = "0") -> str:
        argv = [*shell, "-c", _SIGNAL, "sh", secrets.token_hex(8), str(stranger), str(since), sig]
        done = subprocess.run([*argv, ""], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0]

    for other in (begun - 1, begun + 1):
        assert look(other, "9").split() == ["left"]
    assert look(begun).split() == ["left", str(stranger)]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can start a process of another user",
)
def test_a_process_of_another_user_is_told_of(local, client: Client, tmp_path_factory) -> None:
    shells = tmp_path_factory.mktemp("shells")
    path = f"{shells}:{os.environ['PATH']}"
    local.add_pod("lesser", {"app": ["sleep", "100000"]}, env={"PATH": path})
    pod = client.pod("lesser")
    with pod.popen(["sleep", "1000"], signals=True) as process:
        lesser = f'#!/bin/sh\nexec setpriv --reuid 65534 --clear-groups {shutil.which("sh")} "$@"\n'
        (shells / "sh").write_text(lesser)
        (shells / "sh").chmod(0o755)
        with pytest.raises(kubews.SignalRefused, match=f"signal 15 to process {process.pid}, "):
            process.terminate()
        assert not process.end(grace=0)
        (shells / "sh").unlink()
        process.kill()
        assert process.wait(seconds(10)) == 137
    local.delete_pod("lesser")
