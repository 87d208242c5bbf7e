"""Who is asking, and may they: certificates, tokens, impersonation and a minimal RBAC.

Threads: ``Users`` may be read and changed by any thread; everything else is a value.
"""

from __future__ import annotations

import base64
import dataclasses
import threading
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from kubews.testing.objects import Json, status

ADMIN = "kubernetes-admin"
AUTHENTICATED = "system:authenticated"  # the group of everybody who is known
TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."

_AUTHENTICATION = "authentication.k8s.io"

Headers = Sequence[tuple[str, str]]


class Refused(Exception):
    """The request is answered with this Status and nothing else.

    Args:
        body: the Status.
        nosniff: the answer carries ``X-Content-Type-Options: nosniff``, as those of the
            authorization filter do.
    """

    def __init__(self, body: Json, *, nosniff: bool = False) -> None:
        super().__init__(body["message"])
        self.body = body
        self.nosniff = nosniff


@dataclasses.dataclass(frozen=True)
class User:
    """A name, its groups, and what it may do: resource -> verbs, ``"*"`` for any.

    An impersonated one has the uid and the extra fields that were asked for. One that may not act as
    another may do nothing; ``acting`` is what goes before the verb then when it is told.

    A resource of another group than the core one is written with it: ``deployments.apps``.
    """

    name: str
    groups: frozenset[str] = frozenset()
    rules: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    token: Optional[str] = dataclasses.field(default=None, repr=False)
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    acting: str = ""

    def may(self, verb: str, resource: str) -> bool:
        """Tell whether a rule allows ``verb`` on ``resource``."""
        if self.acting:
            return False
        if "system:masters" in self.groups:
            return True
        granted = self.rules.get(resource, frozenset()) | self.rules.get("*", frozenset())
        return verb in granted or "*" in granted


ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))


def headers_named(headers: Headers, name: str) -> list[str]:
    """Return the values of every header line called ``name`` (lower case)."""
    return [value for key, value in headers if key.lower() == name]


