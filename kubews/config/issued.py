"""Credentials that somebody has issued for a time: a token, a client certificate, or both.

Threads: immutable values.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Optional

from kubews.config.certificates import ClientCertificate

#: Seconds before its end from which a credential is no longer used: clocks differ, and requests take time.
LEEWAY = 10.0


@dataclass(frozen=True)
class Issued:
    """What a plugin or an issuer has given.

    Args:
        token: bearer token, checked to fit into a header.
        certificate: client certificate.
        expires: seconds since 1970; None if nothing but a refusal tells the end.

    Threads: immutable.
    """

    token: Optional[str] = field(default=None, repr=False)
    certificate: Optional[ClientCertificate] = None
    expires: Optional[float] = None

    def fresh(self) -> bool:
        """Say whether it can still be used for a new connection."""
        # The clock of the day: the end is told in it, and a suspended machine must not stop it.
        return self.expires is None or time.time() < self.expires - LEEWAY
