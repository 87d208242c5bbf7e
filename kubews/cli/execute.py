"""examples:
  kubews exec web-0 -- date
  kubews exec deploy/web -c app -- ls -l /srv
  tar cz . | kubews exec -i web-0 -- tar xz -C /srv
  kubews exec -it web-0 -- sh

The exit code is the command's own. Ctrl-C ends kubews and not the command: without -t nothing tells it.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from kubews.cli.arguments import Parser, add_target, target_name
from kubews.cli.endings import command_ended, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubews import Pod

USAGE = "(POD | TYPE/NAME) [-c CONTAINER] [flags] -- COMMAND [args...]"


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_switch("-i", "--stdin", help="pass stdin to the command")
    parser.add_switch("-t", "--tty", help="give the command this terminal; with -i")
    parser.add_switch("-q", "--quiet", help="print nothing but the command's output")
    add_target(parser)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Execute the command."""
    name = target_name(options, parser, "POD -- COMMAND")
    if not options.remote:
        parser.error("you must specify at least one command for the container")
    terminal = wants_terminal(options)
    from kubews.cli import pods

    pod = pods.find(options, name)
    if terminal and output_is_terminal():
        return command_ended(_with_terminal(pod, options.remote))
    # With -it and an output that goes elsewhere (| grep) the command gets a terminal, and the one here is
    # left as it is.
    source = standard_input() if options.stdin else None
    process = pod.popen(options.remote, stdin=source, tty=terminal)
    if options.stdin:
        from kubews.cli.jobs import obey_job_control

        obey_job_control()
    return command_ended(process.wait())


def wants_terminal(options: argparse.Namespace) -> bool:
    """Tell whether the process is to have a terminal, or say why it cannot."""
    if not (options.stdin and options.tty):
        return False  # as kubectl: -t alone is nothing
    if sys.stdin is not None and sys.stdin.isatty():
        return True
    if not options.quiet:
        say("Unable to use a TTY - input is not a terminal or the right kind of file")
    return False


def output_is_terminal() -> bool:
    """Tell whether the terminal here can be lent as a whole."""
    return sys.stdout is not None and sys.stdout.isatty()


def standard_input() -> Any:
    """Return what ``-i`` reads: an end of the input where there is none."""
    return sys.stdin if sys.stdin is not None else os.open(os.devnull, os.O_RDONLY)


def _with_terminal(pod: Pod, command: Sequence[str]) -> int:
    from kubews import PIPE
    from kubews.terminal import interact

    with pod.popen(command, stdin=PIPE, stdout=PIPE, tty=True) as process:
        interact(process, detach_keys=None)
        return process.wait()
