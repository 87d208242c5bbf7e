"""R-29, R-37: requests, exec and port-forward go through real proxies, and arrive byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from faults import Relay
from proxying import KINDS, PASSWORD, USER, RealProxy
from support import echo, eventually, in_thread, seconds, unused_port

from kubews import DEVNULL, PIPE, Client, Config, ConnectFailed, ConnectionLost, Pod
from kubews.config.cluster import Cluster
from kubews.errors import ServerError
from kubews.testing import LocalCluster

#: A server in the pod that prints its port and echoes a mebibyte.
ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, left = listener.accept()[0], 1 << 20
while left:
    data = sock.recv(65536)
    sock.sendall(data)
    left -= len(data)
"""


@pytest.fixture
def behind(client: Client, proxy: RealProxy, nothing_left_behind: None) -> Iterator[Pod]:
    """The pod, through a proxy."""
    with Client(client.config, proxy_url=proxy.url()) as proxied:
        yield proxied.pod("web-0")


# -- what works


def test_requests_and_streams_take_the_same_way_r37(client: Client, proxy: RealProxy) -> None:
    with (
        Relay(proxy.address) as relay,
        Client(client.config, proxy_url=proxy.url(relay.address[1])) as proxied,
    ):
        assert proxied.get("/version")["major"] == "1"
        first = len(relay.from_client)
        assert first > 100
        assert proxied.pod("web-0").check_output(["echo", "hello"]) == b"hello\n"
        assert len(relay.from_client) > first + 100
    starts = {"http": b"CONNECT ", "https": b"\x16\x03", "socks5": b"\x05"}
    assert relay.from_client.startswith(starts[proxy.scheme])
    if proxy.scheme == "http":
        assert relay.from_client.count(b"CONNECT ") == 2


@pytest.mark.half_close
def test_exec_is_exact_both_ways_r29(behind: Pod) -> None:
    echo(behind, 4 << 20, 1 << 16)
    assert behind.call(["sh", "-c", "exit 3"]) == 3


@pytest.mark.half_close
def test_tls_inside_tls_carries_much_both_ways_r29(client: Client, https_proxy: RealProxy) -> None:
    with Client(client.config, proxy_url=https_proxy.url()) as proxied:
        echo(proxied.pod("web-0"), 64 << 20, 1 << 16)


def test_port_forward_is_exact_both_ways_r29(behind: Pod) -> None:
    block = os.urandom(1 << 20)
    command = ["timeout", "60", "python3", "-u", "-c", ECHO]
    with behind.popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
        with behind.connect(int(process.stdout.readline()), timeout=seconds(10)) as sock:
            sending = in_thread(sock.sendall, block)
            received = bytearray()
            while len(received) < len(block):
                received += sock.recv(65536)
            sending.result()
            assert received == block
        assert process.wait(seconds(20)) == 0


def test_what_a_pod_serves_is_exact_both_ways_r29(behind: Pod) -> None:
    port = unused_port()
    script = (Path(__file__).parent.parent / "web_server.py").read_text()
    command = ["timeout", "60", "python3", "-c", script, str(port)]
    with behind.popen(command, stdin=DEVNULL, signals=True) as server:

        def answers() -> bool:
            with (
                contextlib.suppress(ServerError),
                behind.request("GET", "/echo", port=port) as answer,
            ):
                return answer.status == 200
            return False

        assert eventually(answers, 20)
        block = os.urandom(1 << 20)
        said = behind.request("PUT", "/echo", port=port, body=io.BytesIO(block)).json()
        assert said["sha256"] == hashlib.sha256(block).hexdigest()
        assert len(behind.request("GET", f"/bytes?n={1 << 20}", port=port).read()) == 1 << 20
        with contextlib.closing(behind.websocket("/chat", port=port, timeout=seconds(10))) as chat:
            assert chat.recv() == "hello, you"
            sending = in_thread(chat.send_binary, block)
            assert chat.recv() == block
            sending.result()
        server.terminate()


@pytest.mark.half_close
def test_what_cannot_be_sent_waits_and_comes_whole(client: Client, tight_proxy: RealProxy) -> None:
    """The command reads nothing until nothing moves any more."""
    data = os.urandom(1 << 16) * 768  # more than the kernel holds on the way
    written = 0

    def write() -> None:
        nonlocal written
        for start in range(0, len(data), 1 << 16):
            process.stdin.write(data[start : start + (1 << 16)])
            written = start + (1 << 16)
        process.stdin.close()

    def stalled() -> bool:
        before = written
        time.sleep(0.1)
        return written == before > 0

    with Client(client.config, proxy_url=tight_proxy.url()) as proxied:
        pod = proxied.pod("web-0")
        go = f"go-{os.urandom(8).hex()}"
        command = f"until [ -e {go} ]; do sleep 0.02; done; rm {go}; exec sha256sum"
        with pod.popen(command, shell=True, stdin=PIPE, stdout=PIPE) as process:
            writing = in_thread(write)
            assert eventually(stalled, 20)
            assert writing.running
            pod.check_call(["touch", go])
            writing.result(30)
            digest = process.stdout.read().split()[0].decode()
            assert process.wait(seconds(10)) == 0
    assert digest == hashlib.sha256(data).hexdigest()