class Users:
    """The users of a cluster, by name and by token.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, User] = {}
        self._have_acted: set[str] = set()

    def add(self, user: User) -> None:
        """Add a user, or replace the one of that name.

        Raises:
            ValueError: another has the same token.
        """
        with self._lock:
            for other in self._by_name.values():
                if other.token == user.token is not None and other.name != user.name:
                    raise ValueError(f"user {other.name!r} has the same token; use another")
            self._by_name[user.name] = user

    def all(self) -> list[User]:
        """Return every user."""
        with self._lock:
            return list(self._by_name.values())

    def named(self, name: str, groups: Iterable[str] = ()) -> User:
        """Return the user of that name; an unknown one has no rights."""
        with self._lock:
            known = self._by_name.get(name, User(name))
        return dataclasses.replace(known, groups=known.groups | frozenset(groups))

    def with_token(self, token: str) -> User:
        """Return the user of that token.

        Raises:
            Refused: 401.
        """
        for user in self.all():
            if user.token is not None and user.token == token:
                return user
        raise unauthorized()

    def authenticate(
        self, headers: Headers, certificate: Optional[dict[str, Any]], minor: int
    ) -> User:
        """Find out who is asking, impersonation included.

        The order is that of kube-apiserver (``authenticator/config.go: New``): certificate, bearer
        token, WebSocket subprotocol token, anonymous.

        Raises:
            Refused: 400, 401 or 403.
        """
        if certificate is not None:
            user = self._from_certificate(certificate)
        elif authorization := headers_named(headers, "authorization"):
            scheme, _, token = authorization[0].partition(" ")
            user = self.with_token(token.strip() if scheme.lower() == "bearer" else "")
        elif tokens := protocol_tokens(headers):
            user = self.with_token(tokens[0])
        else:
            user = ANONYMOUS
        return self._impersonate(user, headers, minor)

    def _from_certificate(self, certificate: dict[str, Any]) -> User:
        subject = [pair for part in certificate.get("subject", ()) for pair in part]
        names = [value for key, value in subject if key == "commonName"]
        groups = {value for key, value in subject if key == "organizationName"}
        if not names:
            raise unauthorized()
        return self.named(names[0], groups)

    def _impersonate(self, user: User, headers: Headers, minor: int) -> User:
        names, groups, uids = (
            [_utf8(value) for value in headers_named(headers, f"impersonate-{what}")]
            for what in ("user", "group", "uid")
        )
        extra = _impersonated_extra(headers)
        if not names:
            if groups or uids or extra:
                message = "requested impersonation without impersonating a user name"
                raise Refused(status(400, "BadRequest", message))
            return user
        # Its rights are those of the name; the groups that it has otherwise do not come with it.
        wanted = dataclasses.replace(
            self.named(names[0]), groups=frozenset(groups), uid="".join(uids[:1]), extra=extra
        )
        try:
            _authorize_impersonation(user, wanted, groups)
        except Refused:
            mode = _constrained_mode(wanted) if minor >= 36 else ""
            # What went well last time is tried first, and it is the first refusal that is told.
            if not mode or user.name in self._have_acted:
                raise
            return dataclasses.replace(user, acting=f"impersonate-on:{mode}:")
        with self._lock:
            self._have_acted.add(user.name)
        return wanted


def _authorize_impersonation(user: User, wanted: User, groups: Sequence[str]) -> None:
    authorize(user, "impersonate", "users", name=wanted.name)
    for group in groups:
        authorize(user, "impersonate", "groups", name=group)
    for key, values in wanted.extra.items():
        for value in values:
            resource = f"userextras/{key}"
            authorize(user, "impersonate", resource, name=value, group=_AUTHENTICATION)
    if wanted.uid:
        authorize(user, "impersonate", "uids", name=wanted.uid, group=_AUTHENTICATION)


def _constrained_mode(wanted: User) -> str:
    """Name the mode that 1.36 tries before the old one (``filters/impersonation/mode.go``), if there is one."""
    only_name = not (wanted.groups or wanted.uid or wanted.extra)
    for prefix, mode in (
        ("system:node:", "arbitrary-node"),
        ("system:serviceaccount:", "serviceaccount"),
    ):
        if wanted.name.startswith(prefix):
            return mode if only_name else ""
    return "user-info"


def _impersonated_extra(headers: Headers) -> dict[str, list[str]]:
    prefix, extra = "impersonate-extra-", dict[str, list[str]]()
    for name, value in headers:
        if name.lower().startswith(prefix):
            key = urllib.parse.unquote(name.lower()[len(prefix) :])
            extra.setdefault(key, []).append(_utf8(value))
    return extra


def _utf8(value: str) -> str:
    return value.encode("latin-1").decode("utf-8", "replace")


def protocol_tokens(headers: Headers) -> list[str]:
    """Return the bearer tokens among the offered subprotocols of a WebSocket request.

    Raises:
        Refused: 401, for more than one token, a bad encoding, or no other subprotocol
            (``apiserver: authentication/request/websocket/protocol.go``).
    """
    if not is_websocket(headers):
        return []
    offered = offered_protocols(headers)
    encoded = [name[len(TOKEN_PROTOCOL) :] for name in offered if name.startswith(TOKEN_PROTOCOL)]
    if not encoded:
        return []
    if len(encoded) > 1 or len(offered) == 1:
        raise unauthorized()
    text = encoded[0]
    try:
        padded = text + "=" * (-len(text) % 4)
        return [base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8")]
    except ValueError:  # of the encoding, or of characters that no encoding has
        raise unauthorized() from None


def offered_protocols(headers: Headers) -> list[str]:
    """Return the offered subprotocols; only the first header line counts, as in x/net."""
    lines = headers_named(headers, "sec-websocket-protocol")
    return [name.strip() for name in lines[0].split(",") if name.strip()] if lines else []


def is_upgrade(headers: Headers) -> bool:
    """Tell whether the request asks for any upgrade (``httpstream.go: IsUpgradeRequest``)."""
    return any("upgrade" in value.lower() for value in headers_named(headers, "connection"))


def is_websocket(headers: Headers) -> bool:
    """Tell whether the request asks for a WebSocket (``wsstream: IsWebSocketRequest``)."""
    upgrade = headers_named(headers, "upgrade")
    return is_upgrade(headers) and bool(upgrade) and upgrade[0].lower() == "websocket"


def unauthorized() -> Refused:
    """Return the 401, whose message is always the same."""
    return Refused(status(401, "Unauthorized", "Unauthorized"))


def authorize(
    user: User, verb: str, resource: str, namespace: str = "", name: str = "", *, group: str = ""
) -> None:
    """Check a request as the authorization filter does.

    Raises:
        Refused: 403.
    """
    # The rules name a resource with its group, as kubectl does: deployments.apps.
    suffix = f".{group}" if group else ""
    if user.may(verb, resource + suffix):
        return
    kind = resource.partition("/")[0]
    what = f'{kind}{suffix} "{name}"' if name else kind + suffix
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{what} is forbidden: User "{user.name}" cannot {user.acting}{verb} resource "{resource}" '
        f'in API group "{group}" {where}'
    )
    body = status(403, "Forbidden", message, name=name, group=group, kind=kind)
    raise Refused(body, nosniff=True)


def authorize_stream(user: User, pod: str, resource: str) -> None:
    """Check ``create``, which 1.35 and later want of WebSocket requests besides ``get``.

    The text ends after the colon: RBAC gives no reason (``pod/rest/authorize.go``).

    Raises:
        Refused: 403.
    """
    if not user.may("create", resource):
        message = f'pods "{pod}" is forbidden: '
        raise Refused(status(403, "Forbidden", message, name=pod, kind="pods"))


def authorize_path(user: User, path: str) -> None:
    """Check a request for a path that is no resource: discovery needs a known user.

    Raises:
        Refused: 403.
    """
    public = ("/version", "/healthz", "/livez", "/readyz")
    if user.acting or (user.name == ANONYMOUS.name and not path.startswith(public)):
        message = f'forbidden: User "{user.name}" cannot {user.acting}get path "{path}"'
        raise Refused(status(403, "Forbidden", message), nosniff=True)


_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_SCHEMES = frozenset({"basic", "bearer", "digest", "negotiate", "ntlm"})
_MARK = "<redacted>"


def redact(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return headers (names in lower case) with every credential replaced by a mark."""
    clean = []
    for key, value in headers:
        name = key.lower()
        if name in _SECRET_HEADERS:
            # What is no scheme that we know, or stands alone, may be the credential itself.
            scheme, _, rest = value.partition(" ")
            known = scheme.lower() in _SCHEMES and rest and name != "cookie"
            value = f"{scheme} {_MARK}" if known else _MARK
        elif name == "sec-websocket-protocol":
            value = ", ".join(_without_token(part.strip()) for part in value.split(","))
        clean.append((name, value))
    return tuple(clean)


def _without_token(protocol: str) -> str:
    return TOKEN_PROTOCOL + _MARK if protocol.lower().startswith(TOKEN_PROTOCOL) else protocol
