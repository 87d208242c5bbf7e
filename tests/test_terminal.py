"""This process's terminal, lent to a process in a pod: under a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import AnyCluster
from support import eventually, in_thread, runs, seconds, state_of
from terminals import CURSES, PRELUDE, Terminal, python, terminal

import kubews
from kubews import PIPE, Pod, TerminalError
from kubews.terminal import interact
from kubews.testing import Faults, LocalCluster

SHELL = """
try:
    print("exit code:", pod.shell({command}), flush=True)
finally:
    as_before()
"""

# A remote program that takes and gives every byte as it is, once it has said so.
RAW = "stty raw -echo; echo ready; "


def shell(command: object = None) -> str:
    return SHELL.format(command=repr(command))


def remote(script: str) -> str:
    return shell(["sh", "-c", script])


def ends(term: Terminal, code: int) -> None:
    """Wait for the program, which says that its terminal is as before."""
    term.expect("as before: True")
    assert term.wait() == code


# -- what the remote side gets


def test_a_shell_with_this_terminal_r48(cluster: AnyCluster) -> None:
    """R-48: its size and its changes, its TERM, Ctrl-C and Ctrl-D, and the exit code."""
    with terminal(python(shell(), cluster.kubeconfig), (31, 97)) as term:
        term.becomes_raw()
        # On a real one the first size may come behind the first key.
        term.type("until stty size | grep -qv '^0'; do sleep 0.02; done\r")
        term.type("echo $TERM in $(stty size) of $0'.'\r")
        term.expect("xterm-256color in 31 97 of ")
        term.expect("sh.")  # bash, or sh where there is no other
        for rows in range(40, 80):  # a window that is dragged: what counts is where it ends up
            term.resize(rows, 50)
        term.resize(33, 101)
        term.type("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.02; done; echo follow'ed'\r")
        term.expect("followed")
        # Said by what is then in the foreground itself: a shell that has only just started it is not yet.
        term.type("PS1='status $? '; sh -c 'echo sleep\"ing\"; exec sleep 1000'\r")
        term.expect("sleeping")
        term.type("\x03")
        term.expect("^C")
        term.expect("status 130 ")
        term.type("(exit 7)\r")
        term.expect("status 7 ")
        term.type("\x04")
        term.expect("exit code: 7")
        ends(term, 0)


def test_a_size_that_changes_while_it_is_told_r48(cluster: AnyCluster) -> None:
    """R-48: its signal is handled in the middle of the one before, which must not have the last word."""
    script = """
    import fcntl, struct, termios
    tell = kubews.Popen.resize
    def resize(process, rows, cols, **options):
        if (rows, cols) == (40, 50):
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 51, 0, 0))
        tell(process, rows, cols, **options)
    kubews.Popen.resize = resize
    """
    program = textwrap.dedent(script) + shell(["sh"])
    with terminal(python(program, cluster.kubeconfig)) as term:
        term.becomes_raw()
        term.resize(40, 50)
        term.type("until [ \"$(stty size)\" = '41 51' ]; do sleep 0.02; done; echo follow'ed'\r")
        term.expect("followed")
        term.type("\x04")
        ends(term, 0)


STILL_TO_COME = 'read x; while [ "$(stty size)" = "0 0" ]; do sleep 0.1; done; stty size; cat'


def test_a_shell_on_a_server_that_speaks_v4_r48(old: AnyCluster) -> None:
    """R-48: resizing and ending need nothing that it lacks."""
    with terminal(python(shell(["sh", "-c", STILL_TO_COME]), old.kubeconfig)) as term:
        term.becomes_raw()
        term.type("\r")
        term.expect("24 80")
        term.type("\x04")
        term.expect("exit code: 0")
        ends(term, 0)


def test_a_full_screen_program_sees_the_new_size_r48(cluster: AnyCluster) -> None:
    """R-48: what draws on the whole screen draws on the whole new screen."""
    with terminal(python(shell(["python3", "-c", CURSES]), cluster.kubeconfig), (20, 70)) as term:
        term.expect("20 lines 70 columns 0 keys")
        term.type("\x03\x1a\x1c\x13")  # they are keys there, and nothing here
        term.expect("4 keys")
        term.resize(25, 90)
        term.expect("25 lines 90 columns 4 keys")
        term.type("q")
        term.expect("exit code: 0")
        ends(term, 0)


def test_an_editor_r48(cluster: AnyCluster, pod: Pod) -> None:
    """R-48: vi, where the image has one."""
    if pod.run("command -v vi", shell=True, stdout=kubews.DEVNULL).returncode:
        pytest.skip("there is no vi in the pod")
    editor = ["vi", "-u", "NONE", "-n", "edited"]
    with terminal(python(shell(editor), cluster.kubeconfig), (20, 70)) as term:
        term.expect('"edited"')
        term.type("iäö\x1b:!stty size > size </dev/tty\r")
        term.expect("Press ENTER")
        term.type("\r:wq\r")
        term.expect("exit code: 0")
        ends(term, 0)
    assert pod.check_output(["cat", "edited", "size"]) == "äö\n20 70\n".encode()


def test_keys_are_bytes_and_none_is_lost(cluster: AnyCluster) -> None:
    """A paste of a MiB with every byte, behind what was typed before anything ran."""
    paste = random.Random(1).randbytes(1 << 20)
    early = b"typed early\n"
    total = len(early) + len(paste)
    wait = "import select; print('type now', flush=True); select.select([0], [], [])"
    script = wait + remote(RAW + f"head -c {total} | sha256sum")
    with terminal(python(script, cluster.kubeconfig)) as term:
        term.expect("type now")
        term.type(early)
        term.expect("ready")
        pasting = in_thread(write_all, term.user, paste)
        term.expect(hashlib.sha256(early + paste).hexdigest())
        pasting.result(seconds(20))
        ends(term, 0)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_all(descriptor: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        pieces.append(os.read(descriptor, size))
        size -= len(pieces[-1])
    return b"".join(pieces)


def test_a_terminal_that_stands_still_loses_nothing(
    cluster: AnyCluster, local: LocalCluster
) -> None:
    """Output with every byte, all of it before anything is looked at, and the process ends meanwhile."""
    data = random.Random(2).randbytes(1 << 20)
    made = f"import random, sys; sys.stdout.buffer.write(random.Random(2).randbytes({len(data)}))"
    script = remote(RAW + f"read x; exec {sys.executable} -c '{made}'")
    with terminal(python(script, cluster.kubeconfig)) as term:
        term.expect("ready\n")
        assert local.execs
        term.type("\n")
        assert eventually(lambda: not local.execs, 20)
        assert term.program.poll() is None
        assert term.raw
        assert read_all(term.user, len(data)) == data
        term.expect("exit code: 0")
        ends(term, 0)


# -- every way out


WAITS = remote("echo ready; exec sleep 60")


@pytest.mark.usefixtures("signals_are_heard")
def test_signals_that_kill_find_the_terminal_in_order(cluster: AnyCluster) -> None:
    """Restored, and then dead of the same signal with its default action."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        with terminal(python(WAITS, cluster.kubeconfig)) as term:
            before = term.settings
            term.expect("ready")
            assert term.raw
            term.program.send_signal(number)
            assert term.wait() == -number
            assert term.settings == before


