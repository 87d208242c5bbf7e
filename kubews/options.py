"""The keyword arguments that ``run`` and its relatives hand on to ``Popen``, for type checkers.

Which of them ask for text decides between ``CompletedProcess[str]`` and ``CompletedProcess[bytes]``.

Threads: values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Optional, TypedDict, Union

from kubews.client import Client
from kubews.command import StrOrBytesPath
from kubews.logsource import Since
from kubews.targets import Target
from kubews.userfiles import InputFile, OutputFile

if TYPE_CHECKING:
    from typing_extensions import Required


class _Common(TypedDict, total=False):
    """Everything but what concerns text and the choice of a pod; see ``Popen``."""

    bufsize: int
    container: Optional[str]
    stdin: InputFile
    stdout: OutputFile
    stderr: OutputFile
    shell: bool
    cwd: Optional[StrOrBytesPath]
    env: Optional[Mapping[str, str]]
    close_fds: bool
    tty: bool
    signals: bool
    request_stdin: bool
    wait_ready: Optional[float]
    connect_timeout: Optional[float]


class BytesOptions(_Common, total=False):
    """Options without any that ask for text: results are bytes."""

    universal_newlines: Optional[Literal[False]]
    text: Optional[Literal[False]]
    encoding: None
    errors: None


class TextOptions(_Common, total=False):
    """Options with ``text=True``: results are str."""

    universal_newlines: Optional[bool]
    text: Required[Literal[True]]
    encoding: Optional[str]
    errors: Optional[str]


class EncodedOptions(_Common, total=False):
    """Options with ``encoding``: results are str."""

    universal_newlines: Optional[bool]
    text: Optional[bool]
    encoding: Required[str]
    errors: Optional[str]


class Options(_Common, total=False):
    """Options of which only the running program knows whether they ask for text."""

    universal_newlines: Optional[bool]
    text: Optional[bool]
    encoding: Optional[str]
    errors: Optional[str]


class _Where(TypedDict, total=False):
    pod: Required[Union[str, Target]]
    namespace: Optional[str]
    client: Optional[Client]


class BytesCall(BytesOptions, _Where):
    """As ``BytesOptions``, with the pod."""


class TextCall(TextOptions, _Where):
    """As ``TextOptions``, with the pod."""


class EncodedCall(EncodedOptions, _Where):
    """As ``EncodedOptions``, with the pod."""


class Call(Options, _Where):
    """As ``Options``, with the pod."""


class _CommonLogs(TypedDict, total=False):
    """Everything of a log but what concerns text; see ``Pod.logs``."""

    container: Optional[str]
    all_containers: bool
    prefix: bool
    ignore_errors: bool
    follow: bool
    previous: bool
    timestamps: bool
    tail: Optional[int]
    since: Since
    limit_bytes: Optional[int]
    insecure_skip_tls_verify_backend: bool
    patience: float
    wait_ready: Optional[float]
    connect_timeout: Optional[float]


class BytesLogOptions(_CommonLogs, total=False):
    """Options without any that ask for text: lines are bytes."""

    text: Optional[Literal[False]]
    encoding: None
    errors: None


class TextLogOptions(_CommonLogs, total=False):
    """Options with ``text=True``: lines are str."""

    text: Required[Literal[True]]
    encoding: Optional[str]
    errors: Optional[str]


class EncodedLogOptions(_CommonLogs, total=False):
    """Options with ``encoding``: lines are str."""

    text: Optional[bool]
    encoding: Required[str]
    errors: Optional[str]


class LogOptions(_CommonLogs, total=False):
    """Options of which only the running program knows whether they ask for text."""

    text: Optional[bool]
    encoding: Optional[str]
    errors: Optional[str]
