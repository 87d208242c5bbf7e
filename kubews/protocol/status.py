"""metav1.Status: the document that ends an exec, and the body of a refusal.

The two producers differ in their fields (apiserver translator and container runtime), so everything
that is not needed may be absent (kubernetes ``cri-streaming/pkg/streaming/remotecommand/status.go``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Optional

from kubews.protocol.events import Status

# The type of a cause is spelled "reason" on the wire (apimachinery meta/v1 types.go: StatusCause).
_EXIT_CODE_CAUSE = "ExitCode"
_NON_ZERO_EXIT_CODE = "NonZeroExitCode"
# Windows containers report codes of 32 bits. Zero would contradict the Failure that carries it.
_DECIMAL = re.compile(r"0*([1-9][0-9]{0,9})", re.ASCII)
# A v5 translator wraps a message that the runtime's side has already wrapped.
_DOUBLED_PREFIX = re.compile(r"^(Internal error occurred: )\1+")


def decode_document(raw: bytes) -> Optional[dict[str, Any]]:
    """Decode a JSON object of kind Status.

    Args:
        raw: the whole document.

    Returns:
        The object, or None if the bytes are not JSON, not an object, or without a ``status`` field
        of one of the two known values.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and document.get("status") in ("Success", "Failure"):
        return document
    return None


def from_document(document: Mapping[str, Any]) -> Status:
    """Interpret a decoded Status.

    Args:
        document: what ``decode_document`` returned.

    Returns:
        The event; its ``exit_code`` is None wherever the document does not carry one.
    """
    success = document["status"] == "Success"
    reason = _text(document, "reason")
    message = _DOUBLED_PREFIX.sub(r"\1", _text(document, "message"))
    return Status(
        success=success,
        exit_code=0 if success else _exit_code(document, reason),
        message=message or ("" if success else "the server gave no message"),
        reason=reason,
        document=document,
    )


def from_text(raw: bytes) -> Status:
    """Interpret what is no Status document: the bare message of an unversioned protocol, or damage.

    Args:
        raw: the bytes of the error channel.

    Returns:
        A failure without an exit code, because a text is not to be trusted with one.
    """
    return Status(
        success=False,
        exit_code=None,
        message=raw.decode("utf-8", "replace").strip(),
        reason="",
        document={},
    )


def _exit_code(document: Mapping[str, Any], reason: str) -> Optional[int]:
    if reason != _NON_ZERO_EXIT_CODE:
        return None
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        # Other causes may stand before it: never index, always search.
        if isinstance(cause, dict) and cause.get("reason") == _EXIT_CODE_CAUSE:
            # Without its zeros: int() refuses thousands of digits, whatever their value.
            match = _DECIMAL.fullmatch(_text(cause, "message"))
            return int(match[1]) if match else None
    return None


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