IN_A_HANDLER = """
def handler(number, frame):
    raise SystemExit(9)
signal.signal(signal.SIGTERM, handler)
"""


@pytest.mark.parametrize(
    ("number", "before", "code", "said"),
    [
        (signal.SIGINT, "", -signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGINT, "signal.signal(signal.SIGINT, signal.SIG_DFL)", -signal.SIGINT, ""),
        (signal.SIGTERM, IN_A_HANDLER, 9, "as before: True"),
    ],
)
def test_exceptions_find_the_terminal_in_order(
    cluster: AnyCluster, number: int, before: str, code: int, said: str
) -> None:
    """Those of the user's own handlers, too: they stay in force."""
    with terminal(python(before + WAITS, cluster.kubeconfig)) as term:
        settings = term.settings
        term.expect("ready")
        assert term.raw
        term.program.send_signal(number)
        term.expect(said)
        assert term.wait() == code
        assert term.settings == settings


def test_a_lost_connection_is_told_in_a_terminal_that_is_in_order(
    cluster: AnyCluster, local: LocalCluster
) -> None:
    """ConnectionLost behind the last byte, and every handler as before."""
    script = """
    def changed(number, frame):
        print("changed", flush=True)
    signal.signal(signal.SIGWINCH, changed)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)  # as asyncio does
    numbers = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGCONT", "SIGWINCH")
    handlers = [signal.getsignal(getattr(signal, name)) for name in numbers]
    try:
        pod.shell(["sh", "-c", "stty raw -echo; echo ready; read x; head -c 9999 /dev/zero"])
    except kubews.ConnectionLost as exc:
        as_before()
        assert handlers == [signal.getsignal(getattr(signal, name)) for name in numbers]
        assert signal.SIGWINCH in os.read(reader, 99)
        print(signal.set_wakeup_fd(-1) == writer)
        print(exc)
    """
    local.next_faults(Faults(match="/exec", drop_after=64))
    with terminal(python(script, cluster.kubeconfig)) as term:
        term.expect("ready")
        term.resize(40, 40)
        term.expect("changed")  # the user's handler is called
        term.type("\n")
        term.expect("as before: True\r\nTrue\r\npod default/web-0: connection lost")
        assert term.wait() == 0


