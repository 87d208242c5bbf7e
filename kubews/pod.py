"""Pod: one handle for everything that can be done in a pod."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Optional

from kubews import process
from kubews.command import Args
from kubews.popen import Popen
from kubews.targets import Target

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Pod(Target):
    """A pod of a cluster; ``client.pod("web-0")`` makes one.

    Making it asks nothing of the server. ``namespace``, ``name``, ``container`` and ``client`` are
    attributes; ``get()`` reads the pod's object.

    Threads: any.
    """

    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        **options: Unpack[process.Options],
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command and wait for it; see ``kubews.run``.

        Threads: blocks.
        """
        options["pod"] = self
        return process.run(
            args,
            input=input,
            capture_output=capture_output,
            timeout=timeout,
            check=check,
            **options,
        )

    def popen(self, args: Args, **options: Unpack[process.Options]) -> Popen:
        """Start a command; see ``kubews.Popen``.

        Threads: blocks until the server has agreed.
        """
        options["pod"] = self
        return Popen(args, **options)

    def call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[process.Options]
    ) -> int:
        """Run a command and return its exit code; see ``kubews.call``.

        Threads: blocks.
        """
        options["pod"] = self
        return process.call(args, timeout=timeout, **options)

    def check_call(
        self, args: Args, *, timeout: Optional[float] = None, **options: Unpack[process.Options]
    ) -> int:
        """Run a command; return 0 or raise ProcessError; see ``kubews.check_call``.

        Threads: blocks.
        """
        options["pod"] = self
        return process.check_call(args, timeout=timeout, **options)

    def check_output(
        self,
        args: Args,
        *,
        input: Any = None,
        timeout: Optional[float] = None,
        **options: Unpack[process.Options],
    ) -> Any:
        """Run a command and return its stdout, or raise ProcessError; see ``kubews.check_output``.

        Threads: blocks.
        """
        options["pod"] = self
        return process.check_output(args, input=input, timeout=timeout, **options)
