"""Credentials that a kubeconfig holds or names a file of, resolved anew for every connection.

Tokens and certificates in files are replaced while a program runs (a projected service account token
lives for an hour), so nothing that was read is trusted for longer than one connection. Once a file has
been read, a later failure keeps what was read: a file that is being replaced is not a reason to fail.
"""

from __future__ import annotations

import base64
import re
import threading
from typing import Optional

from kubews.config.certificates import ClientCertificate, read_pair
from kubews.config.cluster import why
from kubews.config.user import User
from kubews.errors import CredentialsError

# What would end a header line, or cannot be in one.
_NOT_IN_HEADER = re.compile(r"[^\x20-\x7e\xa1-\xff]")


class Credentials:
    """What a user shows to the API server, as far as no plugin and no issuer has to be asked for it.

    Args:
        user: whose credentials these are.

    Threads: any number at once.
    """

    def __init__(self, user: User) -> None:
        self._user = user
        # Guards the last good values. Never held while a file is read: see headers().
        self._lock = threading.RLock()
        self._token: Optional[str] = None
        self._certificate: Optional[ClientCertificate] = None

    def __repr__(self) -> str:
        return f"Credentials({self._user!r})"

    def headers(self, secure: bool = True) -> dict[str, str]:
        """Make the ``Authorization`` header of one connection.

        Args:
            secure: whether the connection is encrypted. Nothing is ever sent over one that is not.

        Returns:
            A new dict with one header, or an empty one.

        Raises:
            CredentialsError: the token cannot be read, or holds what no header can.

        Threads: any; blocks for the time of reading a file.
        """
        if not secure:
            return {}
        token = self._bearer()
        if token:
            return {"Authorization": f"Bearer {token}"}
        user = self._user
        if user.username or user.password:
            pair = f"{user.username or ''}:{user.password or ''}".encode("utf-8", "surrogatepass")
            return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
        return {}

    def client_certificate(self, secure: bool = True) -> Optional[ClientCertificate]:
        """Give the client certificate of one connection.

        Args:
            secure: whether the connection is encrypted.

        Returns:
            Certificate and key, read anew if they are in files; None if the user has none.

        Raises:
            CredentialsError: a file cannot be read, is no PEM, or the key needs a pass phrase.

        Threads: any; blocks for the time of reading two files.
        """
        user = self._user
        if not secure or not (user.client_certificate or user.client_certificate_data):
            return None
        try:
            certificate = read_pair(user)
        except CredentialsError:
            with self._lock:
                kept = self._certificate
            if kept is None:
                raise
            return kept
        with self._lock:
            self._certificate = certificate
        return certificate

    def forget(self) -> None:
        """Forget what was read, because the server has refused it (401); the next call reads anew.

        Threads: any.
        """
        with self._lock:
            self._token = None
            self._certificate = None

    def _bearer(self) -> Optional[str]:
        user = self._user
        if not user.token_file:
            return clean(user.token, f'token of user "{user.name}"') if user.token else None
        try:
            # Two threads may read at once and the older text be stored last. It is only ever used
            # when a later read fails, so that does no harm, and no thread waits for another's disk.
            token = _read_token(user.token_file)
        except CredentialsError:
            with self._lock:
                kept = self._token
            if kept is None and user.token:
                kept = clean(user.token, f'token of user "{user.name}"')
            if kept is None:
                raise
            return kept
        with self._lock:
            self._token = token
        return token


def _read_token(path: str) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (OSError, ValueError) as exc:
        problem = f'failed to read token file "{path}": open {path}: {why(exc)}'
        raise CredentialsError(problem) from exc
    # latin-1 keeps every byte as it is, all the way to the wire.
    token = clean(text.strip().decode("latin-1"), f'token file "{path}"')
    if not token:
        raise CredentialsError(f'read empty token from file "{path}"')
    return token


def clean(token: str, where: str) -> str:
    """Strip a token of the line end that editors add, and refuse what would make another header.

    Raises:
        CredentialsError: it has such characters; ``where`` begins the message.
    """
    token = token.strip()
    if _NOT_IN_HEADER.search(token):
        # Without the token, and without saying which character or where.
        raise CredentialsError(f"{where} has characters in it that no HTTP header can have")
    return token
