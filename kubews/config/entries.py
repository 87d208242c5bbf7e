"""Entries of one kubeconfig file: decode every field, complain about the first that is wrong.

The rules are those of client-go's decoder: known fields have a type and are checked in all entries,
used or not; unknown fields are ignored; null means absent; a name may stand only once in a list.

No message shows a value, for it may be a credential.

Threads: values and functions without state.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from kubews.errors import ConfigError

Decoder = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Entry:
    """One named cluster, user or context, and the file that it came from."""

    section: str
    name: str
    file: str
    fields: Mapping[str, Any] = field(repr=False)

    def get(self, key: str) -> Any:
        """Give the decoded value of a field; None for one that is absent or empty."""
        return self.fields.get(key) or None


@dataclass(frozen=True)
class File:
    """One decoded kubeconfig file."""

    path: str
    current_context: str
    clusters: Mapping[str, Entry]
    users: Mapping[str, Entry]
    contexts: Mapping[str, Entry]


class Wrong(Exception):
    """What is wrong with a value; the caller adds where it stands."""


def decode_file(document: Any, path: str) -> File:
    """Decode what the YAML or JSON of a file says.

    Args:
        document: the parsed file; None if it is empty.
        path: the file's name; relative paths in it start from its directory.

    Returns:
        The entries by name, with relative paths made absolute.

    Raises:
        ConfigError: a known field has the wrong type, or a name stands twice; names file, entry and field.
    """
    base = os.path.dirname(os.path.abspath(path))
    where = "the top level"
    try:
        top = _mapping(document, base)
        where = "apiVersion"
        if _text(top.get(where), base) not in ("", "v1"):
            raise Wrong("must be v1")
        where = "kind"
        if _text(top.get(where), base) not in ("", "Config"):
            raise Wrong("must be Config: this is no kubeconfig")
        where = "current-context"
        current = _text(top.get(where), base)
    except Wrong as exc:
        raise ConfigError(f'error loading config file "{path}": {where} {exc}') from exc
    sections = {
        section: _section(top.get(section), section, path, base)
        for section in ("clusters", "users", "contexts")
    }
    return File(path, current, **sections)


def _section(value: Any, section: str, path: str, base: str) -> dict[str, Entry]:
    """Decode one of the three lists of named entries."""
    singular = section[:-1]
    entries: dict[str, Entry] = {}
    where = section
    try:
        for number, item in enumerate(_list(value, base)):
            where = f"{section}[{number}]"
            item = _mapping(item, base)
            where = f"{section}[{number}].name"
            name = _text(item.get("name"), base)
            if name in entries:
                raise Wrong(f'"{name}" is a duplicate name in the list')
            where = f'{singular} "{name}"'
            body = _mapping(item.get(singular), base)
            fields = {}
            for key, decode in _FIELDS[section].items():
                where = f'{singular} "{name}": {key}'
                fields[key] = decode(body.get(key), base)
            entries[name] = Entry(section, name, path, fields)
    except Wrong as exc:
        raise ConfigError(f'error loading config file "{path}": {where} {exc}') from exc
    return entries


def _kind_of(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "a mapping" if isinstance(value, dict) else type(value).__name__)


def _text(value: Any, base: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    cure = " (put it in quotes)" if isinstance(value, (bool, int, float)) else ""
    raise Wrong(f"must be a string, not {_kind_of(value)}{cure}")


def _path(value: Any, base: str) -> str:
    path = _text(value, base)
    # As Go's filepath.Join, which also cleans; an absolute path stays as it is written.
    return path if not path or os.path.isabs(path) else os.path.normpath(os.path.join(base, path))


def _data(value: Any, base: str) -> bytes:
    # Go's decoder passes over line ends, and over nothing else.
    text = _text(value, base).replace("\r", "").replace("\n", "")
    problem: Optional[str] = None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        # Raised below, outside, so that what base64 says of the data is not even the context.
        problem = "is not valid base64"
    raise Wrong(problem)


def _flag(value: Any, base: str) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise Wrong(f"must be true or false, not {_kind_of(value)}")


def _list(value: Any, base: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise Wrong(f"must be a list, not {_kind_of(value)}")


def _mapping(value: Any, base: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise Wrong(f"must be a mapping, not {_kind_of(value)}")


def _present(value: Any, base: str) -> bool:
    """Decode a mapping of which only the presence counts: even an empty one asks for something."""
    _mapping(value, base)
    return value is not None


_FIELDS: Mapping[str, Mapping[str, Decoder]] = {
    "clusters": {
        "server": _text,
        "certificate-authority": _path,
        "certificate-authority-data": _data,
        "insecure-skip-tls-verify": _flag,
        "tls-server-name": _text,
        "proxy-url": _text,
        "disable-compression": _flag,
    },
    "users": {
        "client-certificate": _path,
        "client-certificate-data": _data,
        "client-key": _path,
        "client-key-data": _data,
        "token": _text,
        "tokenFile": _path,
        "username": _text,
        "password": _text,
        "as": _text,
        "as-uid": _text,
        "as-groups": _list,
        "as-user-extra": _mapping,
        "exec": _present,
        "auth-provider": _present,
    },
    "contexts": {"cluster": _text, "user": _text, "namespace": _text},
}
