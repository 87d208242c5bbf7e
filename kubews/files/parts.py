"""Names of what is not finished, and parts: what a call that has failed leaves for the next one to go on with."""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import NamedTuple

from kubews.errors import TruncatedTransfer

#: What names begin with that a copy has not finished.
TEMPORARY = ".kubews-"


class Part(NamedTuple):
    """What the names of the parts of one file begin with.

    Threads: a value.
    """

    #: Of all that are to have a certain name in the end.
    target: str
    #: Of those that come from a certain version of a source.
    version: str

    def new_name(self) -> str:
        """Return a name that no other part has."""
        return self.version + secrets.token_hex(4)


def part_of(name: str, *source: object) -> Part:
    """Return what belongs to a name and all that tells a source from others."""
    target = f"{TEMPORARY}{_short(name)}-"
    return Part(target, f"{target}{_short(*source)}-")


def new_name() -> str:
    """Return a temporary name."""
    return TEMPORARY + secrets.token_hex(8)


def worth_keeping(exc: BaseException) -> bool:
    """Tell whether what has arrived before an error can be right: not after one of files or their contents."""
    cut = isinstance(exc, (TruncatedTransfer, ConnectionError))
    return cut or not isinstance(exc, OSError)  # CopyError is one


def _short(*words: object) -> str:
    text = "\0".join(map(str, words))
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
