"""Images with less in them than most: busybox for everything, or one program and no shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest
from cluster import NOSHELL
from clusters import added

import kubews
from kubews import Client, Pod
from kubews.testing import LocalCluster


class Bare(NamedTuple):
    """A pod without a shell, and what in it prints its arguments."""

    pod: str
    program: list[str]


@pytest.fixture(scope="module")
def bare(cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    """A pod without sh, env and tar."""
    program = ["/bin/echo"] if isinstance(cluster, LocalCluster) else ["/noshell", "args"]
    nothing = tmp_path_factory.mktemp("nothing")
    with added(cluster, "bare", NOSHELL, ["/noshell", "pause"], nothing) as pod:
        yield Bare(pod, program)


@pytest.fixture(params=["web-0", "busybox"])
def each(request: pytest.FixtureRequest, client: Client, nothing_left_behind: None) -> Pod:
    """A pod with a shell: one with coreutils, and one with busybox."""
    name = request.param
    return client.pod(request.getfixturevalue("busybox") if name == "busybox" else name)


def test_env_adds_and_cwd_changes(each: Pod) -> None:
    directory = each.check_output("mkdir -p 'sub dir'; cd 'sub dir'; pwd", shell=True, text=True)
    output = each.check_output(
        ["sh", "-c", 'echo "$NAME"; pwd; echo "$HOSTNAME"'],
        env={"NAME": "a b=c"},
        cwd=PurePosixPath(directory.strip()),
        text=True,
    )
    assert output == f"a b=c\n{directory}{each.name}\n"
    assert each.check_output("pwd", shell=True, cwd="/etc", text=True) == "/etc\n"
    missing = each.run(["true"], cwd="/no/such/directory", capture_output=True, text=True)
    assert "/no/such/directory" in missing.stderr
    assert missing.returncode == 127
    for options in ({"env": {"A": "b"}}, {"cwd": "/"}):
        assert each.run(["/no/such/program"], capture_output=True, **options).returncode == 127


def test_without_a_shell_a_list_runs_and_the_rest_names_the_cure(
    client: Client, bare: Bare, nothing_left_behind: None
) -> None:
    pod = client.pod(bare.pod)
    argv = [*bare.program, "$HOME; a  b"]
    assert pod.check_output(argv) == b"$HOME; a  b\n"
    with pytest.raises(kubews.ExecError, match=r"shell=True, cwd= and .* need sh, .* as a list"):
        pod.run("echo", shell=True)
    with pytest.raises(kubews.ExecError, match=r"need sh, .* without cwd="):
        pod.run(argv, cwd="/")
    with pytest.raises(kubews.ExecError, match=r"need sh, .* and signals="):
        pod.run(argv, signals=True)
    with pytest.raises(kubews.ExecError, match=r"env= needs env, .* in the pod's spec"):
        pod.run(argv, env={"A": "b"})
    # One that the user has named himself needs no explanation.
    with pytest.raises(kubews.ExecError, match=r"not found in \$PATH(: unknown)?$"):
        pod.run(["tar", "--help"])
