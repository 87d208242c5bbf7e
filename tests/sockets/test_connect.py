"""``pod.connect``: what only a socket into a pod has, and the clients that take it."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from typing import Any

import pytest
from support import eventually, in_thread, seconds

import kubews
from kubews import Client, ConfigError, NotFound, Pod, PortRefused
from kubews.transport import live


def test_what_was_negotiated_and_who_is_there(pod: Pod, server: int, protocol: str) -> None:
    with pod.connect(server, timeout=seconds(10)) as sock:
        assert isinstance(sock, socket.socket)
        assert sock.getpeername() == (pod.name, server)
        assert sock.gettimeout() == seconds(10)
        assert f"{pod.name}:{server}" in repr(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert sock.fileno() == -1
    assert "closed" in repr(sock)


def test_a_refused_port_r42(pod: Pod, protocol: str) -> None:
    """R-42: the first call that meets it raises, with the server's text, and so does every later one."""
    port = 9  # where nothing has listened for decades
    with pod.connect(port, timeout=seconds(10)) as sock:
        for _ in range(2):
            with pytest.raises(PortRefused, match="refused") as caught:
                sock.recv(1)
        room = bytearray(1)
        for call, size in (
            (sock.recvfrom, 1),
            (sock.recvmsg, 1),
            (sock.recvfrom_into, room),
            (sock.recvmsg_into, [room]),
        ):
            with pytest.raises(PortRefused, match="refused"):
                call(size)
        assert isinstance(caught.value, ConnectionRefusedError)
        assert "port 9 of pod" in str(caught.value)
        with pytest.raises(PortRefused):
            sock.sendall(bytes(1 << 20))


def test_pings_go_out_for_sockets_and_forwarded_ports_too_r10(
    pod: Pod, server: int, protocol: str
) -> None:
    """R-10: what they do is shown for commands; here, that they are armed by default."""

    def armed(known: set[Any]) -> set[Any]:
        return {link._pinger and link._ping_interval for link in {*live._connections} - known}

    known = {*live._connections}
    with pod.connect(server):
        assert eventually(lambda: armed(known) == {kubews.client.PING_INTERVAL})
    with (
        pod.forward(server) as forward,
        socket.create_connection(("127.0.0.1", forward.local_port), seconds(10)) as sock,
    ):
        sock.sendall(b"echo\nx")
        assert sock.recv(1) == b"x"
        assert eventually(lambda: armed(known) == {kubews.client.PING_INTERVAL})


def test_names_and_mistakes(pod: Pod, client: Client) -> None:
    with pytest.raises(ConfigError, match="does not have a named port 'http'"):
        pod.connect("http")
    with pytest.raises(ConfigError, match="65535"):
        pod.connect(70000)
    with pytest.raises(TypeError):
        pod.connect(1.5)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no-such"):
        client.pod("no-such").connect(80)


def test_http_without_a_local_port_r42(pod: Pod, protocol: str) -> None:
    """R-42: ``http.client`` and urllib3 over it, a connection that is used again among them."""
    import urllib3

    with http_server(pod) as port:
        connection = http.client.HTTPConnection("web-0")
        for _ in range(3):
            connection.sock = connection.sock or pod.connect(port, timeout=seconds(10))
            connection.request("GET", "/")
            assert b"Directory listing" in connection.getresponse().read()
            connection.close()

        class Pool(urllib3.HTTPConnectionPool):
            class ConnectionCls(urllib3.connection.HTTPConnection):
                def _new_conn(self) -> socket.socket:
                    return pod.connect(port, timeout=seconds(10))

        with Pool("web-0") as pool:
            assert pool.request("GET", "/").status == 200


