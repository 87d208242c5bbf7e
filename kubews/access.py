"""The one way to a cluster, for requests and streams alike: dialled, with TLS, and with a user's credentials."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from time import sleep
from typing import Optional, TypeVar

from kubews import __version__
from kubews.config import ClientCertificate, Config, proxies
from kubews.errors import CredentialsError, Unauthorized
from kubews.identity import Identity, Shown
from kubews.transport import forks, http
from kubews.transport.deadline import Deadline
from kubews.transport.dial import dial
from kubews.transport.tls import tls_context
from kubews.transport.tlssockets import Socket

T = TypeVar("T")

_log = logging.getLogger("kubews")

# Seconds until the two files of a certificate that do not belong together are read again.
_PAUSES = (0.02, 0.2)

#: What is done with a connection: it gets the socket, the headers to send, and until when to be done.
Use = Callable[[Socket, http.Headers, Deadline], T]


class Access:
    """Makes connections to one cluster as one user.

    Args:
        config: which cluster and which user.
        headers: to send with everything.
        strict_x509: whether certificates must keep every rule of RFC 5280.

    Raises:
        ConfigError: the headers cannot be sent.

    Threads: any number at once.
    """

    def __init__(
        self, config: Config, headers: Mapping[str, str], strict_x509: bool = False
    ) -> None:
        self._cluster = config.cluster
        self._strict_x509 = strict_x509
        self._headers = http.additional_headers(headers)
        self.identity = Identity(config)
        of_files = config.user.client_certificate and config.user.client_key
        self._pauses = _PAUSES if of_files else ()
        self._lock = threading.RLock()
        # Guarded by _lock. Making a context reads all authorities; the files may change, so it is
        # kept with what it was made of: the one for the cluster, and the one for an https proxy.
        self._contexts: dict[bool, tuple[object, ssl.SSLContext]] = {}

    def use(self, use: Use[T], headers: Mapping[str, str], deadline: Deadline, limit: float) -> T:
        """Do something with a new connection, and if the server answers 401 once more with new credentials.

        Args:
            use: what to do; it owns the socket once it has returned.
            headers: to send besides those for ``Host``, ``User-Agent`` and the credentials.
            deadline: for everything, and for getting credentials alone: that may take the user's time.
            limit: seconds for one connection and what is done with it.

        Raises:
            CredentialsError: what is to be shown cannot be had.
            ConnectFailed: no connection.
            Exception: what ``use`` raises.

        Threads: blocks.
        """
        shown = self._show(deadline)
        try:
            return self._use_once(use, shown, headers, deadline.at_most(limit))
        except Unauthorized:
            # A token that was replaced a moment ago looks like this; what was read is read anew.
            self.identity.refused(shown)
        shown = self._show(deadline)
        return self._use_once(use, shown, headers, deadline.at_most(limit))

    def _show(self, deadline: Deadline) -> Shown:
        """Get what is to be shown; of two files that are being replaced one may be new and the other old."""
        for pause in self._pauses:
            shown = self.identity.show(deadline)
            try:
                if shown.certificate is not None:
                    self.tls(shown.certificate)
                return shown
            except CredentialsError:
                sleep(pause)
        return self.identity.show(deadline)

    def _use_once(
        self, use: Use[T], shown: Shown, headers: Mapping[str, str], deadline: Deadline
    ) -> T:
        sent = self._all_headers(shown, headers)
        sock = self._dial(shown, deadline)
        try:
            return use(sock, sent, deadline)
        except BaseException:
            forks.close(sock)
            raise

    def _all_headers(self, shown: Shown, headers: Mapping[str, str]) -> http.Headers:
        fixed = {"Host": self._cluster.netloc, "User-Agent": f"kubews/{__version__}"}
        said = {**fixed, **self._headers, **headers}
        # Of one name the last, however it is spelled.
        single = {name.lower(): (name, value) for name, value in said.items()}
        return http.check_headers([*single.values(), *shown.headers])

    def _dial(self, shown: Shown, deadline: Deadline) -> Socket:
        cluster = self._cluster
        proxy = proxies.choose(cluster)
        if proxy is not None:
            _log.debug("connecting through the proxy %s", proxy)
        to_proxy = proxy is not None and proxy.scheme == "https"
        return dial(
            cluster.host,
            cluster.port,
            context=self.tls(shown.certificate) if cluster.scheme == "https" else None,
            server_hostname=cluster.tls_server_name,
            proxy=proxy,
            proxy_context=self.tls(shown.certificate, to_proxy=True) if to_proxy else None,
            deadline=deadline,
        )

    def tls(
        self, certificate: Optional[ClientCertificate], *, to_proxy: bool = False
    ) -> ssl.SSLContext:
        """Return the TLS settings for a client certificate: the same as long as no file has changed.

        Args:
            certificate: the client's.
            to_proxy: whether they are for an https proxy. As in client-go they are those of the cluster; but
                such proxies have certificates of public authorities too.

        Raises:
            ConfigError: the authorities cannot be read, or the certificate cannot be used.

        Threads: blocks for the time of reading a file.
        """
        cluster = self._cluster
        made_of: tuple[Optional[str], Optional[ClientCertificate]] = (cluster.ca_pem(), certificate)
        with self._lock:
            kept = self._contexts.get(to_proxy)
        if kept is not None and kept[0] == made_of:
            return kept[1]
        context = tls_context(
            ca_pem=made_of[0],
            verify=not cluster.insecure_skip_tls_verify,
            strict=self._strict_x509,
            and_system=to_proxy,
            certificate_pem=certificate.cert_pem if certificate else None,
            key_pem=certificate.key_pem if certificate else None,
        )
        with self._lock:
            self._contexts[to_proxy] = (made_of, context)
        return context
