"""Pod: one handle for everything that can be done in a pod."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Optional, overload

from kubews import process
from kubews.command import Args
from kubews.popen import Popen
from kubews.targets import Target

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from kubews.options import BytesOptions, EncodedOptions, Options, TextOptions


class Pod(Target):
    """A pod of a cluster; ``client.pod("web-0")`` makes one.

    Making it asks nothing of the server. ``namespace``, ``name``, ``container`` and ``client`` are
    attributes; ``get()`` reads the pod's object.

    Threads: any.
    """

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[TextOptions],
    ) -> subprocess.CompletedProcess[str]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[EncodedOptions],
    ) -> subprocess.CompletedProcess[str]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Optional[Buffer] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[BytesOptions],
    ) -> subprocess.CompletedProcess[bytes]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[Options],
    ) -> subprocess.CompletedProcess[Any]: ...

    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[Options],
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command and wait for it; see ``kubews.run``.

        Threads: blocks.
        """
        return process.run(
            args,
            pod=self,
            input=input,
            capture_output=capture_output,
            timeout=timeout,
            check=check,
            **options,
        )

    def popen(self, args: Args, **options: Unpack[Options]) -> Popen:
        """Start a command; see ``kubews.Popen``.

        Threads: blocks until the server has agreed.
        """
        return Popen(args, pod=self, **options)

    def call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[Options]
    ) -> int:
        """Run a command and return its exit code; see ``kubews.call``.

        Threads: blocks.
        """
        return process.call(args, pod=self, timeout=timeout, **options)

    def check_call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[Options]
    ) -> int:
        """Run a command; return 0 or raise ProcessError; see ``kubews.check_call``.

        Threads: blocks.
        """
        return process.check_call(args, pod=self, timeout=timeout, **options)

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        timeout: Optional[float] = None,
        **options: Unpack[TextOptions],
    ) -> str: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[str] = None,
        timeout: Optional[float] = None,
        **options: Unpack[EncodedOptions],
    ) -> str: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Optional[Buffer] = None,
        timeout: Optional[float] = None,
        **options: Unpack[BytesOptions],
    ) -> bytes: ...

    @overload
    def check_output(
        self,
        args: Args,
        *,
        input: Any = None,
        timeout: Optional[float] = None,
        **options: Unpack[Options],
    ) -> Any: ...

    def check_output(
        self,
        args: Args,
        *,
        input: Any = None,
        timeout: Optional[float] = None,
        **options: Unpack[Options],
    ) -> Any:
        """Run a command and return its stdout, or raise ProcessError; see ``kubews.check_output``.

        Threads: blocks.
        """
        return process.check_output(args, pod=self, input=input, timeout=timeout, **options)
