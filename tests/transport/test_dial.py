"""TCP and TLS to servers on loopback, most of which are not what they should be."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import os
import select
import signal
import socket
import ssl
import stat
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from faults import Relay, reset
from interrupts import Interrupted, interrupt
from peers import authority, server_context
from scripted import read_head
from support import answer, in_thread, seconds, unused_port

from kubews import Client, Config, errors
from kubews.config.cluster import Cluster
from kubews.transport import dial as dial_module
from kubews.transport import tls as tls_module
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.dial import dial
from kubews.transport.tls import tls_context
from kubews.transport.tlssockets import TlsSocket
from kubews.transport.wire import upgrade

HANDSHAKE = (OSError, ssl.SSLError)


def ca_pem(ca: trustme.CA | None = None) -> str:
    return (ca or authority()).cert_pem.bytes().decode()


@functools.cache
def client_certificate() -> tuple[bytes, bytes]:
    leaf = authority().issue_cert("client@example.com")
    return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()


@contextlib.contextmanager
def serving(
    context: ssl.SSLContext | None, talk: Callable[[Any], None] = lambda sock: None
) -> Iterator[tuple[str, int]]:
    """Give the address of a server that serves one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock = listener.accept()[0]
            sock.settimeout(seconds(10))
            try:
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                talk(sock)
            except HANDSHAKE:
                pass  # the client did not like it
            finally:
                sock.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join(seconds(10))
        assert not thread.is_alive()


def reach(address: tuple[str, int], timeout: float = 5.0, **options: Any) -> Any:
    options.setdefault("context", tls_context(ca_pem=ca_pem()))
    return dial(address[0], address[1], deadline=Deadline(seconds(timeout)), **options)


def refused(address: tuple[str, int], timeout: float = 5.0, **options: Any) -> errors.ConnectFailed:
    with pytest.raises(errors.ConnectFailed) as caught:
        reach(address, timeout, **options)
    return caught.value


def echo(sock: Any) -> None:
    sock.sendall(sock.recv(100))
    sock.recv(1)


# -- what works


def test_plain_tcp() -> None:
    with serving(None, echo) as address, reach(address, context=None) as sock:
        assert answer(sock, b"hello") == b"hello"
        assert sock.gettimeout() == 0.0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert not sock.get_inheritable()


def test_an_option_that_a_system_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "_KEEPALIVE", (("TCP_NO_SUCH_OPTION", 1),))
    with serving(None) as address, reach(address, context=None) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("by_name", [False, True], ids=["address", "name"])
def test_tls(version: str, by_name: bool) -> None:
    with serving(server_context(version), echo) as (host, port):
        with reach(("localhost" if by_name else host, port)) as sock:
            assert sock.version() == version.replace("_", ".")
            assert sock.selected_alpn_protocol() is None
            assert sock.gettimeout() == 0.0
            assert sock.suppress_ragged_eofs is False
            assert answer(sock, b"hello") == b"hello"


def test_without_a_time_limit() -> None:
    with serving(server_context(), echo) as address:
        with dial(*address, context=tls_context(ca_pem=ca_pem()), deadline=NEVER) as sock:
            assert answer(sock, b"x") == b"x"


def test_tls_server_name() -> None:
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("kubernetes.default").configure_cert(context)
    context.sni_callback = lambda sock, name, context: names.append(name)
    with serving(context) as address, reach(address, server_hostname="kubernetes.default"):
        assert names == ["kubernetes.default"]


def test_insecure_accepts_anything() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("elsewhere.example").configure_cert(context)
    with serving(context, echo) as address:
        with reach(address, context=tls_context(verify=False, ca_pem=ca_pem())) as sock:
            assert answer(sock, b"x") == b"x"


# -- certificates of servers


def distrusted(server: ssl.SSLContext, **options: Any) -> str:
    """Return what is said of a server with these settings: one line."""
    with serving(server) as address:
        error = refused(address, **options)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert f"the certificate of 127.0.0.1:{address[1]} cannot be trusted as " in str(error)
    assert "\n" not in str(error)
    return str(error)


