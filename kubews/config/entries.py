"""Entries of one kubeconfig file: decode every field, complain about the first that is wrong.

The rules are those of client-go's decoder: known fields have a type and are checked in all entries,
used or not; unknown fields are ignored; null means absent; a name may stand only once in a list.

No message shows a value, for it may be a credential.

Threads: values and functions without state.
"""

from __future__ import annotations

import base64
import json
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
        path: the file's name; relative paths in it start from its directory, or from the working
            directory if it is empty, of what is no file.

    Returns:
        The entries by name, with relative paths made absolute.

    Raises:
        ConfigError: a known field has the wrong type, or a name stands twice; names file, entry and field.
    """
    base = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    said = f'error loading config file "{path}"' if path else "invalid configuration"
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
        raise ConfigError(f"{said}: {where} {exc}") from exc
    sections = {
        section: _section(top.get(section), section, path, base, said)
        for section in ("clusters", "users", "contexts")
    }
    return File(path, current, **sections)


def _section(value: Any, section: str, path: str, base: str, said: str) -> dict[str, Entry]:
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
        raise ConfigError(f"{said}: {where} {exc}") from exc
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


def _texts(value: Any, base: str) -> list[str]:
    return [_text(item, base) for item in _list(value, base)]


def _text_of_texts(value: Any, base: str) -> dict[str, str]:
    return {_text(key, base): _text(item, base) for key, item in _mapping(value, base).items()}


def _lists(value: Any, base: str) -> dict[str, list[str]]:
    return {_text(key, base): _texts(item, base) for key, item in _mapping(value, base).items()}


def _optional(decode: Decoder) -> Decoder:
    """Decode a mapping that may be missing: an empty one asks for something, None for nothing."""
    return lambda value, base: None if value is None else decode(value, base)


def _fields_of(decoders: Mapping[str, Decoder]) -> Decoder:
    """Make a decoder of a mapping with these fields."""

    def decode(value: Any, base: str) -> dict[str, Any]:
        body = _mapping(value, base)
        fields = {}
        for key, field_of in decoders.items():
            try:
                fields[key] = field_of(body.get(key), base)
            except Wrong as exc:
                raise Wrong(f"{key} {exc}") from None
        return fields

    return decode


def _list_of(decode: Decoder) -> Decoder:
    return lambda value, base: [decode(item, base) for item in _list(value, base)]


def _command(value: Any, base: str) -> str:
    # Only what has a separator in it is a path; anything else is looked for in PATH.
    command = _text(value, base)
    return _path(command, base) if os.path.basename(command) != command else command


def _exec(value: Any, base: str) -> dict[str, Any]:
    fields: dict[str, Any] = _EXEC(value, base)
    old = fields["apiVersion"].endswith(("/v1beta1", "/v1alpha1"))
    if not fields["interactiveMode"] and old:
        fields["interactiveMode"] = "IfAvailable"
    return fields


def _exec_extension(value: Any, base: str) -> str:
    """Give the extension that is meant for exec plugins as JSON, or nothing."""
    found = ""
    for item in _list(value, base):
        body = _mapping(item, base)
        name, extension = _text(body.get("name"), base), body.get("extension")
        if name == "client.authentication.k8s.io/exec" and extension is not None:
            found = _json(extension)
    return found


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        problem = "has something in it that JSON cannot express"
    raise Wrong(problem)


_EXEC = _fields_of(
    {
        "command": _command,
        "args": _texts,
        "env": _list_of(_fields_of({"name": _text, "value": _text})),
        "apiVersion": _text,
        "installHint": _text,
        "provideClusterInfo": _flag,
        "interactiveMode": _text,
    }
)

_FIELDS: Mapping[str, Mapping[str, Decoder]] = {
    "clusters": {
        "server": _text,
        "certificate-authority": _path,
        "certificate-authority-data": _data,
        "insecure-skip-tls-verify": _flag,
        "tls-server-name": _text,
        "proxy-url": _text,
        "disable-compression": _flag,
        "extensions": _exec_extension,
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
        "as-groups": _texts,
        "as-user-extra": _lists,
        "exec": _optional(_exec),
        "auth-provider": _optional(_fields_of({"name": _text, "config": _text_of_texts})),
    },
    "contexts": {"cluster": _text, "user": _text, "namespace": _text},
}
