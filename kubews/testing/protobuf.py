"""As much of protobuf as kubectl's reviews need: it sends them in nothing else.

Source: ``k8s.io/apimachinery/pkg/runtime/generated.proto`` and ``k8s.io/api/authorization/v1``.

Threads: pure functions.
"""

from __future__ import annotations

from typing import Any

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_RAW = 2  # of runtime.Unknown
_SPEC = 2  # of every object, behind its metadata
_RESOURCE = {
    1: "namespace",
    2: "verb",
    3: "group",
    4: "version",
    5: "resource",
    6: "subresource",
    7: "name",
}
_PATH = {1: "path", 2: "verb"}


def access_spec(body: bytes) -> dict[str, Any]:
    """Return the spec of a SelfSubjectAccessReview as JSON would have it.

    Raises:
        ValueError: it is none.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("not the envelope of Kubernetes")
    spec = _fields(_fields(_fields(body[len(_MAGIC) :])[_RAW]).get(_SPEC, b""))
    names = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
    return {
        name: {
            key: value.decode()
            for number, value in _fields(spec[field]).items()
            if (key := keys.get(number)) is not None
        }
        for field, (name, keys) in names.items()
        if field in spec
    }


def _fields(message: bytes) -> dict[int, bytes]:
    """Return the fields that have a length, of repeated ones the last."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(message, position)
        elif kind == 2:
            size, position = _varint(message, position)
            found[tag >> 3] = message[position : position + size]
            position += size
            if position > len(message):
                raise ValueError("cut off")
        else:
            raise ValueError(f"a field of kind {kind}")
    return found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("cut off")
