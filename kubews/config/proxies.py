"""Which proxy leads to a cluster: its proxy-url, else what the environment says, with Go's rules.

The environment is read as golang.org/x/net/http/httpproxy reads it for kubectl, save that a proxy that
cannot be used is an error here: there it means none, and credentials would go another way than the user
has said. No repr and no message shows the user name or the password of a proxy.

Threads: values and functions without state.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional, Union
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from kubews.errors import ConfigError

if TYPE_CHECKING:
    from kubews.config.cluster import Cluster

# net/http: portMap in transport.go.
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Go's net.SplitHostPort: a port may be empty or a word, and an IPv6 address stands in brackets.
_HOST_AND_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^\[\]:]*)):(?P<port>[^\[\]:]*)")

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


@dataclass(frozen=True)
class Proxy:
    """A proxy to go through.

    Args:
        scheme: ``http``, ``https`` or ``socks5`` (``socks5h`` is the same: Go's leaves names to the proxy
            in both).
        host: name or address, without brackets.
        port: of TCP.
        source: what named it, for messages.
        username: percent-decoded; None for no credentials.
        password: percent-decoded.

    Threads: immutable.
    """

    scheme: str
    host: str
    port: int
    source: str
    username: Optional[bytes] = field(default=None, repr=False)
    password: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port} ({self.source})"


def choose(cluster: Cluster, environ: Optional[Mapping[str, str]] = None) -> Optional[Proxy]:
    """Find the proxy to a cluster; a ``proxy-url`` replaces the environment, ``NO_PROXY`` included.

    Args:
        cluster: where to connect to.
        environ: in place of the environment of this process.

    Returns:
        The proxy, or None to connect directly.

    Raises:
        ConfigError: the proxy cannot be used.
    """
    if cluster.proxy_url:
        return of_cluster(cluster.proxy_url, cluster.name)
    return from_environment(
        cluster.scheme, cluster.host, cluster.port, os.environ if environ is None else environ
    )


def of_cluster(url: str, name: str) -> Proxy:
    """Take the ``proxy-url`` of a cluster's entry (client-go: ``parseProxyURL`` of clientcmd).

    Raises:
        ConfigError: it cannot be used. The message does not show it, for it may hold a password.
    """
    problem = f"invalid 'proxy-url' for cluster \"{name}\""
    parts = _split(url, problem)
    scheme = parts.scheme if "://" in url else ""
    if scheme not in ("http", "https", "socks5"):
        cure = " (socks5 leaves names to the proxy too)" if scheme == "socks5h" else ""
        raise ConfigError(
            f'{problem}: unsupported scheme "{scheme}", must be http, https, or socks5{cure}'
        )
    return _proxy(parts, problem, f'proxy-url of cluster "{name}"' if name else "proxy-url")


def problems(url: Optional[str], name: str) -> list[str]:
    """Say what is wrong with the ``proxy-url`` of a cluster's entry, if there is one."""
    try:
        if url:
            of_cluster(url, name)
    except ConfigError as exc:
        return [str(exc)]
    return []


def from_environment(
    scheme: str, host: str, port: int, environ: Mapping[str, str]
) -> Optional[Proxy]:
    """Find the proxy that ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` give to a server.

    Args:
        scheme: of the server, ``http`` or ``https``.
        host: of the server, without brackets.
        port: of the server.
        environ: where the variables are; each may be in lower case, and upper case goes first.

    Returns:
        The proxy, or None to connect directly: always for ``localhost`` and loopback addresses.

    Raises:
        ConfigError: the proxy cannot be used, or the variable cannot be trusted.
    """
    name, url = _variable(environ, f"{scheme.upper()}_PROXY")
    if not url:
        return None
    if scheme == "http" and environ.get("REQUEST_METHOD"):
        # In a CGI program the header "Proxy:" of a stranger's request is the variable HTTP_PROXY.
        raise ConfigError(
            "refusing to use HTTP_PROXY value in CGI environment; see golang.org/s/cgihttpproxy"
        )
    if not uses_proxy(host, port, _variable(environ, "NO_PROXY")[1]):
        return None
    problem = f"the environment variable {name} is no URL of a proxy"
    parts = _split(url if "://" in url else f"http://{url}", problem)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ConfigError(
            f'{problem}: unsupported scheme "{parts.scheme}", must be http, https, socks5 or socks5h'
        )
    return _proxy(parts, problem, f"environment variable {name}")


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    for spelled in (name, name.lower()):
        if environ.get(spelled):
            return spelled, environ[spelled]
    return name, ""


