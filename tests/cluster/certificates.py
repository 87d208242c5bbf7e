"""One authority for everything, and who gets a certificate of it."""

from __future__ import annotations

import os
from pathlib import Path

import trustme

from .layout import NODE

# Name of the files, names for the server, common name (the user), organisation (the group).
_CERTIFICATES = (
    ("apiserver", ("127.0.0.1", "localhost", "kubernetes.default"), "kube-apiserver", None),
    ("kubelet", ("127.0.0.1", "localhost"), "kubelet", None),
    ("apiserver-to-kubelet", ("client",), "kube-apiserver-to-kubelet", "system:masters"),
    ("node", ("client",), f"system:node:{NODE}", "system:nodes"),
    ("admin", ("client",), "kubews-admin", "system:masters"),
    ("accounts", ("client",), "service-accounts", None),
)


def make_certificates(folder: Path) -> None:
    """Write ``ca.crt`` and, for every name, ``NAME.crt`` and ``NAME.key``.

    ``accounts`` is the key that signs the tokens of service accounts.
    """
    authority = trustme.CA(organization_name="kubews tests")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name, identities, user, group in _CERTIFICATES:
        leaf = authority.issue_cert(*identities, common_name=user, organization_name=group)
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
        write_secret(folder / f"{name}.key", leaf.private_key_pem.bytes())


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
