"""examples:
  kubews cp dump.sql web-0:/tmp/dump.sql
  kubews cp shop/web-0:/var/log/app logs -c app

What is copied into an existing directory keeps its name there. A file has its name only when it is whole; owners
are left alone, and of symbolic links in a pod none is made here.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from kubews.cli.arguments import Parser
from kubews.cli.endings import say
from kubews.errors import ConfigError

if TYPE_CHECKING:
    from kubews.files.copying import Copied

USAGE = "[[NAMESPACE/]POD:]SOURCE [[NAMESPACE/]POD:]DESTINATION [-c CONTAINER] [flags]"


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument(
        "-c",
        "--container",
        metavar="NAME",
        help="the container; by default the one that the pod's annotation names, else the first",
    )
    parser.add_argument(
        "--retries",
        type=int,
        metavar="N",
        default=3,
        help="how often to go on after a cut (%(default)s); a negative number is for ever",
    )
    parser.add_switch(
        "--resume",
        help="leave what has arrived of a file if it is cut, for the next time to go on with",
    )
    parser.add_switch("--no-preserve", help="leave modes and times to the place of the copy")
    parser.add_argument("names", nargs="*", metavar="SOURCE DESTINATION", help=argparse.SUPPRESS)
    parser.set_defaults(quiet=False, pod_running_timeout=60.0)


class Spec(NamedTuple):
    """A path, and the pod that it is in, if it is in one.

    Threads: a value.
    """

    namespace: str
    pod: str
    path: str


def parse_spec(text: str) -> Spec:
    """Split ``[[NAMESPACE/]POD:]PATH`` as kubectl does (``cmd/cp/cp.go: extractFileSpec``).

    Raises:
        ConfigError: it is none.
    """
    pod, colon, path = text.partition(":")
    if not colon:
        return Spec("", "", text)
    if not pod or pod.count("/") > 1:
        raise ConfigError(
            f"{text!r}: filespec must match the canonical format: [[namespace/]pod:]file/path"
        )
    namespace, _, name = pod.rpartition("/")
    return Spec(namespace, name, path.replace("\\", "/"))


# What the library says of an argument that the command has no flag for.
SYMLINKS = " (symlinks=True)"


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Copy."""
    names = [*options.names, *(options.remote or ())]
    if len(names) != 2:
        parser.error("source and destination are required")
    source, target = map(parse_spec, names)
    if source.pod and target.pod:
        raise ConfigError("one of src or dest must be a local file specification")
    if not source.pod and not target.pod:
        raise ConfigError("one of src or dest must be a remote file specification")
    if not source.path or not target.path:
        raise ConfigError("filepath can not be empty")
    for line in _copy(options, source, target).warnings:
        say(f"warning: {line.removesuffix(SYMLINKS)}")
    return 0


def _copy(options: argparse.Namespace, source: Spec, target: Spec) -> Copied:
    from kubews.cli import pods

    remote = source if source.pod else target
    options.namespace = remote.namespace or options.namespace
    pod = pods.find(options, remote.pod)
    retries = sys.maxsize if options.retries < 0 else options.retries
    copy = pod.copy_from if source.pod else pod.copy_to
    return copy(
        source.path,
        target.path,
        preserve=not options.no_preserve,
        retries=retries,
        resume=options.resume,
    )
