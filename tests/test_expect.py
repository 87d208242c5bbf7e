"""pexpect drives programs in pods."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pexpect
import pytest
from clusters import AnyCluster
from support import eventually, seconds

import kubews
from kubews import Pod
from kubews.expect import spawn
from kubews.testing import Faults, LocalCluster


@pytest.fixture
def python(pod: Pod) -> Iterator[spawn]:
    """An interpreter at its first prompt."""
    with spawn(
        pod,
        ["python3", "-i"],
        env={"PYTHON_BASIC_REPL": "1"},
        timeout=seconds(20),
        encoding="utf-8",
    ) as it:
        it.expect_exact(">>> ")
        yield it


def test_a_dialogue_with_an_interpreter(python: spawn) -> None:
    """Patterns, groups, Ctrl-C, the size, Ctrl-D and the exit code."""
    log = python.logfile_read = io.StringIO()
    assert python.sendline("print('ä' * 3, 6 * 7)") == len("print('ä' * 3, 6 * 7)\n".encode())
    python.expect(r"\r\n(ä+) (\d+)\r\n")
    assert python.match.groups() == ("äää", "42")
    python.sendline("import os, time; print('slee' + 'ping'); time.sleep(1000)")
    python.expect_exact("sleeping")
    python.sendintr()
    python.expect_exact(["KeyboardInterrupt"])
    python.setwinsize(43, 132)
    python.writelines(
        ["while tuple(os.get_terminal_size()) != (132, 43): time.sleep(0.02)\n", "\n"]
    )
    python.sendline("print('it', 'is')")
    python.expect_exact("it is")
    assert python.getwinsize() == (43, 132)
    assert python.isatty()
    assert python.isalive()
    assert python.exitstatus is None
    python.sendline("import atexit; atexit.register(os._exit, 5)")
    python.expect_exact("_exit>\r\n>>> ")  # and not the prompt before
    python.sendeof()
    python.expect(pexpect.EOF)
    assert python.eof()
    assert not python.isalive()
    assert (python.exitstatus, python.wait(), python.signalstatus) == (5, 5, None)
    assert "äää 42" in log.getvalue()


def test_time_limits_say_what_came(python: spawn) -> None:
    python.send("'never'")
    with pytest.raises(pexpect.TIMEOUT, match=r"before \(last 100 chars\): \"'never'\""):
        python.expect_exact("else", timeout=2)  # in which the echo comes
    assert python.expect_exact(["else", pexpect.TIMEOUT], timeout=0) == 1
    python.sendcontrol("c")
    python.expect_exact("KeyboardInterrupt")
    with pytest.raises(ValueError, match="no key Ctrl-1"):
        python.sendcontrol("1")
    for end in (lambda: python.kill(15), python.terminate, lambda: python.terminate(force=True)):
        with pytest.raises(io.UnsupportedOperation, match="signals"):
            end()
    python.close()
    python.close()
    assert python.closed


DATABASE = "create table fruit (name text, price integer); insert into fruit values ('fig', 3), ('pear', 4);"


def test_a_database_shell(pod: Pod) -> None:
    """sqlite3, where the image has it."""
    if pod.run("command -v sqlite3", shell=True, stdout=kubews.DEVNULL).returncode:
        pytest.skip("there is no sqlite3 in the pod")
    with spawn(pod, ["sqlite3", "-batch", "-interactive"], timeout=seconds(20)) as database:
        database.expect_exact(b"sqlite> ")
        database.sendline(DATABASE)
        database.expect_exact(b"sqlite> ")
        database.sendline("select sum(price) || ' in all' from fruit;")
        database.expect(rb"(\d+) in all\r\n")
        assert database.match[1] == b"7"
        database.sendline(".exit 3")
        assert b".exit 3\r\n" in database.read()
        assert database.wait() == 3


def test_every_byte_and_its_log(pod: Pod) -> None:
    log = io.BytesIO()
    every = bytes(range(256))
    script = "stty raw -echo; echo ready; head -c 256 | od -An -v -tu1 -w256; kill -9 $$"
    with spawn(pod, "sh", ["-c", script], timeout=seconds(20), logfile=log) as it:
        it.expect_exact(b"ready")
        it.write(every)
        it.expect_exact(" ".join(f"{byte:3}" for byte in every).encode())
        it.expect(pexpect.EOF)
        assert it.wait() == 137
    assert every in log.getvalue()


def test_an_unknown_end_is_no_end_r3(pod: Pod, local: LocalCluster) -> None:
    """R-3: a lost connection is ConnectionLost, and never pexpect.EOF; nor is what could not start."""
    local.next_faults(Faults(match="/exec", no_status=True))
    with spawn(pod, ["echo", "last words"], timeout=seconds(20)) as it:
        with pytest.raises(kubews.ConnectionLost):
            it.expect([b"nothing like it", pexpect.EOF])
        assert b"last words" in it.before
    with spawn(pod, ["/no/such/program"], timeout=seconds(20)) as it:
        with pytest.raises(kubews.ExecError, match="/no/such/program"):
            it.expect(pexpect.EOF)


def test_its_descriptor_can_be_waited_for(pod: Pod) -> None:
    """What asyncio and others wait with."""
    import select

    with spawn(pod, ["sh", "-c", "read x; echo got $x"], timeout=seconds(20)) as it:
        assert not select.select([it], [], [], 0)[0]
        it.sendline("it")
        assert select.select([it], [], [], seconds(20))[0]
        it.expect_exact(b"got it")
        assert eventually(lambda: not it.isalive())


def test_without_pexpect_it_says_what_to_install(cluster: AnyCluster) -> None:
    script = "import sys; sys.modules['pexpect'] = None; import kubews.terminal, kubews.expect"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=seconds(20)
    )
    assert "ImportError: kubews.expect needs pexpect: pip install pexpect" in done.stderr
