"""What one user shows on each connection, and whom it asks to be: the same for REST and streams.

What is in the kubeconfig or in its files is read for every connection. What a plugin or an issuer has
issued is kept while it is good, and got by one thread for all that want it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Optional

from kubews.config import (
    ClientCertificate,
    Cluster,
    Config,
    Credentials,
    ExecPlugin,
    Issued,
)
from kubews.errors import CredentialsError
from kubews.transport.deadline import Deadline
from kubews.transport.wait import Expired, Outcome

if TYPE_CHECKING:
    from kubews.config import oidc


@dataclass(frozen=True)
class Shown:
    """What one connection shows.

    Args:
        headers: ``Authorization`` and those of impersonation.
        certificate: for the TLS handshake.
        issued: what of it was issued for a time.

    Threads: a value.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    certificate: Optional[ClientCertificate] = None
    issued: Optional[Issued] = None


class _Again(Exception):
    """Who was to get the credentials was interrupted, or had less time: somebody else has to."""


class Identity:
    """The user of a configuration.

    Args:
        config: whose user, and at which cluster.

    Threads: any number at once.
    """

    def __init__(self, config: Config) -> None:
        self._cluster, self._user = config.cluster, config.user
        self._credentials = Credentials(config.user)
        self._source = self._choose_source()
        self._lock = threading.RLock()
        # Guarded by _lock. Invariant: at most one thread is asking, and _asking is what it will answer.
        self._issued: Optional[Issued] = None
        self._refused: Optional[Issued] = None
        self._asking: Optional[Outcome[Issued]] = None

    def __repr__(self) -> str:
        return f"<Identity {self._user!r}>"

    def show(self, deadline: Deadline) -> Shown:
        """Make what a new connection shows. Over plain http that is no credential.

        Args:
            deadline: for a plugin or an issuer, which may want the user to do something first.

        Raises:
            CredentialsError: there is something to show, and it cannot be had. Nothing is shown instead.

        Threads: any; blocks while files are read, and while this or another thread asks.
        """
        acting = self._user.impersonate
        impersonation = tuple(acting.headers()) if acting else ()
        if self._cluster.scheme != "https":
            return Shown(impersonation)
        authorization = tuple(self._credentials.headers().items())
        certificate = self._credentials.client_certificate()
        issued: Optional[Issued] = None
        if self._source is not None and not authorization:
            issued = self._get_issued(deadline)
            certificate = certificate or issued.certificate
            if issued.token:
                authorization = (("Authorization", f"Bearer {issued.token}"),)
        return Shown(authorization + impersonation, certificate, issued)

    def refused(self, shown: Shown) -> None:
        """Do not show again what the server has refused (401).

        Of many threads that were refused at once, the first makes all of them get something new.

        Threads: any.
        """
        self._credentials.forget()
        with self._lock:
            if shown.issued is not None and shown.issued is self._issued:
                self._issued, self._refused = None, shown.issued

    def _choose_source(self) -> Optional[Callable[[Deadline], Issued]]:
        user = self._user
        if user.exec is not None:
            if user.client_certificate or user.client_certificate_data:
                return None  # as client-go: what the entry holds itself goes before its plugin
            return partial(_run_plugin, user.exec, self._cluster)
        if user.oidc is not None:
            # Here, and not above: a program that starts pays for what its user needs.
            from kubews.config import oidc
            from kubews.transport.fetch import fetch

            return partial(self._issue, oidc.Source(user.oidc, fetch))
        return None

    def _issue(self, source: oidc.Source, deadline: Deadline) -> Issued:
        refused = self._refused.token if self._refused else None
        return source.issue(refused, deadline.remaining())

    def _get_issued(self, deadline: Deadline) -> Issued:
        while True:
            asking: Outcome[Issued] = Outcome()
            try:
                with self._lock:
                    if self._issued is not None and self._issued.fresh():
                        return self._issued
                    if self._asking is None:
                        self._asking = asking
                    answer = self._asking
                if answer is asking:
                    return self._ask(asking, deadline)
            finally:
                # However this thread ends, the others must not wait for it.
                with self._lock:
                    if self._asking is asking:
                        self._asking = None
                asking.set_exception(_Again())
            try:
                return answer.get(deadline)
            except _Again:
                pass
            except Expired as exc:
                raise CredentialsError(
                    f"getting credentials: none for {self._user!r} within the time limit"
                ) from exc

    def _ask(self, asking: Outcome[Issued], deadline: Deadline) -> Issued:
        assert self._source is not None
        try:
            issued = self._source(deadline)
        except Exception as exc:
            if not deadline.expired():  # or others may have more time than this one
                asking.set_exception(exc)
            raise
        with self._lock:
            self._issued = issued
        asking.set(issued)
        return issued


def _run_plugin(plugin: ExecPlugin, cluster: Cluster, deadline: Deadline) -> Issued:
    from kubews.config import execplugin  # see _choose_source

    return execplugin.run(plugin, cluster, deadline.remaining())