# -- letting go


DETACH = """
remote = "stty raw -echo; echo ready; while :; do dd bs=1 count=1 2>/dev/null | od -An -tu1; done"
with pod.popen(["sh", "-c", remote], stdin=PIPE, stdout=PIPE, tty=True) as process:
    print(process.stdout.readline(), flush=True)  # and what it has read ahead is not lost
    print("ended:", interact(process), process.poll(), flush=True)
    as_before()
    print("mine:", input(), flush=True)
    print("ended:", interact(process, detach_keys="~,."), flush=True)
    as_before()
    process.close()
"""


def test_letting_go_and_coming_back(cluster: AnyCluster) -> None:
    """The keys are swallowed, a beginning of them is passed on, and what follows is this program's."""
    with terminal(python(DETACH, cluster.kubeconfig)) as term:
        term.expect("ready")
        term.becomes_raw()
        for typed, comes in ((b"\x10a\x10", (16, 97)), (b"\x10", (16,))):
            term.type(typed)
            for key in comes:
                term.expect(f"  {key}\n")
        term.type(b"\x11for me\n")
        term.expect("ended: False None\r\nas before: True\r\n")
        term.expect("mine: for me\r\n")
        term.becomes_raw()
        term.type("\x10\x11~~")
        for key in (16, 17, 126):
            term.expect(f" {key}\n")
        term.type(".")
        term.expect("ended: False")
        ends(term, 0)


LATER = """
import time
def left():
    return sorted(t.name for t in threading.enumerate()), len(os.listdir("/proc/self/fd"))
pod.run(["true"])  # what a client keeps
def settled(wanted):
    "Whether it comes to that: a thread takes a moment to be gone."
    end = time.monotonic() + 10
    while not wanted() and time.monotonic() < end:
        time.sleep(0.01)
settled(lambda: threading.active_count() == 1)
here = left()
print("exit code:", pod.shell(["sh", "-c", "exit 3"]))
settled(lambda: left() == here)
print("nothing left:", left() == here, left(), flush=True)
print("mine", input())
"""


