"""Real proxies in processes of their own: proxy.py for HTTP CONNECT, tiny-proxy for SOCKS5 and for the
backpressure that the first lacks: it holds whatever comes in memory."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from support import eventually

TINY = Path(__file__).with_name("tiny_server.py")

USER, PASSWORD = "pro xy@user", "pass:w%rd/#?"


@dataclass
class RealProxy:
    """A proxy that runs.

    Args:
        scheme: of its URL.
        host: where it listens.
        port: where it listens.
        process: to kill.
        credentials: whether it wants ``USER`` and ``PASSWORD``.
    """

    scheme: str
    host: str
    port: int
    process: subprocess.Popen[bytes]
    credentials: bool

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def close(self) -> None:
        """End it at once, with everything that it has open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # proxy.py has processes below
        self.process.wait()

    def url(self, port: int = 0, *, scheme: str = "") -> str:
        """Give its URL, or that of a relay before it at another port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        secret = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@" if self.credentials else ""
        return f"{scheme or self.scheme}://{secret}{host}:{port or self.port}"


@functools.cache
def authority() -> trustme.CA:
    """The one that has signed the certificates of https proxies, and nothing else."""
    return trustme.CA()


@contextlib.contextmanager
def http_proxy(
    *, tls: bool = False, host: str = "127.0.0.1", credentials: bool = True
) -> Iterator[RealProxy]:
    """Run proxy.py, as an ``http`` or an ``https`` proxy."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        command = [sys.executable, "-m", "proxy", "--hostname", host, "--port", "0"]
        command += ["--port-file", str(folder / "port"), "--data-dir", directory]
        command += ["--num-workers", "1", "--num-acceptors", "1", "--timeout", "600"]
        if credentials:
            command += ["--basic-auth", f"{USER}:{PASSWORD}"]
        if tls:
            leaf = authority().issue_cert(host, "localhost")
            leaf.private_key_pem.write_to_path(folder / "key.pem")
            for pem in leaf.cert_chain_pems:
                pem.write_to_path(folder / "cert.pem", append=True)
            command += ["--cert-file", str(folder / "cert.pem"), "--key-file"]
            command += [str(folder / "key.pem")]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        proxy = RealProxy("https" if tls else "http", host, 0, process, credentials)
        with contextlib.closing(proxy):
            proxy.port = _port_in(folder / "port", process)
            yield proxy


@contextlib.contextmanager
def tiny_proxy(
    *, tls: bool = False, host: str = "127.0.0.1", credentials: bool = True
) -> Iterator[RealProxy]:
    """Run tiny-proxy, as a ``socks5`` or an ``https`` proxy."""
    command = [sys.executable, str(TINY), host, *((USER, PASSWORD) if credentials else ("", ""))]
    with contextlib.ExitStack() as stack:
        if tls:
            pem = authority().issue_cert(host, "localhost").private_key_and_cert_chain_pem
            command.append(stack.enter_context(pem.tempfile()))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        proxy = RealProxy("https" if tls else "socks5", host, 0, process, credentials)
        stack.callback(proxy.close)
        assert process.stdout is not None
        with process.stdout as said:
            proxy.port = int(said.readline())
        yield proxy


#: Starts a proxy of each kind.
KINDS: dict[str, Callable[[], AbstractContextManager[RealProxy]]] = {
    "http": http_proxy,
    "https": functools.partial(http_proxy, tls=True),
    "socks5": tiny_proxy,
}


def trust(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the authority of our https proxies the only one that the system knows."""
    bundle = folder / "system.pem"
    bundle.write_bytes(authority().cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))


def _port_in(file: Path, process: subprocess.Popen[bytes]) -> int:
    def ready() -> bool:
        assert process.poll() is None, "the proxy has ended"
        return file.exists() and file.read_text().strip() != ""

    assert eventually(ready, 30)
    return int(file.read_text().split()[0])
