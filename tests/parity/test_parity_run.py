"""R-48: run and its relatives, argument by argument, as subprocess has them."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import pytest
from support import eventually, seconds

SAY = "printf out; printf err >&2; exit 3"


def test_a_list_a_tuple_and_paths(sp: Any) -> None:
    for args in (
        ["printf", "%s-", "a b", "$HOME"],
        ("printf", "%s-", "a b", "$HOME"),
        [pathlib.PurePosixPath("printf"), b"%s-", "a b", "$HOME"],
    ):
        done = sp.run(args, stdout=sp.PIPE)
        assert done.stdout == b"a b-$HOME-"
        assert done.args == args
        assert done.returncode == 0
        assert isinstance(done, subprocess.CompletedProcess)


def test_a_path_alone_is_a_program(sp: Any) -> None:
    assert sp.run(pathlib.PurePosixPath("true")).returncode == 0


def test_shell(sp: Any) -> None:
    for command in ("echo $((1 + 1)) | tr 2 3", b"echo $((1 + 1)) | tr 2 3"):
        done = sp.run(command, shell=True, stdout=sp.PIPE)
        assert done.stdout == b"3\n"
        assert done.args == command
    # Of a list all but the first are arguments of the shell itself.
    assert sp.check_output(["echo $0 $1", "zero", "one"], shell=True) == b"zero one\n"
    assert sp.call("exit 5", shell=True) == 5


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
def test_exit_codes(sp: Any, code: int) -> None:
    assert sp.run(["sh", "-c", f"exit {code}"]).returncode == code
    assert sp.call(["sh", "-c", f"exit {code}"]) == code


def test_capture_output(sp: Any) -> None:
    done = sp.run(["sh", "-c", SAY], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out", b"err")
    with pytest.raises(subprocess.CalledProcessError):
        done.check_returncode()
    nothing = sp.run(["sh", "-c", SAY], stdout=sp.DEVNULL, stderr=sp.DEVNULL)
    assert (nothing.stdout, nothing.stderr) == (None, None)
    for options in ({"stdout": sp.PIPE}, {"stderr": sp.PIPE}):
        with pytest.raises(
            ValueError, match="stdout and stderr arguments may not be used with capture_output"
        ):
            sp.run(["true"], capture_output=True, **options)


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ("PIPE", "PIPE", (b"out", b"err")),
        ("PIPE", "STDOUT", (b"outerr", None)),
        ("PIPE", "DEVNULL", (b"out", None)),
        ("DEVNULL", "PIPE", (None, b"err")),
        ("DEVNULL", "STDOUT", (None, None)),
        ("DEVNULL", "DEVNULL", (None, None)),
    ],
)
def test_outputs(sp: Any, stdout: str, stderr: str, expected: tuple[Any, Any]) -> None:
    script = "printf out; sleep 0.1; printf err >&2"
    options = {"stdout": getattr(sp, stdout), "stderr": getattr(sp, stderr)}
    done = sp.run(["sh", "-c", script], **options)
    assert (done.stdout, done.stderr) == expected


def test_outputs_of_none_are_this_processs_own(sp: Any, capfd) -> None:
    assert sp.run(["sh", "-c", SAY]).stdout is None
    assert capfd.readouterr() == ("out", "err")
    sp.run(["sh", "-c", SAY], stdout=sp.PIPE)
    assert capfd.readouterr() == ("", "err")


@pytest.mark.parametrize("by", ["file", "descriptor", "text file", "appended"])
def test_output_to_a_file(sp: Any, tmp_path, by: str) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old;")
    mode = {"text file": "w", "appended": "ab"}.get(by, "wb")
    with open(target, mode) as file:
        if by == "file":
            file.write(b"first;")  # buffered, and yet before what the command writes
            file.flush()
        given = file.fileno() if by == "descriptor" else file
        done = sp.run(["sh", "-c", "printf 1; sleep 0.1; printf 2 >&2"], stdout=given, stderr=given)
        assert done.stdout is None
        assert not file.closed
    before = {"file": b"first;", "appended": b"old;"}.get(by, b"")
    assert target.read_bytes() == before + b"12"


def test_output_and_error_to_one_file(sp: Any, tmp_path) -> None:
    with open(tmp_path / "out", "wb") as file:
        sp.run(["sh", "-c", "printf 1; sleep 0.1; printf 2 >&2"], stdout=file, stderr=sp.STDOUT)
    assert (tmp_path / "out").read_bytes() == b"12"
    with open(tmp_path / "error", "wb") as file:
        done = sp.run(["sh", "-c", SAY], stdout=sp.PIPE, stderr=file)
    assert done.stdout == b"out"
    assert (tmp_path / "error").read_bytes() == b"err"


def test_input_that_is_empty(sp: Any) -> None:
    assert sp.run(["cat"], input=b"", stdout=sp.PIPE).stdout == b""
    assert sp.check_output(["cat"], input="", text=True) == ""


@pytest.mark.half_close
def test_input(sp: Any) -> None:
    assert sp.run(["cat"], input=b"data", stdout=sp.PIPE).stdout == b"data"
    assert sp.run(["cat"], input=bytearray(b"data"), capture_output=True).stdout == b"data"
    assert sp.check_output(["cat"], input=memoryview(b"data")) == b"data"
    assert sp.check_output(["cat"], input="é\n", text=True) == "é\n"
    assert sp.check_output(["wc", "-c"], input="é", encoding="latin-1").strip() == "1"
    with pytest.raises(ValueError, match="stdin and input arguments may not both be used"):
        sp.run(["cat"], input=b"x", stdin=sp.PIPE)


@pytest.mark.half_close
def test_input_larger_than_every_buffer_r16(sp: Any) -> None:
    """R-16: input and output move at the same time."""
    data = os.urandom(1 << 20) * 8
    done = sp.run(["cat"], input=data, stdout=sp.PIPE, timeout=seconds(25))
    assert done.stdout == data


@pytest.mark.half_close
def test_input_that_nobody_wants(sp: Any) -> None:
    """More than a pipe takes, and no more than containerd can forget: see the README's limits."""
    assert sp.run(["sh", "-c", "exit 6"], input=b"x" * 100_000).returncode == 6