class http_server:
    """``python -m http.server`` in the pod."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod

    def __enter__(self) -> int:
        script = (
            "import http.server as h, signal, os; signal.alarm(120); os.chdir('/tmp');"
            "s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
            "print(os.getpid(), s.server_port, flush=True); s.serve_forever()"
        )
        self.process = self.pod.popen(
            ["python3", "-c", script], stdout=kubews.PIPE, stderr=kubews.DEVNULL, text=True
        )
        self.pid, port = self.process.stdout.readline().split()
        return int(port)

    def __exit__(self, *exc: object) -> None:
        self.pod.run(["kill", self.pid])
        self.process.wait(seconds(10))
        self.process.close()


def test_tls_over_it_r42(local: Any, pod: Pod) -> None:
    """R-42: ``ssl.SSLContext.wrap_socket`` takes it."""
    import trustme

    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("web-0.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with server_context.wrap_socket(sock, server_side=True) as tls:
                while piece := tls.recv(65536):
                    tls.sendall(piece)

        serving = in_thread(answer)
        plain = pod.connect(listener.getsockname()[1], timeout=seconds(10))
        with client_context.wrap_socket(plain, server_hostname="web-0.example") as sock:
            sock.sendall(b"secret")
            assert sock.recv(10) == b"secret"
        serving.result(seconds(10))


def test_a_lost_connection_r7(local: Any, pod: Pod) -> None:
    """R-7: bytes first, then the loss; the next socket begins with its own first byte."""
    from kubews.testing import Faults

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for drop in (True, False):
            if drop:
                local.next_faults(Faults(match="/portforward", drop_after=4000))
            with pod.connect(port, timeout=seconds(10)) as sock:
                theirs, _ = listener.accept()
                with theirs:
                    theirs.sendall(b"first")
                    assert sock.recv(5) == b"first"
                    if not drop:
                        continue
                    theirs.sendall(bytes(20_000))
                    received = 0
                    with pytest.raises(kubews.ConnectionLost, match="connection lost"):
                        while piece := sock.recv(65536):
                            received += len(piece)
                    assert 0 <= received < 20_000


def test_forgotten_sockets_leave_nothing(pod: Pod, server: int, protocol: str) -> None:
    before = threading.active_count()
    for _ in range(5):
        sock = pod.connect(server, timeout=seconds(10))
        with pytest.warns(ResourceWarning, match="unclosed"):
            del sock
    assert eventually(lambda: threading.active_count() == before, 10)


def test_closing_the_client_ends_its_sockets(cluster: Any, pod: Pod, server: int) -> None:
    with cluster.client() as other:
        sock = other.pod("sockets-0").connect(server, timeout=seconds(10))
        sock.sendall(b"echo\nx")
        assert sock.recv(1) == b"x"
    with sock, pytest.raises(kubews.ConnectionLost, match="closed on this side"):
        sock.recv(1)


def test_waiting_for_the_pod(cluster: Any, client: Client) -> None:
    """A pod that is on its way is waited for where that is asked, by both."""
    pod = client.pod("on-its-way")
    for open_ in (pod.connect, pod.forward):
        with pytest.raises(kubews.NotReady, match="does not exist"):
            open_(80, wait_ready=seconds(1))  # type: ignore[operator]

    def add() -> None:
        time.sleep(0.3)
        cluster.add_pod("on-its-way", {"app": ["sh", "-c", "exec sleep 1000"]})

    adding = in_thread(add)
    with pod.connect(9, wait_ready=seconds(30)) as sock, pytest.raises(PortRefused):
        sock.recv(1)
    adding.result(seconds(30))
    cluster.delete_pod("on-its-way")


def test_pexpect_takes_its_descriptor_r42(pod: Pod, server: int, protocol: str) -> None:
    """R-42: a dialogue with a line protocol."""
    from pexpect.fdpexpect import fdspawn

    with pod.connect(server, timeout=seconds(10)) as sock:
        dialogue = fdspawn(sock, timeout=seconds(10))
        dialogue.sendline("echo")
        for word in ("first", "second"):
            dialogue.sendline(word)
            dialogue.expect_exact(word)


def test_a_pod_without_a_node_says_so(cluster: Any, client: Client) -> None:
    """What is said of a refused command is said of a refused port, too."""
    cluster.add_pod("no-node", {"app": None}, state="unscheduled")
    for open_ in (client.pod("no-node").connect, client.pod("no-node").forward):
        with pytest.raises(kubews.ApiError, match=r"The pod is Pending: no node .*wait_ready="):
            open_(80)
    cluster.delete_pod("no-node")
