"""Real services in a pod, each with its ordinary client."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator

import pytest
from support import eventually, put, seconds, unused_port

import kubews
from kubews import DEVNULL, Pod


def needs(pod: Pod, program: str) -> None:
    """Skip where the pod has no such program: those of LocalCluster have what this machine has."""
    if pod.run(["sh", "-c", f"command -v {program}"], stdout=DEVNULL).returncode:
        pytest.skip(f"there is no {program} in the pod")


@contextlib.contextmanager
def running(pod: Pod, command: list[str], stop: str) -> Iterator[None]:
    """Run a service until the end of the block; ``stop`` is a line of shell that ends it."""
    command = ["timeout", "100", *command]
    with pod.popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            yield
        finally:
            pod.run(stop, shell=True, stdout=DEVNULL, stderr=DEVNULL)
            process.wait(seconds(20))


def test_redis_without_a_local_port(pod: Pod, protocol: str) -> None:
    import redis

    needs(pod, "redis-server")
    port = unused_port()

    class Connection(redis.Connection):
        def _connect(self) -> kubews.PodSocket:
            return pod.connect(port, timeout=seconds(10))

    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    with running(pod, command, f"redis-cli -p {port} shutdown nosave"):
        pool = redis.ConnectionPool(connection_class=Connection)

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError, ConnectionError):
                return bool(redis.Redis(connection_pool=pool).ping())
            return False

        assert eventually(answers, 10)
        with redis.Redis(connection_pool=pool) as client:
            value = os.urandom(3_000_000)
            client.set("key", value)
            assert client.get("key") == value
            with client.pipeline() as pipeline:
                for number in range(1000):
                    pipeline.incrby("count", number)
                assert pipeline.execute()[-1] == sum(range(1000))
        pool.disconnect()


def test_nginx_without_a_local_port_and_through_one(pod: Pod, protocol: str) -> None:
    import requests

    needs(pod, "nginx")
    port = unused_port()
    folder = pod.check_output("mktemp -d", shell=True, text=True).strip()
    pod.run(["chmod", "755", folder], check=True)  # workers are nobody
    put(pod, f"{folder}/page", b"hello from nginx")
    config = put(
        pod,
        f"{folder}/nginx.conf",
        f"""daemon off; pid {folder}/nginx-{port}.pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/fast; uwsgi_temp_path {folder}/uw; scgi_temp_path {folder}/sc;
        server {{ listen 127.0.0.1:{port}; root {folder}; }} }}""".encode(),
    )
    with running(pod, ["nginx", "-c", config], f"kill $(cat {folder}/nginx-{port}.pid)"):
        with pod.forward(port) as forward:

            def answers() -> bool:
                with contextlib.suppress(OSError):
                    return urllib.request.urlopen(f"{forward.url}/page").status == 200
                return False

            assert eventually(answers, 10)
            with requests.Session() as session:
                for _ in range(20):
                    response = session.get(f"{forward.url}/page", timeout=seconds(10))
                    assert response.content == b"hello from nginx"
        connection = http.client.HTTPConnection("web-0")
        with pod.connect(port, timeout=seconds(10)) as connection.sock:
            for _ in range(3):
                connection.request("GET", "/page")
                assert connection.getresponse().read() == b"hello from nginx"


def test_postgresql_through_a_local_port(pod: Pod, protocol: str) -> None:
    """libpq takes no socket, only an address."""
    needs(pod, "initdb")
    port = unused_port()
    with tempfile.TemporaryDirectory(prefix="kubews-pg-") as folder:
        os.chmod(folder, 0o777)
        data = f"{folder}/data"
        # PostgreSQL refuses to run as root.
        lower = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        pod.run(
            [*lower, "initdb", "-D", data, "-A", "trust", "-U", "kubews", "-N"],
            cwd=folder,
            stdout=DEVNULL,
            check=True,
        )
        command = [*lower, "postgres", "-D", data, "-p", str(port), "-k", folder, "-F"]
        with running(pod, command, f"kill -INT $(head -1 {data}/postmaster.pid)"):
            with pod.forward(port) as forward:

                def psql(statement: str) -> subprocess.CompletedProcess[str]:
                    where = f"host={forward.address} port={forward.local_port} user=kubews dbname=postgres"
                    return subprocess.run(
                        ["psql", "-At", where, "-c", statement],
                        capture_output=True,
                        text=True,
                        timeout=seconds(20),
                    )

                assert eventually(lambda: psql("select 1").stdout == "1\n", 20)
                psql(
                    "create table t as select n, repeat('x', 1000) as text from generate_series(1, 5000) n"
                )
                assert psql("select count(*), sum(length(text)) from t").stdout == "5000|5000000\n"
                assert len(psql("select text from t").stdout) == 5000 * 1001
                assert "does not exist" in psql("select * from nothing").stderr
