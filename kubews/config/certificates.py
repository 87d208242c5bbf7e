"""Client certificates: the pair of certificate and key, from files, from data, or one of each.

Threads: values and functions without state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Optional

from kubews.config.cluster import read_file
from kubews.config.user import User
from kubews.errors import CredentialsError

_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED|Proc-Type:[^\n]*ENCRYPTED")


@dataclass(frozen=True)
class ClientCertificate:
    """A client certificate with its chain, and its private key, both as PEM.

    Equal ones can share a TLS context.

    Threads: immutable.
    """

    cert_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


def read_pair(user: User) -> ClientCertificate:
    """Read the certificate and the key of a user.

    Raises:
        CredentialsError: one of them is missing, cannot be read, or is nothing that can be used.

    Threads: any; blocks for the time of reading two files.
    """
    cert, cert_where = _read_pem(
        user, user.client_certificate_data, user.client_certificate, "client-certificate"
    )
    key, key_where = _read_pem(user, user.client_key_data, user.client_key, "client-key")
    return check_pair(cert, cert_where, key, key_where)


def check_pair(cert: bytes, cert_where: str, key: bytes, key_where: str) -> ClientCertificate:
    """Make a pair of what claims to be one.

    Args:
        cert: the certificate, with its chain.
        cert_where: where it is from, for messages.
        key: its private key.
        key_where: where that is from.

    Raises:
        CredentialsError: it is no PEM, or the key needs a pass phrase.
    """
    if b"-----BEGIN CERTIFICATE-----" not in cert:
        raise CredentialsError(f"{cert_where} holds no PEM certificate")
    if _ENCRYPTED.search(key):
        raise CredentialsError(
            f"{key_where} is encrypted; kubectl and kubews take only plain keys: "
            "remove the pass phrase with `openssl pkey -in KEY -out PLAIN`"
        )
    if b"PRIVATE KEY-----" not in key:
        raise CredentialsError(f"{key_where} holds no PEM private key")
    return ClientCertificate(cert, key)


def _read_pem(
    user: User, data: Optional[bytes], path: Optional[str], key: str
) -> tuple[bytes, str]:
    """Give the PEM of one half of the pair, and the words for where it is from."""
    if data:
        return data, f'{key}-data of user "{user.name}"'
    if not path:
        raise CredentialsError(
            f"{key}-data or {key} must be specified for {user.name} "
            "to use the clientCert authentication method."
        )
    word = "client-cert" if key == "client-certificate" else key
    return read_file(path, word, user.name, CredentialsError), f"{key} {path}"
