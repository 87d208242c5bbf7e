"""The clients that are compared: a bare TLS socket, a bare websocket-client, and kubews.

All three send the same request. The bare ones check nothing and keep nothing, and wait in the kernel: no
client in Python can do with less.
"""

from __future__ import annotations

import os
import socket
import ssl

import websocket
from peer import HELLO, HOST, SUBPROTOCOL, Peer

import kubews
from kubews.config import Cluster
from kubews.protocol.requests import exec_path

CLOSE = websocket.ABNF.OPCODE_CLOSE
SSL = "bare ssl socket"
WEBSOCKET = "bare websocket-client"


class Clients:
    """Makes connections of each kind to one peer.

    Args:
        peer: which must outlive them.

    Threads: any.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._context = ssl.create_default_context(cadata=peer.ca_pem)
        cluster = Cluster(server=peer.url, certificate_authority_data=peer.ca_pem.encode())
        self.pod = kubews.Client(kubews.Config(cluster)).pod("web-0")

    def ssl(self, *command: object) -> ssl.SSLSocket:
        """Connect a bare TLS socket and send the request by hand; return it behind the first frame."""
        plain = socket.create_connection((HOST, self._peer.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self._context.wrap_socket(plain, server_hostname=HOST)
        key = os.urandom(16).hex()
        sock.sendall(
            f"GET {_path(command)} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(HELLO):
            answer += sock.recv(1)
        return sock

    def websocket(self, *command: object) -> websocket.WebSocket:
        """Connect a bare websocket-client; return it behind the first frame."""
        client = websocket.create_connection(
            f"wss://{HOST}:{self._peer.port}{_path(command)}",
            sslopt={"context": self._context},
            subprotocols=[SUBPROTOCOL],
            suppress_origin=True,
            enable_multithread=False,
        )
        client.recv_frame()
        return client

    def popen(self, *command: object, bufsize: int = -1, stdin: bool = False) -> kubews.Popen:
        """Start a process that writes to PIPEs."""
        return self.pod.popen(
            [str(word) for word in command],
            bufsize=bufsize,
            stdin=kubews.PIPE if stdin else None,
            stdout=kubews.PIPE,
            stderr=kubews.PIPE,
        )


def drain(client: websocket.WebSocket) -> None:
    """Receive until the server closes."""
    receive = client.recv_frame
    while receive().opcode != CLOSE:
        pass


def _path(command: tuple[object, ...]) -> str:
    return exec_path(
        "default",
        "web-0",
        [str(word) for word in command],
        container=None,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
    )
