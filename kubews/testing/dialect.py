"""What an exec request asks for, and what a negotiated subprotocol means for the answer.

Threads: values and pure functions.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import Optional

from kubews.testing import objects

V5 = "v5.channel.k8s.io"
# cri-streaming remotecommand/websocket.go: what a container runtime accepts over WebSocket.
RUNTIME_PROTOCOLS = (
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
)


def is_true(value: Optional[str]) -> bool:
    """Decode a boolean of a query as apimachinery does: ``stdin=`` means true."""
    return value is not None and value != "0" and value.lower() != "false"


@dataclasses.dataclass(frozen=True)
class Options:
    """What an exec request asks for."""

    command: tuple[str, ...]
    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def from_query(cls, query: list[tuple[str, str]]) -> Options:
        """Decode a query; of a repeated parameter other than ``command`` the first counts."""
        first: dict[str, str] = {}
        for key, value in query:
            first.setdefault(key, value)
        tty = is_true(first.get("tty"))
        return cls(
            command=tuple(value for key, value in query if key == "command"),
            container=first.get("container", ""),
            stdin=is_true(first.get("stdin")),
            stdout=is_true(first.get("stdout")),
            # Not an error together with a tty: stderr is switched off (httpstream.go: NewOptions).
            stderr=is_true(first.get("stderr")) and not tty,
            tty=tty,
        )


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What a negotiated subprotocol means.

    Args:
        name: its name; empty if none was offered.
        base64: frames are text: the channel's digit and base64.
        versioned: the status is JSON, and comes after success too.
        v5: the translator ends the stream: half-close, short frames, its own texts.
        metadata: the Status has a ``metadata`` field.
    """

    name: str
    base64: bool
    versioned: bool
    v5: bool
    metadata: bool

    def success(self) -> bytes:
        """Return the status of exit code 0; nothing where the protocol has no versions."""
        if not self.versioned:
            return b""
        return objects.dumps(objects.stream_success(metadata=self.metadata))

    def exit(self, code: int, command: tuple[str, ...]) -> bytes:
        """Return the status of another exit code."""
        if self.v5:
            detail = f"command terminated with exit code {code}"
        else:
            detail = f"error executing command [{' '.join(command)}], exit code {code}"
        return self._text(objects.stream_exit(code, detail, metadata=self.metadata))

    def error(self, cause: str) -> bytes:
        """Return the status of a failure that is no exit code."""
        return self._text(objects.stream_error(cause, metadata=self.metadata))

    def cannot_start(self, why: str) -> bytes:
        """Return the status for a command that the runtime could not start."""
        cause = (
            "error executing command in container: failed to exec in container: failed to start "
            f'exec "{secrets.token_hex(32)}": OCI runtime exec failed: exec failed: {why}: unknown'
        )
        # The translator wraps the upstream's error in one of its own.
        return self.error(f"Internal error occurred: {cause}" if self.v5 else cause)

    def _text(self, body: objects.Json) -> bytes:
        return objects.dumps(body) if self.versioned else str(body["message"]).encode()


def negotiate(offered: list[str], minor: int, metadata: bool) -> Optional[Dialect]:
    """Choose a subprotocol as the chain of servers does; None is the empty 403.

    A list with v5 anywhere goes to the translator, which knows nothing else; any other goes to the
    runtime, which takes the client's first that it knows.
    """
    if V5 in offered and minor >= 30:
        return Dialect(V5, base64=False, versioned=True, v5=True, metadata=True)
    name = next((name for name in offered if name in RUNTIME_PROTOCOLS), None)
    if name is None and offered:
        return None
    name = name or ""
    return Dialect(
        name,
        base64="base64" in name,
        versioned=name.startswith("v4."),
        v5=False,
        metadata=metadata,
    )
