"""TLS: what is trusted, the handshake, and why it failed."""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Optional, Union

from kubews.errors import ConnectFailed, ConnectTimeout, CredentialsError
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.patience import patiently
from kubews.transport.tlssockets import NestedTls, Socket, TlsSocket

# Where systems keep their authorities, for a Python whose OpenSSL looks elsewhere (Go: root_linux.go).
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

# OpenSSL's codes of what is wrong with a certificate (x509_vfy.h).
_NOT_NOW, _OTHER_NAME, _UNKNOWN = (9, 10), (62, 64), (2, 18, 19, 20, 21)

# What OpenSSL says when the answer is no TLS at all, or none of the versions that are spoken here.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
_OLD_TLS = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION")


def tls_context(
    *,
    ca_pem: Optional[str] = None,
    verify: bool = True,
    strict: bool = False,
    and_system: bool = False,
    certificate_pem: Optional[bytes] = None,
    key_pem: Optional[bytes] = None,
) -> ssl.SSLContext:
    """Make the TLS settings of one cluster and one user.

    Args:
        ca_pem: the only authorities to trust; None for those of the system.
        verify: False accepts any certificate and any name.
        strict: refuse certificates that break a rule of RFC 5280, such as authorities without key
            identifiers, as Python 3.13 does by default. Many clusters have some, and Go does not mind.
        and_system: trust those of the system besides ``ca_pem``.
        certificate_pem: the client's certificate chain; None for no client certificate.
        key_pem: its private key.

    Returns:
        A context that any number of threads and connections may share.

    Raises:
        CredentialsError: a certificate or key cannot be used.

    Threads: blocks on memory-backed files only.
    """
    forks.visit()
    with forks.gate():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.sslsocket_class = TlsSocket
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # As Go: a name stands among the alternative names.
        context.hostname_checks_common_name = False
        # As in Go, an authority that was named is trusted whoever has signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if strict:
            context.verify_flags |= ssl.VERIFY_X509_STRICT
        else:
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            if ca_pem is None or and_system:
                _trust_system(context)
            if ca_pem is not None:
                _trust(context, ca_pem)
        if certificate_pem is not None and key_pem is not None:
            _load_certificate(context, certificate_pem, key_pem)
        return context


def _trust(context: ssl.SSLContext, ca_pem: str) -> None:
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError, TypeError) as exc:
        raise CredentialsError(
            f"the cluster's certificate-authority is not a PEM certificate: {exc}"
        ) from exc


def _trust_system(context: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()
    if sys.platform == "win32" or paths.cafile or (paths.capath and os.listdir(paths.capath)):
        context.load_default_certs()
        return
    bundle = next(filter(os.path.isfile, _BUNDLES), None)
    if bundle is None:
        import certifi

        bundle = certifi.where()
    context.load_verify_locations(bundle)


def _load_certificate(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    try:
        with _as_file(certificate_pem + b"\n" + key_pem) as path:
            context.load_cert_chain(path, password=_refuse_password)
    except ssl.SSLError as exc:
        raise CredentialsError(f"the client certificate and key cannot be used: {exc}") from exc


def _refuse_password() -> str:
    # Without a callback OpenSSL would ask on the terminal, in the middle of somebody's script.
    raise CredentialsError("the client key is encrypted; store it decrypted (openssl rsa -in KEY)")


@contextlib.contextmanager
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


def secure(
    sock: Socket,
    context: ssl.SSLContext,
    server_hostname: str,
    where: str,
    deadline: Deadline,
    *,
    to_proxy: bool = False,
) -> Socket:
    """Put TLS over a connection, which may be TLS already.

    Args:
        sock: connected, and non-blocking; its owner closes it if this raises.
        context: see ``tls_context``.
        server_hostname: the name to send and to verify.
        where: the server in words, for messages.
        deadline: for the handshake.
        to_proxy: whether the server is a proxy: other cures are named then.

    Raises:
        ConnectTimeout: the deadline passed.
        ConnectFailed: anything else.

    Threads: blocks.
    """
    try:
        tls = _wrap(sock, context, server_hostname)
    except OSError as exc:
        raise ConnectFailed(f"TLS handshake with {where} failed: {reason(exc)}") from exc
    except (ValueError, TypeError) as exc:
        raise ConnectFailed(f"{server_hostname!r} is no name for a TLS server: {exc}") from exc
    try:
        patiently(tls.do_handshake, tls, selectors.EVENT_READ, deadline)
    except BaseException as exc:
        forks.close(tls)
        if isinstance(exc, TimeoutError):
            raise ConnectTimeout(f"no TLS handshake with {where} within the time limit") from exc
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise ConnectFailed(_explain(exc, server_hostname, where, to_proxy)) from exc
        if isinstance(exc, OSError):
            raise ConnectFailed(f"TLS handshake with {where} failed: {_why(exc)}") from exc
        raise
    return tls


def _wrap(
    sock: Socket, context: ssl.SSLContext, server_hostname: str
) -> Union[TlsSocket, NestedTls]:
    if isinstance(sock, TlsSocket):
        return NestedTls(sock, context, server_hostname)
    assert isinstance(sock, socket.socket)
    forks.visit()
    # If the name is none, wrap_socket would lose the socket.
    with forks.gate():
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=server_hostname)
    # suppress_ragged_eofs=False: a TLS stream that ends without close_notify was cut, not closed.
    wrapped = forks.own(
        functools.partial(
            context.wrap_socket,
            sock,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
    )
    assert isinstance(wrapped, TlsSocket)
    return wrapped


def _explain(exc: ssl.SSLCertVerificationError, name: str, where: str, to_proxy: bool) -> str:
    url = "the proxy's URL" if to_proxy else "the server's URL"
    if exc.verify_code in _NOT_NOW:
        cure = "Have it renewed over there, or set the clock of this machine."
    elif exc.verify_code in _OTHER_NAME:
        cure = f"Use a name that it has in {url}"
        cure += "." if to_proxy else ", or as tls-server-name of the cluster in the kubeconfig."
    elif exc.verify_code in _UNKNOWN:
        cure = (
            "Get certificate-authority-data of the cluster in the kubeconfig anew: it must hold who has "
            "signed this certificate, perhaps something on the way that opens TLS."
        )
        if to_proxy:
            cure = (
                "Who has signed it must be known to the system, or stand in certificate-authority."
            )
    else:
        cure = "Have it issued anew over there; strict_x509=False of the Client accepts more."
    said = exc.verify_message.rstrip(".")
    return f"the certificate of {where} cannot be trusted as {name}: {said}. {cure}"


def _why(exc: OSError) -> str:
    said = reason(exc)
    token = getattr(exc, "reason", None)
    if token in _NO_TLS:
        return f"{said}. It does not speak TLS: is its URL rather http://?"
    if token in _OLD_TLS:
        return f"{said}. It speaks no TLS 1.2, the least that is accepted here"
    return said


def reason(exc: Optional[OSError]) -> str:
    """Say in a few words why the system or OpenSSL refused."""
    return str(exc.strerror or exc) if exc is not None else "no address"
