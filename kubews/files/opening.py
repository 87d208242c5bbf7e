"""open: a file of a pod as a file object, for everything that takes one.

What is read goes on where it was cut. What is written has its name, or is appended, when it is closed and has arrived
whole; a ``with`` block that an exception ends writes nothing.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from kubews.command import StrOrBytesPath
from kubews.errors import CopyError, KubewsError
from kubews.files.podreader import PodReader
from kubews.files.podwriter import BufferedPodWriter, PodWriter, TextPodWriter
from kubews.files.remotefiles import (
    Found,
    check_reachable,
    check_readable,
    is_directory,
    is_directory_name,
    lacking,
    look,
    no_directory,
    no_place,
    path_of,
)

if TYPE_CHECKING:
    from kubews.targets import Target

TextMode = Literal["r", "w", "a", "rt", "wt", "at"]
WriteMode = Literal["wb", "ab"]
AnyMode = Union[TextMode, Literal["rb"], WriteMode]

_BUFFER = 256 << 10


def open_file(
    pod: Target,
    path: StrOrBytesPath,
    mode: str,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Union[io.TextIOWrapper, io.BufferedReader, io.BufferedWriter]:
    """Open a file; see ``Pod.open``.

    Threads: blocks.
    """
    letters = mode.replace("t", "").replace("b", "")
    binary = "b" in mode
    if letters not in ("r", "w", "a") or len(mode) > 2 or (binary and "t" in mode):
        raise ValueError(f"invalid mode: {mode!r}; there are r, w and a, with b or t behind them")
    if binary and (encoding, errors, newline) != (None, None, None):
        raise ValueError("binary mode doesn't take encoding, errors or newline")
    name, pod = path_of(path), pod.pin()
    found = _look(pod, name, letters)
    if is_directory_name(path):
        raise no_directory(pod, name)
    buffered: Union[io.BufferedReader, io.BufferedWriter]
    if letters == "r":
        buffered = io.BufferedReader(PodReader(pod, name, found), _BUFFER)
    else:
        buffered = BufferedPodWriter(PodWriter(pod, name, found, letters == "a"), _BUFFER)
    if binary:
        return buffered
    kind: Any = io.TextIOWrapper if letters == "r" else TextPodWriter
    try:
        text: io.TextIOWrapper = kind(buffered, encoding or "utf-8", errors, newline)
        text.mode = mode  # type: ignore[misc]  # as the builtin open does
        return text
    except BaseException:  # no such encoding
        if isinstance(buffered, BufferedPodWriter):
            buffered.raw.discard()
        with contextlib.suppress(KubewsError):
            buffered.close()
        raise


def _look(pod: Target, path: str, letters: str) -> Found:
    found = look(pod, path)
    if found is None:
        raise lacking(pod, "opening a file", "sh")
    if found.kind == "directory":
        raise is_directory(pod, path)
    if letters == "r":
        check_readable(pod, path, found)
        if not found.programs & {"cat", "tail"}:
            raise lacking(pod, "reading a file", "cat", "tail")
        return found
    check_reachable(pod, path, found)
    if found.parent != "directory":
        raise no_place(pod, path, found)
    if not found.programs >= {"cat", "mv", "rm"}:
        raise lacking(pod, "writing a file", "cat, mv and rm")
    if found.kind == "other":
        raise CopyError(f"{pod.where}: {path} is no file", member=path)
    return found