@pytest.mark.half_close
def test_stdin_from_a_file(sp: Any, tmp_path) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"one\ntwo\n")
    with open(source, "rb") as file:
        assert sp.check_output(["cat"], stdin=file) == b"one\ntwo\n"
        assert not file.closed
    with open(source) as file:
        assert sp.check_output(["cat"], stdin=file.fileno()) == b"one\ntwo\n"
    with open(source, "rb", buffering=0) as file:
        assert file.read(4) == b"one\n"
        assert sp.check_output(["cat"], stdin=file) == b"two\n"
    read, write = os.pipe()
    os.write(write, b"through a pipe")
    os.close(write)
    with open(read, "rb") as file:
        assert sp.check_output(["cat"], stdin=file) == b"through a pipe"


def test_stdin_of_devnull_is_at_its_end(sp: Any) -> None:
    assert sp.check_output(["cat"], stdin=sp.DEVNULL) == b""


def test_text_in_all_its_forms(sp: Any) -> None:
    args = ["printf", "a\\r\\nb\\303\\251"]
    for options in ({"text": True}, {"universal_newlines": True}, {"encoding": "utf-8"}):
        assert sp.check_output(args, **options) == "a\nbé"
    for options in ({}, {"text": False}, {"universal_newlines": False}, {"text": None}):
        assert sp.check_output(args, **options) == b"a\r\nb\xc3\xa9"
    assert sp.check_output(args, encoding="latin-1") == "a\nbÃ©"
    assert sp.check_output(args, encoding="ascii", errors="ignore") == "a\nb"
    assert sp.check_output(args, encoding="ascii", errors="backslashreplace") == "a\nb\\xc3\\xa9"
    with pytest.raises(UnicodeDecodeError):
        sp.check_output(args, encoding="ascii")
    for none in ("no-such-encoding", "rot13", "hex"):
        with pytest.raises(LookupError):
            sp.check_output(args, encoding=none)
    done = sp.run(["sh", "-c", SAY], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("out", "err")


def test_check(sp: Any) -> None:
    assert sp.run(["true"], check=True).returncode == 0
    assert sp.check_call(["true"]) == 0
    with pytest.raises(subprocess.CalledProcessError) as caught:
        sp.run(["sh", "-c", SAY], check=True, capture_output=True)
    error = caught.value
    assert isinstance(error, sp.CalledProcessError)
    assert isinstance(error, subprocess.SubprocessError)
    assert error.cmd == ["sh", "-c", SAY]
    assert (error.returncode, error.stdout, error.stderr) == (3, b"out", b"err")
    assert error.output == b"out"
    assert str(error) == f"Command '{['sh', '-c', SAY]}' returned non-zero exit status 3."
    with pytest.raises(sp.CalledProcessError, match="exit status 1"):
        sp.check_call(["false"])
    with pytest.raises(sp.CalledProcessError) as caught:
        sp.check_output("printf out; exit 4", shell=True, text=True)
    assert (caught.value.returncode, caught.value.output) == (4, "out")
    assert caught.value.cmd == "printf out; exit 4"


def test_exceptions_can_be_pickled(sp: Any) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        sp.run(["sh", "-c", SAY], check=True, capture_output=True)
    twin = pickle.loads(pickle.dumps(failed.value))
    assert vars(twin) == vars(failed.value)
    assert str(twin) == str(failed.value)
    late = sp.TimeoutExpired(["x"], 1.5, b"out", b"err")
    assert vars(pickle.loads(pickle.dumps(late)))["cmd"] == ["x"]
    done = sp.run(["true"], stdout=sp.PIPE)
    assert vars(pickle.loads(pickle.dumps(done))) == vars(done)


def test_timeout(sp: Any, enough: float) -> None:
    args = ["sh", "-c", "printf early; printf warning >&2; exec sleep 20"]
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        sp.run(args, capture_output=True, timeout=enough)
    error = caught.value
    assert isinstance(error, sp.TimeoutExpired)
    assert error.cmd == args
    assert error.timeout == enough
    assert (error.stdout, error.output, error.stderr) == (b"early", b"early", b"warning")
    assert str(error) == f"Command '{args}' timed out after {enough} seconds"
    for call in (sp.call, sp.check_call, sp.check_output):
        with pytest.raises(sp.TimeoutExpired):
            call(["sleep", "20"], timeout=seconds(0.3))
    assert sp.run(["true"], timeout=seconds(20)).returncode == 0


def test_a_timeout_ends_the_process_r50(killing: Any, enough: float) -> None:
    with pytest.raises(killing.TimeoutExpired) as caught:
        killing.run(["sh", "-c", "echo $$; exec sleep 1000"], stdout=killing.PIPE, timeout=enough)
    look = 'read -r line <"/proc/$1/stat" && case ${line##*)} in " Z"*) false ;; esac'
    pid = str(int(caught.value.stdout))
    assert eventually(
        lambda: killing.call(["sh", "-c", look, "sh", pid], stderr=killing.DEVNULL) != 0
    )


def test_the_output_of_a_timeout_is_bytes_in_text_mode_too(sp: Any, enough: float) -> None:
    with pytest.raises(sp.TimeoutExpired) as caught:
        sp.run(
            ["sh", "-c", "printf early; exec sleep 20"],
            stdout=sp.PIPE,
            text=True,
            timeout=enough,
        )
    assert caught.value.stdout == b"early"


def test_cwd(sp: Any) -> None:
    assert sp.check_output(["pwd"], cwd="/usr") == b"/usr\n"
    assert sp.check_output(["pwd"], cwd=pathlib.PurePosixPath("/usr")) == b"/usr\n"
    assert sp.check_output("pwd", shell=True, cwd=b"/usr") == b"/usr\n"


def test_env_values(sp: Any) -> None:
    env = {"PATH": os.defpath, "ONE": "a b=c", "EMPTY": "", "LETTERS": "é\n$HOME"}
    script = 'printf "%s|" "$ONE" "$EMPTY" "$LETTERS"'
    assert sp.check_output(["sh", "-c", script], env=env, text=True) == "a b=c||é\n$HOME|"
    with pytest.raises(ValueError, match="environment variable"):
        sp.run(["true"], env={"A=B": "c"})


def test_arguments_that_cannot_be(sp: Any) -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        sp.run(["echo", "a\0b"])
    with pytest.raises(TypeError):
        sp.run(["echo", 5])
    with pytest.raises(TypeError):
        sp.run([["echo"]])
    with pytest.raises(TypeError):
        sp.run()
    with pytest.raises(TypeError, match="no_such_argument"):
        sp.run(["true"], no_such_argument=1)
    with pytest.raises(TypeError, match="bufsize must be an integer"):
        sp.Popen(["true"], bufsize="1")
    for options in ({"stdout": sp.PIPE}, {"check": True}):
        # Of check, subprocess says so since 3.11.
        with pytest.raises((ValueError, TypeError), match=r"not allowed|multiple values"):
            sp.check_output(["true"], **options)
    with pytest.raises(
        (subprocess.SubprocessError, ValueError), match="text and universal_newlines"
    ):
        sp.run(["true"], text=True, universal_newlines=False)


def test_a_closed_file_is_refused(sp: Any, tmp_path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        pass
    for name in ("stdin", "stdout", "stderr"):
        with pytest.raises(ValueError, match="closed file"):
            sp.run(["true"], **{name: file})
        with pytest.raises((AttributeError, TypeError)):
            sp.run(["true"], **{name: object()})
        with pytest.raises(OSError):
            sp.run(["true"], **{name: 987654})


def test_getoutput(sp: Any) -> None:
    script = "printf 'a\n'; sleep 0.1; printf 'b\n\n' >&2; exit 5"
    assert sp.getstatusoutput(script) == (5, "a\nb\n")
    assert sp.getoutput(script) == "a\nb\n"
    assert sp.getstatusoutput("true") == (0, "")
    if sp is not subprocess or sys.version_info >= (3, 11):
        assert sp.getoutput("printf é", encoding="utf-8") == "é"
