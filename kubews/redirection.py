"""What is given for stdin, stdout and stderr of a process: which file of the user, if any, is copied."""

from __future__ import annotations

import codecs
import contextlib
import io
import subprocess
from typing import Any, Optional

from kubews.userfiles import InputFile, OutputFile, Sink, Source, sink_for


def check(
    stdin: InputFile,
    stdout: OutputFile,
    bufsize: int,
    encoding: Optional[str],
    errors: Optional[str],
) -> None:
    """Refuse arguments that cannot be, before anything is opened.

    Raises:
        TypeError: ``bufsize`` is no number.
        ValueError: one of the others cannot be what it is.
        LookupError: there is no such encoding, or no such way to treat errors.
    """
    if stdout is subprocess.STDOUT or stdin is subprocess.STDOUT:
        raise ValueError("STDOUT can only be used for stderr")
    if not isinstance(bufsize, int):
        raise TypeError("bufsize must be an integer")
    if bufsize < -1:
        raise ValueError(f"bufsize must be -1, 0 or a number of bytes, not {bufsize}")
    check_text(encoding, errors)


def check_text(encoding: Optional[str], errors: Optional[str]) -> None:
    """Refuse what makes no text of bytes.

    Raises:
        LookupError: there is no such encoding, or no such way to treat errors.
    """
    if encoding is not None:
        # Neither is enough: io knows "locale", which codecs does not, and of those of codecs not all make text.
        codecs.lookup(encoding)
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    if errors is not None:
        codecs.lookup_error(errors)


def source_of(
    wanted: InputFile,
    encoding: Optional[str],
    errors: Optional[str],
    held: contextlib.ExitStack,
) -> Optional[Source]:
    """Choose where input is copied from; None if it is not."""
    if wanted in (None, subprocess.PIPE, subprocess.DEVNULL):
        return None
    source = Source(wanted, encoding, errors)
    held.callback(source.close)
    return source


def sink_of(
    wanted: OutputFile,
    default: Any,
    encoding: Optional[str],
    errors: Optional[str],
    held: contextlib.ExitStack,
) -> Optional[Sink]:
    """Choose where output is copied to; None if it is not."""
    target = default if wanted is None else wanted
    if target is None or wanted in (subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT):
        return None
    sink = sink_for(target, encoding, errors, text=wanted is None)
    held.callback(sink.close)
    return sink