def test_what_is_typed_later_belongs_to_who_reads_then(cluster: AnyCluster) -> None:
    """No thread is left in a read of the terminal, and no descriptor."""
    with terminal(python(LATER, cluster.kubeconfig)) as term:
        term.expect("exit code: 3\r\nnothing left: True")
        term.type("words\n")
        term.expect("mine words")
        assert term.wait() == 0


# -- stopped and continued


def lender(cluster: AnyCluster, tmp_path: Path, before: str) -> str:
    """Write a program that says who it is, and lends its terminal; return how a shell starts it."""
    program = tmp_path / "program.py"
    script = remote("for i in $(seq 3000); do stty size; sleep 0.02; done")
    said = "print('I am', os.getpid(), flush=True)\n"
    program.write_text(PRELUDE + before + said + script)
    return f"{sys.executable} {program} {cluster.kubeconfig}"


@contextlib.contextmanager
def job(cluster: AnyCluster, tmp_path: Path, before: str = "") -> Iterator[tuple[Terminal, int]]:
    """Start a program that lends its terminal from a shell; yield the terminal and its process id."""
    with terminal(["bash", "--norc", "--noprofile", "-i"]) as term:
        term.type(f"PS1='local> '; {lender(cluster, tmp_path, before)}\r")
        term.screen.expect(rb"I am (\d+)")
        pid = int(term.screen.match[1])
        term.expect("24 80")
        assert term.raw
        yield term, pid


def stops(term: Terminal, pid: int, number: int) -> None:
    """Stop a job from elsewhere; the shell then has the terminal as it needs it."""
    os.kill(pid, number)
    term.expect("Stopped")
    term.type("stty -a; echo en'd'\r")
    term.screen.expect(rb" icanon .* echo .*end\r\n")


def stops_in_the_background(term: Terminal, pid: int, by: str = "bg") -> None:
    term.type(f"{by}; echo beh'ind'\r")
    term.expect("behind")
    assert eventually(lambda: state_of(pid) == "T")
    # A shell that has not heard of it yet would take fg for nothing to be done, and continue nobody.
    term.type("until [ \"$(jobs -s)\" ]; do sleep 0.02; done; echo kno'wn'\r")
    term.expect("known")


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_stopped_program_takes_its_terminal_again(
    cluster: AnyCluster, tmp_path: Path, number: int
) -> None:
    """In the background it waits; in the foreground all is raw again, with the size of now."""
    with job(cluster, tmp_path) as (term, pid):
        stops(term, pid, number)
        stops_in_the_background(term, pid)
        term.resize(26, 86)
        term.type("fg\r")
        term.expect("26 86")
        assert term.raw
        term.type("\x03")
        term.expect("exit code: 130")
        term.expect("as before: True")
        term.type("exit\r")
        assert term.wait() == 0


@pytest.mark.parametrize("in_between", ["bg", "bg; sleep 0.02; kill -CONT %1"])
def test_a_program_that_was_put_into_the_foreground_is_not_stopped_again(
    cluster: AnyCluster, tmp_path: Path, in_between: str
) -> None:
    """However soon that is, and however often it was continued in the background before."""
    with job(cluster, tmp_path) as (term, pid):
        stops(term, pid, signal.SIGTSTP)
        term.resize(26, 86)
        if in_between == "bg":
            term.type("bg; sleep 0.02; fg\r")
        else:
            stops_in_the_background(term, pid, in_between)
            term.type("fg\r")
        term.expect("26 86")
        term.type("\x03")
        term.expect("as before: True")
        term.type("exit\r")
        assert term.wait() == 0


