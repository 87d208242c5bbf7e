"""It is no sandbox: its pods are processes of this machine, which run as you. It ends with Ctrl-C."""

from __future__ import annotations

import argparse

from kubews.cli.arguments import Parser
from kubews.testing.__main__ import add_options, serve

USAGE = "[--version VERSION] [--pod NAME]..."


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    add_options(parser)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Serve until Ctrl-C."""
    serve(options, "kubews exec {pod} -- hostname")
    return 0
