"""Frozen value objects: a cluster, and together with a user a Config.

No repr shows a credential, and no message of an exception raised here shows the value it refuses: a
server URL may hold a password.

Threads: immutable values; share them freely.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union
from urllib.parse import quote, unquote, urlsplit

from kubews.config.user import ANONYMOUS, User
from kubews.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_IPV6 = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*(%25[A-Za-z0-9._~-]+)?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[\x00-\x7f]*?-----END CERTIFICATE-----")

StrPath = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Cluster:
    """Where an API server is and how to know that it is the right one.

    Args:
        server: URL, perhaps with a path prefix. It is normalised: lower-case scheme and host, no query,
            no fragment, no slash at the end. Without a scheme it means ``http://``, as for kubectl.
        certificate_authority: path of a PEM bundle. Only these authorities are trusted; without any,
            those of the system are.
        certificate_authority_data: the PEM bundle itself; goes before the file.
        insecure_skip_tls_verify: accept any certificate. Not together with an authority.
        tls_server_name: the name to send and to verify instead of the host.
        proxy_url: ``http``, ``https`` or ``socks5`` URL of the proxy to go through; it may hold a password.
        disable_compression: only told to exec plugins; nothing is ever asked to be compressed here.
        exec_extension: what the cluster has to say to exec plugins, as JSON.
        name: name of the kubeconfig entry, for messages.

    Raises:
        ConfigError: the server is no URL that can be used, or the fields contradict each other.

    Threads: immutable.
    """

    server: str
    certificate_authority: Optional[str] = None
    certificate_authority_data: Optional[bytes] = field(default=None, repr=False)
    insecure_skip_tls_verify: bool = False
    tls_server_name: Optional[str] = None
    proxy_url: Optional[str] = field(default=None, repr=False)
    disable_compression: bool = False
    exec_extension: Optional[str] = field(default=None, repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "server", _normalise(self.server, self.name))
        if self.tls_server_name and _BLANK_OR_CONTROL.search(self.tls_server_name):
            raise ConfigError(f'cluster "{self.name}": tls-server-name is not a host name')
        authority = self.certificate_authority or self.certificate_authority_data
        # For plain http the TLS fields are never looked at, here as in client-go.
        if self.scheme == "https" and self.insecure_skip_tls_verify and authority:
            raise ConfigError(
                f"specifying a root certificates file with the insecure flag is not allowed "
                f'(cluster "{self.name}": remove certificate-authority or insecure-skip-tls-verify)'
            )

    @property
    def scheme(self) -> str:
        """Give ``"http"`` or ``"https"``."""
        return urlsplit(self.server).scheme

    @property
    def host(self) -> str:
        """Give the name or address to connect to, without brackets (``"fe80::1%eth0"``)."""
        return unquote(urlsplit(self.server).hostname or "")

    @property
    def port(self) -> int:
        """Give the port, which the scheme decides when the URL names none."""
        return urlsplit(self.server).port or _DEFAULT_PORTS[self.scheme]

    @property
    def netloc(self) -> str:
        """Give host and port as the URL has them, as the ``Host`` header wants them."""
        netloc = urlsplit(self.server).netloc
        # A zone has a meaning on this machine only: RFC 6874 wants it out of what is sent.
        return re.sub(r"%25[^\]]*", "", netloc)

    @property
    def path_prefix(self) -> str:
        """Give what goes before every path: empty, or with a slash in front and none behind."""
        return urlsplit(self.server).path

    def ca_pem(self) -> Optional[str]:
        """Read the certificate authorities, anew at every call because they may be replaced.

        Returns:
            The certificates of the bundle as ASCII PEM without comments (what
            ``ssl.create_default_context(cadata=...)`` takes), or None for those of the system.

        Raises:
            ConfigError: the file cannot be read, or there is no certificate in it.

        Threads: any; blocks for the time of reading a file.
        """
        where = f'certificate-authority-data of cluster "{self.name}"'
        data = self.certificate_authority_data
        if not data:
            if not self.certificate_authority:
                return None
            where = f"certificate-authority {self.certificate_authority}"
            data = read_file(self.certificate_authority, "certificate-authority", self.name)
        # ssl refuses a str that is not ASCII, and people put names beside their certificates.
        found = _CERTIFICATE.findall(data.decode("latin-1"))
        if not found:
            raise ConfigError(f"{where} holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
        return "\n".join(found) + "\n"


@dataclass(frozen=True, repr=False)
class Config:
    """A cluster, a user and a namespace: all that a Client needs to know.

    Args:
        cluster: where the API server is.
        user: who is asking; nobody by default.
        namespace: for pods that are named without one.
        context: name of the kubeconfig context that this came from, or None.

    Raises:
        ConfigError: ``namespace`` cannot be the name of one.

    Threads: immutable.
    """

    cluster: Cluster
    user: User = ANONYMOUS
    namespace: str = "default"
    context: Optional[str] = None

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.namespace):
            raise ConfigError(
                f'invalid configuration: namespace "{self.namespace}" for context '
                f'"{self.context or ""}" does not conform to the kubernetes DNS_LABEL rules'
            )

    @classmethod
    def load(
        cls,
        path: Optional[StrPath] = None,
        context: Optional[str] = None,
        namespace: Optional[str] = None,
        *,
        cluster: Optional[str] = None,
        user: Optional[str] = None,
        server: Optional[str] = None,
    ) -> Config:
        """Load a kubeconfig in kubectl's way; with nothing configured, the pod's service account.

        Args:
            path: the only file to read. Without it: the files that ``KUBECONFIG`` lists, of which the
                first to define something wins, else ``~/.kube/config``.
            context: the context to use instead of the current one.
            namespace: the namespace to use instead of the context's.
            cluster: name of the cluster to use instead of the context's.
            user: name of the user to use instead of the context's.
            server: URL to use instead of the cluster's; its ``tls-server-name`` no longer counts then.

        Returns:
            What the chosen context says.

        Raises:
            ConfigError: a file, an entry or a field cannot be used; the message names it.

        Threads: any; blocks for the time of reading a few files.
        """
        from kubews.config import kubeconfig

        overrides = kubeconfig.Overrides(context, cluster, user, namespace, server)
        return kubeconfig.load(path, overrides)

    @classmethod
    def from_dict(
        cls,
        document: Mapping[str, Any],
        context: Optional[str] = None,
        namespace: Optional[str] = None,
    ) -> Config:
        """Take a kubeconfig that is already decoded, such as one that a program has made or received.

        Args:
            document: what ``yaml.safe_load`` or ``json.load`` gives of such a file. Relative paths in it
                start from the working directory; nothing is written back to it.
            context: the context to use instead of the current one.
            namespace: the namespace to use instead of the context's.

        Raises:
            ConfigError: an entry or a field cannot be used; the message names it.

        Threads: any; blocks for the time of reading the files that it names.
        """
        from kubews.config import kubeconfig

        return kubeconfig.from_dict(document, kubeconfig.Overrides(context, namespace=namespace))

    @classmethod
    def in_cluster(cls, namespace: Optional[str] = None) -> Config:
        """Use the service account of the pod that this process runs in.

        Args:
            namespace: the namespace to use instead of the pod's own.

        Returns:
            The API server and the account that the kubelet has put into the pod.

        Raises:
            ConfigError: this process does not run in a pod.
            CredentialsError: it does, but the account's token cannot be read.

        Threads: any; blocks for the time of reading a few files.
        """
        from kubews.config import incluster

        return incluster.load(namespace)

    def __repr__(self) -> str:
        user = f"{self.user.name} ({self.user.kind})".lstrip()
        if self.user.impersonate is not None:
            user += f" as {self.user.impersonate.user}"
        return (
            f"Config(context={self.context!r}, server={self.cluster.server!r}, "
            f"user={user!r}, namespace={self.namespace!r})"
        )


def why(exc: Exception) -> str:
    """Say in a few words why a file could not be read.

    A ValueError is a path that no file can have (a NUL, a lone surrogate).
    """
    return str(exc.strerror) if isinstance(exc, OSError) else "not a possible path"


def read_file(path: str, field: str, owner: str, error: type[ConfigError] = ConfigError) -> bytes:
    """Read a file that a field of an entry names.

    Raises:
        ConfigError: (or ``error``) in client-go's words, with the file, the field and the entry.

    Threads: any; blocks for the time of reading a file.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as exc:
        text = f"unable to read {field} {path} for {owner} due to open {path}: {why(exc)}"
        raise error(text) from exc


