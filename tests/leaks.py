"""Every secret that the suite has used, and a look for them in everything that it has printed.

What is made into a credential is noted as it is made: tokens, passwords and keys of users and proxies, what plugins and
issuers give, the tokens of LocalCluster. Captured output and what the logger says, at its most talkative,
are searched after every test.
"""

from __future__ import annotations

import base64
import functools
from typing import Any

import pytest

from kubews.config import ClientCertificate, Issued, Oidc, User
from kubews.config.proxies import Proxy
from kubews.testing import LocalCluster

# What is shorter may be a word, and stand in any text.
_SHORTEST = 10

_used: set[str] = set()

_FIELDS: dict[type, tuple[str, ...]] = {
    User: ("token", "password", "client_key_data"),
    ClientCertificate: ("key_pem",),
    Issued: ("token",),
    Oidc: ("client_secret", "id_token", "refresh_token"),
    Proxy: ("password",),
}


def note(secret: str | bytes | None) -> None:
    """Remember a secret, in the forms in which it could be printed."""
    if isinstance(secret, bytes):
        # A line of a key says enough; and its base64 is how a kubeconfig has it.
        lines = [line for line in secret.decode("latin-1").splitlines() if "-----" not in line]
        forms = [lines[len(lines) // 2] if lines else "", base64.b64encode(secret).decode()]
    else:
        text = (secret or "").strip()
        forms = [text, base64.b64encode(text.encode("utf-8", "replace")).decode()]
    _used.update(form for form in forms if len(form) >= _SHORTEST)


def watch() -> None:
    """Note from now on whatever is made into a credential."""
    for kind, fields in _FIELDS.items():
        _wrap(kind, fields)
    add_user = LocalCluster.add_user

    @functools.wraps(add_user)
    def noting(*args: Any, **options: Any) -> str:
        token = add_user(*args, **options)
        note(token)
        return token

    LocalCluster.add_user = noting  # type: ignore[method-assign]


def _wrap(kind: type, fields: tuple[str, ...]) -> None:
    made: Any = kind.__init__

    @functools.wraps(made)
    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        for field in fields:
            note(getattr(self, field))

    kind.__init__ = init  # type: ignore[misc]


def found(text: str) -> int:
    """Count the secrets that stand in a text."""
    return sum(secret in text for secret in _used)


def check(report: pytest.TestReport) -> None:
    """Fail a test that has printed a secret. The secret is not printed again."""
    for name, text in report.sections:
        if found(text):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: {name} has a secret in it, or its base64"
            # So that what is printed of the failure has none.
            report.sections = [each for each in report.sections if not found(each[1])]
            return
