"""examples:
  kubews shell web-0
  kubews shell deploy/web -c app -- bash -l

It is bash, where there is none sh, or the command behind --; the exit code is its own.
"""

from __future__ import annotations

import argparse

from kubews.cli.arguments import Parser, add_target, target_name
from kubews.cli.endings import command_ended

USAGE = "(POD | TYPE/NAME) [-c CONTAINER] [flags] [-- COMMAND [args...]]"


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_switch("-q", "--quiet", help="do not say which container is taken")
    add_target(parser)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Lend this terminal to a shell."""
    name = target_name(options, parser, "POD -- COMMAND")
    from kubews.cli import pods

    pod = pods.find(options, name)
    return command_ended(pod.shell(options.remote or None))