def _normalise(server: str, name: str) -> str:
    """Check a server URL and put it into its one form. The URL itself stays out of messages."""
    where = f'cluster "{name}": server' if name else "server"
    if not server:
        raise ConfigError(f'no server found for cluster "{name}"')
    if _BLANK_OR_CONTROL.search(server):
        raise ConfigError(f"{where} has blanks or control characters in it")
    try:
        return _join(server)
    except ValueError as exc:
        # Only _Refused has a text of ours; urllib's may quote the URL.
        reason = str(exc) if isinstance(exc, _Refused) else "is not a URL"
    raise ConfigError(f"{where} {reason}; it should look like https://host:6443")


class _Refused(ValueError):
    """Why a server URL is refused, in words that do not show it."""


def _join(server: str) -> str:
    parts = urlsplit(server)
    if not parts.scheme or not parts.netloc:
        parts = urlsplit("http://" + server)
        if parts.path not in ("", "/"):
            raise _Refused("must be a URL or a host:port pair")
    if parts.scheme not in _DEFAULT_PORTS:
        raise _Refused("has a scheme that is neither http nor https")
    if "@" in parts.netloc:
        raise _Refused("must not hold a user name or password (they belong into the user entry)")
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if ":" in host and _IPV6.fullmatch(host):
        host = f"[{host}]"
    elif not _HOST_NAME.fullmatch(host):
        raise _Refused("has no usable host name")
    if parts.port == 0:
        raise _Refused("has port 0")
    port = "" if parts.port is None else f":{parts.port}"
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    return f"{parts.scheme}://{host}{port}{path}"
