"""Which containers can be talked with: the input and the terminal of a container's own process.

Threads: values.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Interactive:
    """Input and terminal of a container's own process.

    Raises:
        TypeError: something is no bool.
        ValueError: ``stdin_once`` without ``stdin``.
    """

    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, not {value!r}")
        if self.stdin_once and not self.stdin:
            raise ValueError(
                "stdin_once goes with stdin: add_pod(..., stdin=True, stdin_once=True)"
            )


NONE_OF_IT = Interactive()