def _split(url: str, problem: str) -> SplitResult:
    if not _BLANK_OR_CONTROL.search(url):
        try:
            return urlsplit(url)
        except ValueError:
            pass  # raised below, outside: what urllib says may quote the URL
    raise ConfigError(f"{problem}: it should look like http://proxy.example:3128")


def _proxy(parts: SplitResult, problem: str, source: str) -> Proxy:
    userinfo, given, _ = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    if _BAD_ESCAPE.search(userinfo):
        raise ConfigError(f"{problem}: a % in the user name or password must be written as %25")
    if "@" in parts.path + parts.query + parts.fragment:
        # A part of the password would be the host, and be shown.
        raise ConfigError(
            f"{problem}: /, ? and # in the user name or password must be percent-encoded"
        )
    try:
        host, port = _host(parts.hostname or ""), parts.port
    except ValueError:
        host, port = "", None
    if not host or port == 0:
        raise ConfigError(f"{problem}: it should look like http://proxy.example:3128")
    return Proxy(
        scheme=parts.scheme,
        host=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        source=source,
        username=unquote_to_bytes(username) if given else None,
        password=unquote_to_bytes(password),
    )


def _host(host: str) -> str:
    """Check a host name or address; empty for one that cannot be used."""
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if ":" in host:
        host = host.replace("%25", "%")
        ipaddress.IPv6Address(host)
        return host
    return host if _HOST_NAME.fullmatch(host) else ""


# -- NO_PROXY


def uses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Say whether the environment's proxy is for this server.

    Args:
        host: in lower case, without brackets.
        port: of the server.
        no_proxy: comma-separated ``*``, addresses, networks (``10.0.0.0/8``), domains (``example.com``
            with all below it, ``.example.com`` and ``*.example.com`` only what is below it); all but
            networks may have a port.
    """
    if host == "localhost":
        return False
    address = _address(host.partition("%")[0])
    if address is not None and address.is_loopback:
        return False
    rules = [rule.strip().lower() for rule in no_proxy.split(",")]
    if "*" in rules:
        return False
    return not any(_exempts(rule, host.lower(), address, str(port)) for rule in rules if rule)


def _exempts(rule: str, host: str, address: Optional[_Address], port: str) -> bool:
    network = _network(rule)
    if network is not None:
        return address is not None and address in network
    found = _HOST_AND_PORT.fullmatch(rule)
    if found is not None:
        rule = found["name"] or found["v6"] or ""
        if found["port"] not in ("", port):
            return False
    exempt = _address(rule)
    if exempt is not None or address is not None:
        return exempt == address  # a domain is never the end of an address
    if rule.startswith("*."):
        rule = rule[1:]
    if not rule:
        return False
    rule = _ascii(rule)
    return host.endswith(rule if rule.startswith(".") else f".{rule}") or host == rule


def _address(text: str) -> Optional[_Address]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or (None if "%" in text else address)


def _network(text: str) -> Optional[_Network]:
    if not re.search(r"/[0-9]{1,3}$", text):  # ipaddress takes 10.0.0.0/255.0.0.0 too, Go does not
        return None
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _ascii(domain: str) -> str:
    """Give a domain in the form that stands in a request; what is no domain is left as it is."""
    try:
        return ".".join(label.encode("idna").decode("ascii") for label in domain.split("."))
    except UnicodeError:
        return domain
