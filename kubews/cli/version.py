"""``kubews --version`` is the same."""

from __future__ import annotations

import argparse

from kubews import __version__
from kubews.cli.arguments import Parser

USAGE = ""


def add_arguments(parser: Parser) -> None:
    """Add nothing."""


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Print the version."""
    print(f"kubews {__version__}")
    return 0
