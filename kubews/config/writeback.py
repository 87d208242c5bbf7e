"""Write new tokens into the kubeconfig that the old ones are from, and leave the rest of it as it is.

Threads: functions without state; they block for the time of reading and writing a file.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from kubews.config.parsing import lay_out, parse
from kubews.config.user import Oidc
from kubews.errors import ConfigError

_LOCK_TIMEOUT = 2.0


def write_tokens(old: Oidc, new: Oidc) -> None:
    """Replace the tokens of a user's entry; nothing is done for one that is from no file.

    Comments and layout stay if the old tokens stand in the file as they are; else the file is laid out
    anew, as kubectl does always. It is replaced in one step, and other programs that lock it as kubectl
    does are waited for.

    Args:
        old: what the file is expected to hold, with ``file`` and ``entry``.
        new: what it shall hold.

    Raises:
        ConfigError: the file no longer holds this entry, or is locked by another program.
        OSError: it cannot be read or written.

    Threads: any; blocks.
    """
    if not old.file:
        return
    path = os.path.realpath(old.file)  # of a link the file behind it
    with _locked(path):
        with open(path, "rb") as file:
            text = file.read()
        wanted = parse(text, f'error loading config file "{path}"')
        config = _provider_config(wanted, old)
        before = copy.deepcopy(config)
        config["id-token"] = new.id_token
        config["refresh-token"] = new.refresh_token
        _replace(path, _edited(text, before, config, wanted))


def _provider_config(document: Any, old: Oidc) -> dict[str, Any]:
    """Find the map with the tokens."""
    try:
        for user in document["users"]:
            if user["name"] == old.entry:
                config = user["user"]["auth-provider"]["config"]
                if isinstance(config, dict):
                    return config
    except (KeyError, TypeError):
        pass
    raise ConfigError(f'{old.file} has no user "{old.entry}" with an auth-provider any more')


def _edited(text: bytes, before: dict[str, Any], after: dict[str, Any], wanted: Any) -> bytes:
    """Make the new text, by replacing words if that does it."""
    edited = text
    for key in ("id-token", "refresh-token"):
        if before.get(key):
            edited = edited.replace(str(before[key]).encode(), str(after[key]).encode())
    with contextlib.suppress(ConfigError):
        if parse(edited, "") == wanted:
            return edited
    if text.lstrip()[:1] == b"{":
        return json.dumps(wanted, indent=4).encode() + b"\n"
    return lay_out(wanted).encode()


def _replace(path: str, text: bytes) -> None:
    mode = os.stat(path).st_mode & 0o777
    directory, name = os.path.split(path)
    descriptor, draft = tempfile.mkstemp(prefix=f".{name}-", dir=directory)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock that kubectl takes (``client-go: tools/clientcmd/config.go: lockFile``)."""
    lock = f"{path}.lock"
    end = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0)
            break
        except FileExistsError:
            if time.monotonic() > end:
                raise ConfigError(f"{lock} says that another program writes there") from None
        time.sleep(0.02)
    try:
        os.close(descriptor)
        yield
    finally:
        os.unlink(lock)
