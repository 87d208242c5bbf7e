"""Every example and every block of the README runs as it stands."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import AnyCluster
from support import eventually, seconds, unused_port

import kubews
from kubews import DEVNULL, PIPE
from kubews.testing import LocalCluster

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*.py")
    if path.name not in ("fetch_page.py", "redis_in_pod.py")
)
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

SAYS = {
    "quickstart.py": r"returncode 3, stdout 'hello\\n', stderr 'oops\\n'.*"
    r"\['apple', 'fig', 'pear'\].*100,000,000 bytes.*ExecError.*All of it worked\.",
    "streaming.py": r"line 1\nline 2\nline 3\nexit code None\n",
    "backup.py": r"lines of the dump: 100002\nfiles: 1, verified by archive, .*\nrestored: precious\n",
    "http_in_pod.py": r"without a local port: 200\nthrough a local port: 200\nrefused: True\n",
    "python_in_pod.py": r"the sum is 5050\nit sees the new size\nexit code 3\n",
    "log_watcher.py": r"(worker-[01]: disk full\n){2}12 lines, each once; cuts: 1, gaps: 0\n"
    r"ended with exit code 0\nended with exit code 1\n",
    "errors.py": r"exit code 7\ncould not start: InternalError\nrefused: 403\nlost after ",
}


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *args],
        capture_output=True,
        text=True,
        timeout=seconds(180),  # several interpreters, perhaps beside a storm
        cwd=env.pop("CWD", ROOT),
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_do_what_they_say(path: Path) -> None:
    done = python(str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(SAYS[path.name], done.stdout, re.DOTALL), done.stdout


@pytest.mark.half_close
def test_the_quickstart_works_on_a_cluster_of_ones_own(cluster) -> None:
    path = str(ROOT / "examples" / "quickstart.py")
    config = str(cluster.kubeconfig)
    for arguments in (("--kubeconfig", config), ("--context", "kubews")):
        assert python(path, *arguments).returncode == 2
    loaded = kubews.Config.load(config)
    done = python(path, "--context", str(loaded.context), "--pod", "web-0", KUBECONFIG=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Pod web-0 at {loaded.cluster.server}" in done.stdout
    assert done.stdout.endswith("All of it worked.\n")
    done = python(path, "--pod", "nope", "--kubeconfig", config)
    assert done.returncode == 1
    assert 'pods "nope" not found' in done.stderr


def serve_http(cluster: AnyCluster, name: str, port: int) -> None:
    """Add a pod that serves pages at a port; in a LocalCluster another port of this machine is behind it."""
    script = "import http.server as h; h.HTTPServer(('', {}), h.SimpleHTTPRequestHandler).serve_forever()"
    if isinstance(cluster, LocalCluster):
        real = unused_port()
        cluster.add_pod(name, {"app": ["python3", "-c", script.format(real)]}, listens={port: real})
    else:
        cluster.add_pod(name, {"app": ["python3", "-c", script.format(port)]})
    with cluster.client() as client:
        pod = client.pod(name)

        def answers() -> bool:
            with (
                contextlib.suppress(ConnectionError),
                pod.connect(port, timeout=seconds(10)) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return bool(sock.recv(1))
            return False

        assert eventually(answers, 20)


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def pages(cluster: AnyCluster) -> str:
    """The name of a pod with a web server."""
    serve_http(cluster, "web-1", 8080)
    return "web-1"


def test_a_page_is_fetched(cluster: AnyCluster, pages: str) -> None:
    config = {"KUBECONFIG": str(cluster.kubeconfig)}
    done = python("examples/fetch_page.py", pages, "--port", "8080", **config)
    assert (done.returncode, done.stderr) == (0, "200 OK text/html; charset=utf-8\n")
    assert done.stdout.startswith("<!DOCTYPE HTML")
    done = python("examples/fetch_page.py", pages, "/missing", "--port", "8080", **config)
    assert done.returncode == 1
    assert done.stderr.startswith("404 Not Found text/html")


def test_redis_in_a_pod(cluster: AnyCluster, tmp_path: Path) -> None:
    with cluster.client() as client:
        pod = client.pod("web-0")
        if pod.run("command -v redis-server", shell=True, stdout=DEVNULL).returncode:
            pytest.skip("there is no redis-server in the pod")
        command = ["timeout", "30", "redis-server", "--port", "6390", "--save", ""]
        with pod.popen(command, stdin=DEVNULL, stdout=PIPE) as process:
            assert any(b"Ready to accept" in line for line in process.stdout)
            done = python(
                "examples/redis_in_pod.py",
                "--pod",
                "web-0",
                "--port",
                "6390",
                KUBECONFIG=str(cluster.kubeconfig),
            )
            pod.run(["redis-cli", "-p", "6390", "shutdown", "nosave"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from web-0\n", "")


@pytest.mark.half_close
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_of_the_readme_run(
    number: int, cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if '"web-1"' in BLOCKS[number]:
        request.getfixturevalue("pages")
    if '"deploy/web"' in BLOCKS[number]:
        cluster.add_pod("web-7f-x2", {"app": None}, labels={"app": "web"})
        cluster.add_workload("deploy/web", selector={"app": "web"})
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    test_file = "def test_" in BLOCKS[number]
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "CWD": str(tmp_path)}
    done = python(*(arguments if test_file else [str(script)]), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in re.findall(r"# -> (.*)", BLOCKS[number]):
        assert line in done.stdout