@pytest.mark.parametrize(
    ("stop", "waits"),
    [(signal.SIGSTOP, True), (signal.SIGSTOP, False), (signal.SIGTSTP, False)],
)
@pytest.mark.parametrize(
    ("number", "before"),
    [(signal.SIGTERM, ""), (signal.SIGTERM, IN_A_HANDLER), (signal.SIGINT, "")],
    ids=["default", "exit", "interrupt"],
)
def test_a_job_in_the_background_dies_without_a_touch_of_the_terminal(
    cluster: AnyCluster, tmp_path: Path, number: int, before: str, waits: bool, stop: int
) -> None:
    """Of the exception of a handler, too, whether it has asked for its terminal or was only stopped."""
    with job(cluster, tmp_path, before) as (term, pid):
        stops(term, pid, stop)
        if waits:
            stops_in_the_background(term, pid)
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)  # as the kill of a shell does
        # The shell may take its time to bury it.
        assert eventually(lambda: not runs(pid), 20)
        term.type("stty -a; echo en'd'\r")
        term.screen.expect(rb" icanon .* echo .*end\r\n")
        term.type("exit 0\rexit 0\r")  # a shell that has missed the death minds a stopped job, once
        assert term.wait() == 0


IGNORES = """
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
import time
sleep = time.sleep
def tell(seconds):
    print("still waits", flush=True)
    sleep(seconds)
time.sleep = tell
"""


def test_what_cannot_be_stopped_waits_in_the_background(
    cluster: AnyCluster, tmp_path: Path
) -> None:
    """There the kernel lets it change the terminal, which is the shell's."""
    with terminal(["bash", "--norc", "--noprofile", "-i"]) as term:
        program = lender(cluster, tmp_path, IGNORES)
        # Without readline, which has settings of its own that look like those of who lends it.
        term.type(f"set +o emacs; PS1='local> '; {program} &\r")
        for _ in range(3):
            term.expect("still waits")
            assert not term.raw
        term.type("fg\r")
        term.becomes_raw()
        term.type("\x03")
        term.expect("as before: True")
        term.type("exit\r")
        assert term.wait() == 0


def test_the_background_of_no_shell_is_an_error(cluster: AnyCluster, tmp_path: Path) -> None:
    """Nobody could continue it."""
    with terminal(["bash", "--norc", "--noprofile", "-i"]) as term:
        program = lender(cluster, tmp_path, "import time; time.sleep(0.5)\n")
        term.type(f"bash -c '{program} </dev/tty & sleep 0.1' &\r")
        term.expect("the terminal does not let itself be changed: Input/output error")
        assert not term.raw
        term.type("exit\r")
        assert term.wait() == 0


# -- what tty=True means


def test_output_to_this_terminal_has_its_size_and_leaves_it_alone(cluster: AnyCluster) -> None:
    script = """
    print(pod.run(["sh", "-c", sys.argv[2]], tty=True, input=b"\\n\\x04").returncode)
    as_before()
    """
    with terminal(python(script, cluster.kubeconfig, STILL_TO_COME), (41, 17)) as term:
        term.expect("41 17")
        term.expect("0\r\n")
        ends(term, 0)


RUN = """
for options in ({"text": True}, {"timeout": 60, "env": {"MINE": "1"}}):
    done = pod.run(sys.argv[2], shell=True, tty=True, stdin=sys.stdin, **options)
    print("done:", done.returncode, done.stdout, flush=True)
    as_before()
try:
    pod.call(["sleep", "60"], tty=True, stdin=0, timeout=0.5)
except kubews.TimeoutExpired as exc:
    print(exc)
    as_before()
done = pod.run(["cat"], tty=True, stdin=sys.stdin, stdout=PIPE)  # line by line: it is not lent
print(done.stdout)
"""


def test_with_this_keyboard_run_lends_the_terminal_r48(cluster: AnyCluster) -> None:
    """R-48: as ``subprocess.run`` does, which inherits it."""
    script = STILL_TO_COME.replace("; cat", "; exit $x")
    with terminal(python(RUN, cluster.kubeconfig, script), (37, 73)) as term:
        for number in (5, 6):
            term.becomes_raw()
            term.type(f"{number}\r")
            term.expect("37 73")
            term.expect(f"done: {number} None\r\nas before: True\r\n")
        term.expect("Command '['sleep', '60']' timed out after 0.5 seconds\r\nas before: True\r\n")
        term.type("line\r\x04")
        term.expect("b'line\\r\\nline\\r\\n")
        assert term.wait() == 0


