"""The argument vector that goes to the container."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from kubews.command import command, cure


@pytest.mark.parametrize(
    ("args", "options", "expected"),
    [
        (["ls", "-l"], {}, ["ls", "-l"]),
        ((PurePosixPath("/bin/ls"), b"-l"), {}, ["/bin/ls", "-l"]),
        (PurePosixPath("/bin/ls"), {}, ["/bin/ls"]),
        (["a=b"], {"env": {"C": "d"}}, ["env", "C=d", "sh", "-c", 'exec "$@"', "sh", "a=b"]),
        ("ls | wc", {"shell": True}, ["sh", "-c", "ls | wc"]),
        (b"ls | wc", {"shell": True}, ["sh", "-c", "ls | wc"]),
        (["echo $1", "sh", "x"], {"shell": True}, ["sh", "-c", "echo $1", "sh", "x"]),
        (["a"], {"env": {"B": "c d", "E": ""}}, ["env", "B=c d", "E=", "a"]),
        (["a"], {"env": {}}, ["a"]),
        (
            ["a", "b"],
            {"cwd": "/d"},
            ["sh", "-c", 'cd -- "$1" || exit 127; shift; exec "$@"', "sh", "/d", "a", "b"],
        ),
    ],
)
def test_vectors(args, options, expected) -> None:
    assert command(args, **options) == expected


def test_env_is_outside_cwd() -> None:
    argv = command(["a"], cwd="-d", env={"B": "c"})
    assert argv[:3] == ["env", "B=c", "sh"]
    assert argv[-2:] == ["-d", "a"]


@pytest.mark.parametrize("args", ["", "ls", b"ls -l"])
def test_a_string_is_refused_with_the_cure_r55(args) -> None:
    """R-55."""
    with pytest.raises(TypeError, match="shell=True"):
        command(args)


@pytest.mark.parametrize("args", [[1], None, 5, [["nested"]]])
def test_what_is_no_list_of_strings(args) -> None:
    with pytest.raises(TypeError, match="list of strings"):
        command(args)


@pytest.mark.parametrize(
    ("args", "options", "says"),
    [
        ([], {}, "empty"),
        (["a\0b"], {}, "null byte"),
        (["a"], {"env": {"": "x"}}, "environment variable"),
        (["a"], {"env": {"A=B": "x"}}, "environment variable"),
        (["a"], {"cwd": "/a\0"}, "null byte"),
    ],
)
def test_what_no_process_can_have(args, options, says) -> None:
    with pytest.raises(ValueError, match=says):
        command(args, **options)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ('exec: "sh": executable file not found in $PATH: unknown', "need sh"),
        ("executable file `env` not found in $PATH: No such file or directory", "needs env"),
        ('exec: "bash": executable file not found in $PATH: unknown', ""),
        ('exec: "sh": permission denied', ""),
    ],
)
def test_what_runc_and_crun_say_of_an_image_without_a_shell(message, says) -> None:
    assert says in cure(message)
    assert bool(says) == bool(cure(message))
