"""How far a copy is: tqdm's bar, or a function of the user."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    from typing_extensions import Self

#: True for a bar, a function of bytes done and of all (None if unknown), or None.
Progress = Union[None, bool, Callable[[int, Optional[int]], None]]


class Meter:
    """Tell of progress, in a ``with`` block.

    Args:
        progress: see ``Progress``.
        what: the words beside a bar.

    Raises:
        ImportError: a bar is wanted, and tqdm is not installed.

    Threads: one, which calls the user's function.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._function = progress if callable(progress) else None
        self._bar: Any = None
        self.total: Optional[int] = None
        if progress is True:
            self._bar = _bar(what)

    def __call__(self, done: int) -> None:
        """Tell how many bytes are done."""
        if self._function is not None:
            self._function(done, self.total)
        elif self._bar is not None:
            self._bar.total = self.total
            self._bar.update(done - self._bar.n)

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to know."""
        return self._function is not None or self._bar is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(what: str) -> Any:
    try:
        # By its name: type checkers of programs that use this need no stubs for it.
        tqdm: Any = importlib.import_module("tqdm.auto").tqdm
    except ImportError as exc:
        raise ImportError(
            'progress=True needs tqdm: pip install "kubews[progress]", or give a function of (done, total)'
        ) from exc
    return tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024)