def test_what_is_not_read_waits_and_comes_whole(client: Client, tight_proxy: RealProxy) -> None:
    """A pause of the reader stops the sender through both TLS, and loses nothing."""
    with Client(client.config, proxy_url=tight_proxy.url()) as proxied:
        pod = proxied.pod("web-0")
        with pod.popen(["seq", "2000000"], stdout=PIPE) as process:
            connection = process._session.connection
            assert eventually(lambda: connection.pipes[1].size >= 4 << 20, 20)
            received = hashlib.sha256(process.stdout.read())
            assert process.wait(seconds(10)) == 0
    numbers = "".join(f"{number}\n" for number in range(1, 2_000_001))
    assert received.digest() == hashlib.sha256(numbers.encode()).digest()


@pytest.mark.half_close
def test_what_comes_is_read_while_nothing_can_be_sent(
    client: Client, tight_proxy: RealProxy
) -> None:
    """The command writes first and reads then, so what is sent to it waits in both TLS."""
    command = ["sh", "-c", "head -c 20000000 /dev/zero; wc -c"]
    with Client(client.config, proxy_url=tight_proxy.url()) as proxied:
        pod = proxied.pod("web-0")
        done = pod.run(command, input=bytes(10 << 20), capture_output=True, timeout=seconds(30))
    assert len(done.stdout.rstrip(b"\n").strip(b"0123456789")) == 20_000_000
    assert done.stdout.split(b"\0")[-1].split() == [str(10 << 20).encode()]


# -- what breaks


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_proxy_that_dies_takes_everything_along(client: Client, kind: str) -> None:
    command = ["timeout", "60", "python3", "-u", "-c", ECHO]
    with KINDS[kind]() as proxy, Client(client.config, proxy_url=proxy.url()) as proxied:
        pod = proxied.pod("web-0")
        with pytest.raises(ConnectionLost):
            with pod.popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
                with pod.connect(int(process.stdout.readline()), timeout=seconds(10)) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
                    proxy.close()
                    with pytest.raises(ConnectionError):
                        sock.recv(1)
                process.wait(seconds(10))
        # Another process of it may still be about to die, and take along what it has just accepted.
        with pytest.raises(ConnectFailed, match=f"the proxy {proxy.scheme}://"):
            proxied.get("/version")


@pytest.mark.parametrize("cut", ["reset", "fin"])
def test_a_proxy_that_dies_in_the_middle_of_the_bytes(
    client: Client, https_proxy: RealProxy, cut: str
) -> None:
    with Relay(https_proxy.address, cut_after=1 << 20, cut=cut) as relay:
        with Client(client.config, proxy_url=https_proxy.url(relay.address[1])) as proxied:
            with pytest.raises(ConnectionLost) as caught:
                proxied.pod("web-0").check_output(["head", "-c", "9000000", "/dev/zero"])
    # A reset takes along what the kernel has and nobody has read yet.
    least = 500_000 if cut == "fin" else 0
    assert least <= caught.value.received.get("stdout", 0) < 1 << 20


# -- where it comes from


def nickname(config: Config) -> Cluster:
    """Name the cluster as a proxy can resolve it, and Go takes it for no address: not for loopback."""
    cluster = config.cluster
    server = f"https://127.1:{cluster.port}"
    return dataclasses.replace(cluster, server=server, tls_server_name="localhost")


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("http", "http"), ("https", "https"), ("socks5", "socks5"), ("socks5", "socks5h")],
)
def test_the_environment_names_the_proxy_r29(
    request: pytest.FixtureRequest,
    local: LocalCluster,
    client: Client,
    kind: str,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = request.getfixturevalue(f"{kind}_proxy")
    config = dataclasses.replace(client.config, cluster=nickname(client.config))
    with Relay(proxy.address) as relay, Client(config) as proxied:
        monkeypatch.setenv("https_proxy", proxy.url(relay.address[1], scheme=scheme))
        assert proxied.pod("web-0").check_output(["echo", "1"]) == b"1\n"
        assert proxied.get("/version")["major"] == "1"
        seen = len(relay.from_client)
        assert seen > 100
        # And now without.
        monkeypatch.setenv("no_proxy", "example.com,127.1")
        assert proxied.pod("web-0").check_output(["echo", "1"]) == b"1\n"
        assert len(relay.from_client) == seen


def test_loopback_is_never_proxied_from_the_environment_r29(
    local: LocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert client.get("/version")["major"] == "1"
    # A proxy-url does without such exceptions.
    monkeypatch.setenv("NO_PROXY", "*")
    with Client(client.config, proxy_url="http://127.0.0.1:9") as proxied:
        with pytest.raises(ConnectFailed, match="cannot connect to the proxy http"):
            proxied.get("/version")


def test_nothing_shows_the_credentials_of_a_proxy(
    client: Client, proxy: RealProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(client.config, proxy_url=proxy.url()) as proxied:
        proxied.pod("web-0").check_call(["true"])
        shown = [repr(proxied), repr(proxied.config), repr(proxied.config.cluster), caplog.text]
    assert f"through the proxy {proxy.scheme}://127.0.0.1:{proxy.port} (proxy-url" in caplog.text
    for text in shown:
        for secret in (USER, PASSWORD, quote(USER, safe=""), quote(PASSWORD, safe="")):
            assert secret not in text
