"""TCP and TLS under one deadline: the only way to a socket, for streams and REST alike."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from kubews.errors import ConnectFailed, ConnectTimeout, CredentialsError
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.wait import Expired, Outcome

# A silent network is noticed by the kernel after IDLE + COUNT * INTERVAL seconds.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


def tls_context(
    *,
    ca_pem: Optional[str] = None,
    verify: bool = True,
    certificate_pem: Optional[bytes] = None,
    key_pem: Optional[bytes] = None,
) -> ssl.SSLContext:
    """Make the TLS settings of one cluster and one user.

    Args:
        ca_pem: the only authorities to trust; None for those of the system.
        verify: False accepts any certificate and any name.
        certificate_pem: the client's certificate chain; None for no client certificate.
        key_pem: its private key.

    Returns:
        A context that any number of threads and connections may share.

    Raises:
        CredentialsError: a certificate or key cannot be used.

    Threads: blocks on memory-backed files only.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_pem is None:
        _trust_system(context)
    else:
        _trust(context, ca_pem)
    if certificate_pem is not None and key_pem is not None:
        _load_certificate(context, certificate_pem, key_pem)
    return context


def _trust(context: ssl.SSLContext, ca_pem: str) -> None:
    # A context made so has no VERIFY_X509_STRICT, which create_default_context sets from 3.13 on and
    # which refuses the CAs of many clusters; Go does not ask for it either.
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError, TypeError) as exc:
        raise CredentialsError(
            f"the cluster's certificate-authority is not a PEM certificate: {exc}"
        ) from exc


def _trust_system(context: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()
    if sys.platform == "win32" or paths.cafile or paths.capath:
        context.load_default_certs()
    else:
        import certifi

        context.load_verify_locations(certifi.where())


def _load_certificate(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    try:
        with _as_file(certificate_pem + b"\n" + key_pem) as path:
            context.load_cert_chain(path, password=_refuse_password)
    except ssl.SSLError as exc:
        raise CredentialsError(f"the client certificate and key cannot be used: {exc}") from exc


def _refuse_password() -> str:
    # Without a callback OpenSSL would ask on the terminal, in the middle of somebody's script.
    raise CredentialsError("the client key is encrypted; store it decrypted (openssl rsa -in KEY)")


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give ``content`` a path for as long as OpenSSL needs one, in memory where the system can."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("kubews", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    import tempfile  # not where memory will do: it imports compressors and a random generator

    descriptor, path = tempfile.mkstemp(prefix="kubews-")  # mode 0600
    try:
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        yield path
    finally:
        os.unlink(path)


def dial(
    host: str,
    port: int,
    *,
    context: Optional[ssl.SSLContext],
    server_hostname: Optional[str] = None,
    deadline: Deadline,
) -> socket.socket:
    """Connect to a server.

    Args:
        host: a name or an IP address without brackets.
        port: of TCP.
        context: for TLS; None for plain TCP.
        server_hostname: the name to send and to verify in place of ``host``.
        deadline: for name lookup, TCP and TLS together.

    Returns:
        A connected socket in blocking mode.

    Raises:
        ConnectTimeout: the deadline passed.
        ConnectFailed: anything else.

    Threads: blocks.
    """
    where = f"{host}:{port}"
    sock = _connect(host, port, where, deadline)
    try:
        _tune(sock)
        if context is not None:
            sock = _handshake(sock, context, server_hostname or host, where, deadline)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(host: str, port: int, where: str, deadline: Deadline) -> socket.socket:
    found = _look_up(host, port, deadline)
    failure: Optional[OSError] = None
    for index, (family, kind, protocol, _, address) in enumerate(found):
        remaining = deadline.remaining()
        if remaining == 0.0:
            break
        try:
            sock = forks.own(functools.partial(socket.socket, family, kind, protocol))
        except OSError as exc:  # such as an IPv6 address where there is no IPv6
            failure = exc
            continue
        try:
            # Each address gets a fair share, so that a dead first one does not use up all the time.
            sock.settimeout(None if remaining is None else remaining / (len(found) - index))
            sock.connect(address)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if deadline.expired() or isinstance(failure, TimeoutError):
        raise ConnectTimeout(f"no connection to {where} within the time limit") from failure
    raise ConnectFailed(f"cannot connect to {where}: {_reason(failure)}") from failure


def _look_up(host: str, port: int, deadline: Deadline) -> list[Any]:
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found: Outcome[list[Any]] = Outcome()

    def ask() -> None:
        try:
            found.set(look_up())
        except Exception as exc:
            found.set_exception(exc)

    try:
        return look_up(flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass  # a name: the system may take minutes for it, and hears neither deadlines nor Ctrl-C
    threading.Thread(target=ask, name=f"kubews name lookup {host}", daemon=True).start()
    try:
        return found.get(deadline)
    except Expired as exc:
        raise ConnectTimeout(f"no address of {host} within the time limit") from exc
    except (OSError, UnicodeError) as exc:
        raise ConnectFailed(f"cannot find the address of {host}: {exc}") from exc


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _handshake(
    sock: socket.socket,
    context: ssl.SSLContext,
    server_hostname: str,
    where: str,
    deadline: Deadline,
) -> ssl.SSLSocket:
    try:
        # If the connection is gone already, or the name is none, wrap_socket would lose the socket.
        sock.getpeername()
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_hostname)
        # suppress_ragged_eofs=False: a TLS stream that ends without close_notify was cut, not closed.
        tls = forks.own(
            functools.partial(
                context.wrap_socket,
                sock,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        )
    except OSError as exc:
        raise ConnectFailed(f"TLS handshake with {where} failed: {_reason(exc)}") from exc
    except (ValueError, TypeError) as exc:
        raise ConnectFailed(f"{server_hostname!r} is no name for a TLS server: {exc}") from exc
    try:
        # One call is bounded as a whole: the ssl module keeps a deadline across its retries.
        remaining = deadline.remaining()
        tls.settimeout(0.001 if remaining == 0.0 else remaining)
        tls.do_handshake()
    except BaseException as exc:
        tls.close()
        if isinstance(exc, TimeoutError):
            raise ConnectTimeout(f"no TLS handshake with {where} within the time limit") from exc
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise ConnectFailed(_explain_certificate(exc, server_hostname, where)) from exc
        if isinstance(exc, OSError):
            raise ConnectFailed(f"TLS handshake with {where} failed: {_reason(exc)}") from exc
        raise
    return tls


def _explain_certificate(exc: ssl.SSLCertVerificationError, name: str, where: str) -> str:
    return (
        f"the certificate of {where} cannot be trusted as {name}: {exc.verify_message}. "
        "Check certificate-authority and tls-server-name of the cluster in the kubeconfig."
    )


def _reason(exc: Optional[OSError]) -> str:
    return str(exc.strerror or exc) if exc is not None else "no address"
