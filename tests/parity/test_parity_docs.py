"""R-48: the examples of the subprocess page of the library reference, after changing only the import.

Where an example has a local program or file of its own, a command that says as much stands for it.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from support import seconds


def test_using_the_subprocess_module(sp: Any) -> None:
    done = sp.run(["ls", "-l"])  # doesn't capture output
    assert done == done
    assert repr(done) == "CompletedProcess(args=['ls', '-l'], returncode=0)"
    with pytest.raises(sp.CalledProcessError) as caught:
        sp.run("exit 1", shell=True, check=True)
    assert str(caught.value) == "Command 'exit 1' returned non-zero exit status 1."
    done = sp.run(["ls", "-l", "/dev/null"], capture_output=True)
    assert done.returncode == 0
    assert done.stdout.startswith(b"crw-rw-rw-")
    assert done.stderr == b""
    assert repr(done).startswith(
        "CompletedProcess(args=['ls', '-l', '/dev/null'], returncode=0, stdout=b'crw-rw-rw-"
    )


def test_shlex_tells_how_to_split(sp: Any) -> None:
    args = shlex.split("printf '%s ' -input 'some file.txt' -cmd \"echo '$MONEY'\"")
    with sp.Popen(args, stdout=sp.PIPE) as p:
        assert p.stdout.read() == b"-input some file.txt -cmd echo '$MONEY' "


def test_popen_as_a_context_manager(sp: Any) -> None:
    with sp.Popen(["ifconfig || echo none"], shell=True, stdout=sp.PIPE) as proc:
        assert proc.stdout.read()
    assert proc.returncode == 0


def test_check_output(sp: Any) -> None:
    assert sp.check_output(["echo", "Hello World!"]) == b"Hello World!\n"
    assert sp.check_output(["echo", "Hello World!"], universal_newlines=True) == "Hello World!\n"
    with pytest.raises(sp.CalledProcessError, match="returned non-zero exit status 1"):
        sp.check_output("exit 1", shell=True)
    output = sp.check_output("ls non_existent_file; exit 0", stderr=sp.STDOUT, shell=True)
    assert b"non_existent_file" in output


@pytest.mark.half_close
def test_check_output_with_input(sp: Any) -> None:
    output = sp.check_output(
        ["sed", "-e", "s/foo/bar/"], input=b"when in the course of fooman events\n"
    )
    assert output == b"when in the course of barman events\n"


def test_communicate_with_a_timeout_and_cleanup(killing: Any) -> None:
    sp = killing
    proc = sp.Popen(["sleep", "20"], stdout=sp.PIPE, stderr=sp.PIPE)
    try:
        _outs, _errs = proc.communicate(timeout=seconds(0.2))
        raise AssertionError("it should still run")
    except sp.TimeoutExpired:
        proc.kill()
        outs, errs = proc.communicate()
    assert (outs, errs) == (b"", b"")
    assert proc.returncode


def test_replacing_shell_command_substitution(sp: Any) -> None:
    """output=$(mycmd myarg)"""
    assert sp.check_output(["echo", "myarg"]) == b"myarg\n"


@pytest.mark.half_close
def test_replacing_a_shell_pipeline(sp: Any) -> None:
    """output=$(dmesg | grep hda)"""
    p1 = sp.Popen(["printf", "sda\\nhda1\\nhda2\\n"], stdout=sp.PIPE)
    p2 = sp.Popen(["grep", "hda"], stdin=p1.stdout, stdout=sp.PIPE)
    p1.stdout.close()  # Allow p1 to receive a SIGPIPE if p2 exits.
    assert p2.communicate()[0] == b"hda1\nhda2\n"
    assert (p1.wait(seconds(20)), p2.wait(seconds(20))) == (0, 0)
    assert sp.check_output("printf 'sda\nhda\n' | grep hda", shell=True) == b"hda\n"


@pytest.mark.half_close
def test_a_pipeline_of_which_the_first_has_more_to_say(sp: Any) -> None:
    with sp.Popen(["seq", "30000"], stdout=sp.PIPE) as p1:
        with sp.Popen(["tail", "-n", "1"], stdin=p1.stdout, stdout=sp.PIPE) as p2:
            p1.stdout.close()
            assert p2.communicate(timeout=seconds(20)) == (b"30000\n", None)
    assert p1.returncode == 0


def test_replacing_os_system(sp: Any) -> None:
    """sts = os.system("mycmd" + " myarg")"""
    assert sp.call("true" + " myarg", shell=True) == 0
    assert sp.call("exit" + " 3", shell=True) == 3
    told = []
    try:
        retcode = sp.call("exit" + " 3", shell=True)
        if retcode < 0:
            told.append(f"Child was terminated by signal {-retcode}")
        else:
            told.append(f"Child returned {retcode}")
    except OSError as e:
        told.append(f"Execution failed: {e}")
    assert told == ["Child returned 3"]


def test_replacing_os_spawn(sp: Any) -> None:
    """os.spawnlp(os.P_WAIT, "/bin/mycmd", "mycmd", "myarg"), and with an environment"""
    assert sp.call(["/bin/ls", "/dev/null"], stdout=sp.DEVNULL) == 0
    command = ["/bin/sh", "-c", "echo $PATH"]
    with sp.Popen(command, env={"PATH": "/usr/bin"}, stdout=sp.PIPE) as p:
        assert p.communicate() == (b"/usr/bin\n", None)


@pytest.mark.half_close
def test_replacing_os_popen(sp: Any) -> None:
    """(child_stdin, child_stdout_and_stderr) = os.popen4(cmd, mode, bufsize)"""
    # On its way out of a pod each channel may overtake the other.
    script = "cat; sleep 0.1; echo e >&2"
    p = sp.Popen(
        script, shell=True, stdin=sp.PIPE, stdout=sp.PIPE, stderr=sp.STDOUT, close_fds=True
    )
    with p:
        child_stdin, child_stdout_and_stderr = (p.stdin, p.stdout)
        child_stdin.write(b"text\n")
        child_stdin.close()
        assert child_stdout_and_stderr.read() == b"text\ne\n"

    process = sp.Popen("cat", stdin=sp.PIPE, shell=True)
    process.stdin.close()
    if process.wait() != 0:
        raise AssertionError("There were some errors")


def test_replacing_popen2(sp: Any) -> None:
    """(child_stdout, child_stdin) = popen2.popen2(["mycmd", "myarg"], bufsize, mode)"""
    with sp.Popen(["echo", "x"], bufsize=4096, stdin=sp.PIPE, stdout=sp.PIPE, close_fds=True) as p:
        child_stdout = p.stdout
        assert child_stdout.read() == b"x\n"
        p.wait()


def test_legacy_shell_invocation(sp: Any) -> None:
    assert sp.getstatusoutput("ls /bin/ls") == (0, "/bin/ls")
    code, output = sp.getstatusoutput("cat /bin/junk")
    assert code == 1
    assert "/bin/junk" in output
    assert sp.getstatusoutput("/bin/junk")[0] == 127
    assert sp.getoutput("ls /bin/ls") == "/bin/ls"


def test_converting_an_argument_sequence_is_not_needed(sp: Any) -> None:
    strange = ['a"b', "c\\d", "e f", "", "$(g)", "'"]
    assert sp.check_output(["printf", "%s|", *strange], text=True) == "|".join(strange) + "|"
