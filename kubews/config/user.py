"""Frozen values of a user: what proves who is asking, and as whom to act.

No repr shows a credential, an argument or a variable of a plugin.

Threads: immutable values; share them freely.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

# What a header's name may consist of beside letters and digits (RFC 9110, token), without the percent
# sign, which begins an escape.
_NOT_IN_KEY = re.compile(rb"[^!#$&'*+.^_`|~0-9A-Za-z-]")


@dataclass(frozen=True)
class Impersonation:
    """As whom to act, which the user must be allowed to do.

    Args:
        user: name of the user.
        uid: its uid.
        groups: its groups; none means what the server gives by itself.
        extra: names and values of its extra fields.

    Threads: immutable.
    """

    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """Make the headers, one for each group and each value.

        Source: ``client-go: transport/round_trippers.go``.
        """
        pairs = [("Impersonate-User", self.user)]
        if self.uid:
            pairs.append(("Impersonate-Uid", self.uid))
        pairs += [("Impersonate-Group", group) for group in self.groups]
        for key, values in self.extra:
            escaped = _NOT_IN_KEY.sub(lambda byte: b"%%%02X" % ord(byte[0]), key.encode())
            name = f"Impersonate-Extra-{escaped.decode('ascii')}"
            pairs += [(name, value) for value in values]
        # What is written to a connection is latin-1; the server takes it for UTF-8.
        return [(name, value.encode("utf-8", "replace").decode("latin-1")) for name, value in pairs]


@dataclass(frozen=True, repr=False)
class ExecPlugin:
    """A program that prints credentials.

    Args:
        command: its name, looked for in ``PATH``, or its path.
        args: its arguments.
        env: variables to set besides those of this process.
        api_version: ``client.authentication.k8s.io/v1`` or ``.../v1beta1``, both ways.
        install_hint: what to say when there is no such program.
        provide_cluster_info: whether it is told of the cluster.
        interactive_mode: ``Never``, ``IfAvailable`` or ``Always``: what it wants of the terminal.

    Threads: immutable.
    """

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    api_version: str = "client.authentication.k8s.io/v1"
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"

    def __repr__(self) -> str:
        return f"ExecPlugin(command={self.command!r}, interactive_mode={self.interactive_mode!r})"


@dataclass(frozen=True, repr=False)
class Oidc:
    """An OpenID Connect issuer, and the tokens that it has given.

    Args:
        issuer: its URL.
        client_id: as what it knows this program.
        client_secret: proves that; none for a public client.
        certificate_authority: path of a PEM bundle that vouches for the issuer.
        certificate_authority_data: the bundle itself; goes before the file.
        id_token: the bearer token for the API server, if there is one yet.
        refresh_token: gets the next one, if there is one.
        file: the kubeconfig that new tokens are written to, or None.
        entry: name of the user there.

    Threads: immutable.
    """

    issuer: str
    client_id: str
    client_secret: str = ""
    certificate_authority: Optional[str] = None
    certificate_authority_data: Optional[bytes] = None
    id_token: str = ""
    refresh_token: str = ""
    file: Optional[str] = None
    entry: str = ""

    def __repr__(self) -> str:
        return f"Oidc(issuer={self.issuer!r}, client_id={self.client_id!r})"


@dataclass(frozen=True, repr=False)
class User:
    """Who is asking, and what proves it. All fields empty means nobody: anonymous.

    Args:
        token: bearer token.
        token_file: path of a file with the token, read anew for every connection; goes before ``token``.
        client_certificate: path of the PEM certificate.
        client_certificate_data: the certificate itself; goes before the file.
        client_key: path of the PEM key.
        client_key_data: the key itself; goes before the file.
        username: for HTTP basic authentication, with ``password``.
        password: for HTTP basic authentication, with ``username``.
        exec: a program that prints a token or a certificate; only used if nothing of the above is given.
        oidc: where a token is from; only used if there is no other and no basic authentication.
        impersonate: as whom to act.
        name: name of the kubeconfig entry, for messages.

    Threads: immutable.
    """

    token: Optional[str] = None
    token_file: Optional[str] = None
    client_certificate: Optional[str] = None
    client_certificate_data: Optional[bytes] = None
    client_key: Optional[str] = None
    client_key_data: Optional[bytes] = None
    username: Optional[str] = None
    password: Optional[str] = None
    exec: Optional[ExecPlugin] = None
    oidc: Optional[Oidc] = None
    impersonate: Optional[Impersonation] = None
    name: str = ""

    @property
    def kind(self) -> str:
        """Name the ways in which this user proves who it is (``"client certificate, token"``)."""
        kinds = {
            "client certificate": self.client_certificate or self.client_certificate_data,
            "token file": self.token_file,
            "token": self.token,
            "basic": self.username or self.password,
            "exec plugin": self.exec,
            "oidc": self.oidc,
        }
        return ", ".join(kind for kind, given in kinds.items() if given) or "anonymous"

    def __repr__(self) -> str:
        acting = f", impersonate={self.impersonate.user!r}" if self.impersonate else ""
        return f"User(name={self.name!r}, kind={self.kind!r}{acting})"


#: Nobody in particular.
ANONYMOUS = User()