def test_a_ca_that_is_not_ours() -> None:
    said = distrusted(server_context(), context=tls_context(ca_pem=ca_pem(trustme.CA())))
    assert "cannot be trusted as 127.0.0.1" in said
    assert "Get certificate-authority-data of the cluster in the kubeconfig anew" in said


def test_a_name_that_is_not_its_own() -> None:
    said = distrusted(server_context(), server_hostname="other.example")
    assert "cannot be trusted as other.example: Hostname mismatch" in said
    assert "in the server's URL, or as tls-server-name of the cluster in the kubeconfig" in said


def valid(**limits: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", **limits).configure_cert(context)
    return context


def test_an_expired_certificate() -> None:
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    said = distrusted(valid(not_after=long_ago))
    assert "certificate has expired. Have it renewed over there, or set the clock" in said


def test_a_certificate_of_tomorrow() -> None:
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    said = distrusted(valid(not_before=tomorrow))
    assert "not yet valid. Have it renewed over there, or set the clock" in said


@dataclasses.dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def server(self, *chain: Signed) -> ssl.SSLContext:
        """Give a server's settings with this certificate."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pems = "".join(link.pem for link in (self, *chain)).encode()
        with trustme.Blob(pems + key).tempfile() as path:
            context.load_cert_chain(path)
        return context


def sign(name: str, issuer: Signed | None, *extensions: tuple[x509.ExtensionType, bool]) -> Signed:
    """Make a certificate with these extensions and no other, as many clusters have."""
    now = datetime.datetime.now(datetime.timezone.utc)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Signed(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


AUTHORITY = (x509.BasicConstraints(ca=True, path_length=None), False)
LOCALHOST = (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)


def talks(server: ssl.SSLContext, **options: Any) -> None:
    """Reach a server by its name, and hear an answer."""
    with serving(server, echo) as (_, port):
        with reach(("localhost", port), context=tls_context(**options)) as sock:
            assert answer(sock, b"x") == b"x"


def test_a_ca_without_key_identifiers_is_accepted_r32() -> None:
    """R-32: what VERIFY_X509_STRICT, the default of create_default_context from 3.13 on, refuses."""
    root = sign("kubernetes", None, AUTHORITY)
    server = sign("kube-apiserver", root, LOCALHOST).server()
    talks(server, ca_pem=root.pem)
    with serving(server) as (_, port):
        strict = tls_context(ca_pem=root.pem, strict=True)
        said = str(refused(("localhost", port), context=strict))
    assert "strict_x509=False of the Client accepts more" in said


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before 3.13 nobody is strict by default")
def test_the_default_of_python_is_what_is_undone_r32() -> None:
    root = sign("kubernetes", None, AUTHORITY)
    server = sign("kube-apiserver", root, LOCALHOST).server()
    with serving(server) as (_, port):
        default = ssl.create_default_context(cadata=root.pem)
        default.sslsocket_class = TlsSocket
        assert default.verify_flags & ssl.VERIFY_X509_STRICT
        assert "cannot be trusted" in str(refused(("localhost", port), context=default))
    talks(server, ca_pem=root.pem)


@pytest.mark.parametrize("strict", [False, True])
def test_a_client_is_as_strict_as_it_is_told_r32(strict: bool) -> None:
    root = sign("kubernetes", None, AUTHORITY)

    def talk(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with serving(sign("kube-apiserver", root, LOCALHOST).server(), talk) as (_, port):
        cluster = Cluster(f"https://localhost:{port}", certificate_authority_data=root.pem.encode())
        with Client(Config(cluster), strict_x509=strict) as client:
            if not strict:
                assert client.get("/version") == {}
                return
            with pytest.raises(errors.ConnectFailed, match="strict_x509=False"):
                client.get("/version")


def test_an_authority_is_trusted_whoever_has_signed_it() -> None:
    """As Go: a bundle may hold an intermediate authority only, or the server's certificate itself."""
    root = sign("root", None, AUTHORITY)
    between = sign("intermediate", root, AUTHORITY)
    leaf = sign("kube-apiserver", between, LOCALHOST)
    for pem in (root.pem, between.pem, leaf.pem):
        talks(leaf.server(between), ca_pem=pem)
    alone = sign("alone", None, LOCALHOST)
    talks(alone.server(), ca_pem=alone.pem)


def test_a_common_name_is_no_name() -> None:
    """As Go: "certificate relies on legacy Common Name field"."""
    root = sign("kubernetes", None, AUTHORITY)
    with serving(sign("localhost", root).server()) as (_, port):
        error = refused(("localhost", port), context=tls_context(ca_pem=root.pem))
    assert "Hostname mismatch" in str(error)


def test_the_authorities_of_the_system_come_on_top_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(ca_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    root = sign("kubernetes", None, AUTHORITY)
    talks(server_context(), ca_pem=root.pem, and_system=True)
    talks(sign("s", root, LOCALHOST).server(), ca_pem=root.pem, and_system=True)
    assert "Get certificate-authority" in distrusted(
        server_context(), context=tls_context(ca_pem=root.pem)
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_before_1_2_is_refused() -> None:
    assert tls_context(verify=False).minimum_version == ssl.TLSVersion.TLSv1_2
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(context) as address:
        said = str(refused(address))
    assert "TLS handshake" in said
    assert said.endswith("It speaks no TLS 1.2, the least that is accepted here")


def test_a_server_without_tls() -> None:
    with serving(
        None, lambda sock: (sock.recv(1000), sock.sendall(b"HTTP/1.0 400 Bad\r\n\r\n"))
    ) as a:
        said = str(refused(a))
    assert "TLS handshake" in said
    assert said.endswith("It does not speak TLS: is its URL rather http://?")


# -- trust


def test_the_systems_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(ca_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with serving(server_context()) as address, reach(address, context=tls_context()):
        pass


@pytest.mark.parametrize("found", ["directory", "bundle", "certifi"])
def test_where_openssl_knows_of_no_authorities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str
) -> None:
    """An empty directory is none; then the places that Go knows count, and certifi comes last."""
    import certifi

    bundle, empty = tmp_path / "bundle.pem", tmp_path / "empty"
    bundle.write_text(ca_pem())
    empty.mkdir()
    nothing = ssl.DefaultVerifyPaths(
        None, str(empty) if found == "directory" else None, "", "", "", ""
    )
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    monkeypatch.setattr(
        tls_module, "_BUNDLES", (str(empty), str(bundle)) if found != "certifi" else (str(empty),)
    )
    if found == "certifi":
        monkeypatch.setattr(certifi, "where", lambda: str(bundle))
    with serving(server_context()) as address, reach(address, context=tls_context()):
        pass


@pytest.mark.parametrize("garbage", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n", "caf\xe9"])
def test_a_ca_that_is_none(garbage: str) -> None:
    with pytest.raises(errors.CredentialsError, match="certificate-authority is not a PEM"):
        tls_context(ca_pem=garbage)


# -- client certificates


def mutual(version: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


@pytest.mark.parametrize("memory", [True, False], ids=["memfd", "file"])
def test_the_client_key_is_never_left_on_disk(
    memory: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    #
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    loaded: list[tuple[str, list[str], int]] = []

    class Spy(ssl.SSLContext):
        def load_cert_chain(self, certfile: Any, *args: Any, **options: Any) -> None:
            mode = stat.S_IMODE(os.stat(certfile).st_mode)
            loaded.append((certfile, os.listdir(tmp_path), mode))
            super().load_cert_chain(certfile, *args, **options)

    monkeypatch.setattr(
        tls_module, "ssl", types.SimpleNamespace(**{**vars(ssl), "SSLContext": Spy})
    )
    before = len(os.listdir("/proc/self/fd"))
    cert, key = client_certificate()
    context = tls_context(ca_pem=ca_pem(), certificate_pem=cert, key_pem=key)
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before
    ((path, files, mode),) = loaded
    assert not os.listdir(tmp_path)
    if memory:
        assert path.startswith("/proc/self/fd/")
        assert not files
    else:
        assert files == [os.path.basename(path)]
        assert mode == 0o600
    with serving(mutual(), echo) as address, reach(address, context=context) as sock:
        assert answer(sock, b"x") == b"x"


def test_without_the_certificate_that_the_server_wants() -> None:
    with serving(mutual("TLSv1_2")) as address:
        assert "TLS handshake" in str(refused(address))


def test_with_tls_1_3_the_server_complains_later() -> None:
    with serving(mutual("TLSv1_3"), read_head) as address, reach(address) as sock:
        with pytest.raises(
            errors.ConnectFailed, match=r"(?i)certificate.required|reset|broken pipe"
        ):
            upgrade(sock, "/", [("Host", "h")], ["v5"], "exec", Deadline(seconds(5)))


@pytest.mark.parametrize(
    "pair",
    [
        lambda cert, key: (b"garbage", key),
        lambda cert, key: (cert, b"garbage"),
        lambda cert, key: (cert, b""),
        lambda cert, key: (cert, trustme.CA().issue_cert("x").private_key_pem.bytes()),
        lambda cert, key: (cert[:200], key),
    ],
    ids=["certificate", "key", "no key", "another key", "half"],
)
@pytest.mark.parametrize("memory", [True, False], ids=["memfd", "file"])
def test_a_pair_that_is_none(
    pair: Any, memory: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    cert, key = pair(*client_certificate())
    with pytest.raises(errors.CredentialsError, match="client certificate and key cannot be used"):
        tls_context(verify=False, certificate_pem=cert, key_pem=key)
    assert not os.listdir(tmp_path)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = client_certificate()
    encrypted = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pass"),
    )
    with pytest.raises(errors.CredentialsError, match="is encrypted"):
        tls_context(verify=False, certificate_pem=cert, key_pem=encrypted)


def test_half_a_pair_is_no_pair() -> None:
    cert, key = client_certificate()
    assert tls_context(verify=False, certificate_pem=cert).cert_store_stats()["x509"] == 0
    assert tls_context(verify=False, key_pem=key).cert_store_stats()["x509"] == 0


# -- no connection


def test_nobody_listens() -> None:
    address = ("127.0.0.1", unused_port())
    error = refused(address)
    assert not isinstance(error, errors.ConnectTimeout)
    assert f"cannot connect to 127.0.0.1:{address[1]}: Connection refused" in str(error)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "cannot find the address of nowhere.example" in str(refused(("nowhere.example", 1)))


def test_a_name_that_is_none() -> None:
    assert "cannot find the address" in str(refused(("a" * 64 + ".example", 1)))


@pytest.mark.parametrize("name", ["a" * 64 + ".example", ".example", "nul\0"])
def test_a_server_name_that_is_none(name: str) -> None:
    with serving(None) as address:
        assert "is no name for a TLS server" in str(refused(address, server_hostname=name))


@contextlib.contextmanager
def blackhole() -> Iterator[tuple[str, int]]:
    """Give an address that does not answer: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


def silent(sock: Any) -> None:
    while sock.recv(1000):
        pass


def test_a_syn_that_is_not_answered() -> None:
    with blackhole() as address:
        started = time.monotonic()
        assert isinstance(refused(address, 0.3), errors.ConnectTimeout)
        assert time.monotonic() - started < seconds(0.3) + 1


@pytest.mark.parametrize("wait", ["connect", "handshake"])
def test_a_signal_that_another_thread_takes_ends_the_wait(wait: str) -> None:
    """The kernel may choose any thread that does not block a signal, and the handler runs in the main one."""
    with contextlib.ExitStack() as stack:
        serve = serving(None, silent) if wait == "handshake" else blackhole()
        address = stack.enter_context(serve)
        before = signal.signal(signal.SIGUSR1, lambda *_: interrupt())
        stack.callback(signal.signal, signal.SIGUSR1, before)
        other = threading.Timer(
            0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        )
        other.start()
        started = time.monotonic()
        with pytest.raises(Interrupted):
            refused(address, seconds(20))
        other.join()
        assert time.monotonic() - started < seconds(3)


def test_waits_of_other_threads_may_be_long() -> None:
    """Neither epoll nor poll takes 25 days, nor does a lock take for ever."""
    with serving(server_context()) as address:
        in_thread(reach, address, 30 * 86400).result(10).close()


def test_a_server_that_accepts_and_says_nothing() -> None:
    with serving(None, silent) as address:
        started = time.monotonic()
        error = refused(address, 0.3)
        assert isinstance(error, errors.ConnectTimeout)
        assert isinstance(error, TimeoutError)
        assert "no TLS handshake" in str(error)
        assert time.monotonic() - started < seconds(0.3) + 1


def test_a_handshake_that_drips() -> None:
    with serving(server_context()) as target, Relay(target, piece=1, pause=0.02) as relay:
        started = time.monotonic()
        assert isinstance(refused(relay.address, 0.4), errors.ConnectTimeout)
        assert time.monotonic() - started < seconds(0.4) + 1
        assert len(relay.from_client) > 100


@pytest.mark.parametrize("cut", ["fin", "reset"])
@pytest.mark.parametrize("after", [1, 100])
def test_a_handshake_that_is_cut(cut: str, after: int) -> None:
    with serving(server_context()) as target:
        with Relay(target, cut_after=after, cut=cut) as relay:
            error = refused(relay.address)
            assert "TLS handshake" in str(error)
            assert not isinstance(error, errors.ConnectTimeout)


def test_a_server_that_resets_before_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = threading.Event()

    def gone(sock: socket.socket) -> None:
        connected.set()
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(seconds(10) * 1000)

    monkeypatch.setattr(dial_module, "_tune", gone)
    with serving(None, lambda sock: (connected.wait(seconds(10)), reset(sock))) as address:
        assert "TLS handshake" in str(refused(address))


# -- several addresses


def resolved(monkeypatch: pytest.MonkeyPatch, *found: Any) -> None:
    """Let every name stand for these addresses; an int is an address of that family."""
    results = [
        (entry if isinstance(entry, int) else socket.AF_INET, socket.SOCK_STREAM, 0, "", entry)
        for entry in found
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: results)


def test_the_first_address_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ("127.0.0.1", unused_port())
    with serving(None) as address:
        resolved(monkeypatch, dead, address)
        reach(("name", 1), context=None).close()


def test_the_first_address_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with blackhole() as dead, serving(None) as address:
        resolved(monkeypatch, dead, address)
        started = time.monotonic()
        reach(("name", 1), 0.6, context=None).close()
        assert time.monotonic() - started < seconds(0.6)


def test_a_family_that_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(None) as address:
        resolved(monkeypatch, 255, address)
        reach(("name", 1), context=None).close()
    resolved(monkeypatch, 255)
    assert "cannot connect to name:1" in str(refused(("name", 1)))


def test_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with blackhole() as dead:
        resolved(monkeypatch, dead, dead)
        started = time.monotonic()
        assert isinstance(refused(("name", 1), 0.3), errors.ConnectTimeout)
        assert time.monotonic() - started < seconds(0.3) + 1


def test_no_address_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch)
    assert "no address" in str(refused(("name", 1)))


def test_no_time_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert isinstance(refused(listener.getsockname(), 0), errors.ConnectTimeout)


# -- Ctrl-C


def test_ctrl_c_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Interrupted(socket.socket):
        def connect(self, address: Any) -> None:
            made.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, "socket", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        reach(("127.0.0.1", 1))
    assert made[0].fileno() == -1


def test_ctrl_c_in_the_handshake_leaves_no_socket() -> None:
    class Interrupted(TlsSocket):
        def do_handshake(self, block: bool = False) -> None:
            raise KeyboardInterrupt

    context = tls_context(ca_pem=ca_pem())
    context.sslsocket_class = Interrupted
    with serving(None, silent) as address, pytest.raises(KeyboardInterrupt):
        reach(address, context=context)


# -- names


def test_a_name_that_nobody_resolves_is_waited_for_within_the_limit_r9(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R-9: the system's resolver knows no deadline."""
    original, over = socket.getaddrinfo, threading.Event()

    def slow(host: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags") == socket.AI_NUMERICHOST:
            return original(host, *args, **kwargs)
        over.wait(seconds(10))
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begin = time.monotonic()
    with pytest.raises(errors.ConnectTimeout, match=r"no address of nowhere\.example:443 within"):
        dial("nowhere.example", 443, context=None, deadline=Deadline(0.2))
    assert time.monotonic() - begin < seconds(5)
    over.set()


def test_an_address_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "DaemonThread", None)
    with serving(None) as address, reach(address, context=None):
        pass