# -- where there is no terminal


def test_no_terminal_is_an_error_that_names_the_cure(cluster: AnyCluster, pod: Pod) -> None:
    """And nothing is run."""
    script = PRELUDE.replace("before =", "# ") + "pod.shell()"
    done = subprocess.run(
        [sys.executable, "-c", script, str(cluster.kubeconfig)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds(20),
    )  # fmt: skip
    assert "TerminalError: stdin of this process is no terminal" in done.stderr
    assert "use run() or popen()" in done.stderr
    done_in_thread = in_thread(pod.shell)
    with pytest.raises(TerminalError, match="only the main thread"):
        done_in_thread.result()


@pytest.mark.half_close
def test_what_cannot_be_lent_a_terminal(pod: Pod) -> None:
    with pod.popen(["true"], stdin=PIPE, stdout=PIPE) as process:
        with pytest.raises(TerminalError, match="it needs tty=True"):
            interact(process)
        with pytest.raises(TerminalError, match=r"web-0.* has no terminal: it needs tty=True"):
            process.resize(24, 80)
    for options in ({"stdin": PIPE, "stdout": PIPE, "text": True}, {"stdout": PIPE}):
        with pod.popen(["true"], tty=True, **options) as process:
            with pytest.raises(
                TerminalError, match="needs stdin=PIPE and stdout=PIPE, and no text"
            ):
                interact(process)
    with pytest.raises(ValueError, match="because of 'ctrl'"):
        interact(process, detach_keys="ctrl")


@pytest.fixture
def bare(local: LocalCluster, tmp_path: Path) -> Iterator[str]:
    """The pod of an image in which there is neither sh nor env."""
    local.add_pod("bare", {"app": None}, env={"PATH": str(tmp_path)})
    yield "bare"
    local.delete_pod("bare")


def test_where_there_are_no_terminals_at_all_it_can_be_imported() -> None:
    """As on Windows, which lacks these modules."""
    script = """
import sys
sys.modules.update(termios=None, fcntl=None, tty=None, pty=None)
import kubews.terminal
sys.platform = "win32"
try:
    kubews.console.Terminal()
except kubews.TerminalError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True, capture_output=True, text=True, timeout=seconds(20),
    )  # fmt: skip
    assert "Windows" in done.stdout


def test_an_image_without_a_shell(cluster: AnyCluster, bare: str) -> None:
    """The error says what is missing; a program of the image runs, though it cannot be told of TERM."""
    script = f"""
try:
    client.pod({bare!r}).shell()
except kubews.ExecError as exc:
    as_before()
    print(exc)
print(client.pod({bare!r}).shell(["/bin/sh", "-c", "echo the runtime says $TERM; exit 4"]))
"""
    with terminal(python(script, cluster.kubeconfig)) as term:
        term.expect("as before: True")
        term.expect(
            "shell(), shell=True, cwd= and signals=True need sh, which this image does not have"
        )
        term.expect("the runtime says xterm\r\n4\r\n")
        assert term.wait() == 0


# -- resize


def test_resize_r48(pod: Pod) -> None:
    """R-48: clamped to what a server's decoder takes; the newest wins; an end is told."""
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    with pod.popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, tty=True, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for size, expected in [
            ((0, -5), "1 1\n"),
            ((70000, 1 << 40), "65535 65535\n"),
            ((7, 9), "7 9\n"),
        ]:
            process.resize(*size)
            assert process.stdout.readline() == expected
        with pytest.raises(TypeError):
            process.resize(1.5, 2)
        process.resize(7, 9, redraw=True)
        assert process.stdout.readline() in ("8 10\n", "7 9\n")
        process.stdin.write("\x03")
        assert process.wait(seconds(10)) == 130
        with pytest.raises(kubews.StreamBroken):
            process.resize(24, 80)
