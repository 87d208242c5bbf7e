"""examples:
  kubews attach web-0
  kubews attach web-0 -c app -it

ctrl-p,ctrl-q lets go of a terminal and leaves the container running. If the container ends meanwhile, the
exit code is its own, else 0.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kubews.cli.arguments import Parser, add_target, target_name
from kubews.cli.endings import command_ended, say
from kubews.cli.execute import output_is_terminal, standard_input, wants_terminal

if TYPE_CHECKING:
    from kubews import Attached, Pod
    from kubews.documents import Json

USAGE = "(POD | TYPE/NAME) [-c CONTAINER] [flags]"

# What kubectl says (``cmd/attach/attach.go: Run``).
_WARNING = (
    "All commands and output from this session will be recorded in container logs, including "
    "credentials and sensitive information passed through the command prompt.\n"
    "If you don't see a command prompt, try pressing enter."
)


def add_arguments(parser: Parser) -> None:
    """Add the flags."""
    parser.add_switch("-i", "--stdin", help="pass stdin to the container")
    parser.add_switch("-t", "--tty", help="stdin is a terminal; what counts is the container's own")
    parser.add_switch("-q", "--quiet", help="print nothing but the container's output")
    parser.add_argument(
        "--detach-keys",
        metavar="KEYS",
        default="ctrl-p,ctrl-q",
        help="what to type to let go of a terminal (%(default)s)",
    )
    add_target(parser)


def run(options: argparse.Namespace, parser: Parser) -> int:
    """Attach."""
    if len(options.names) == 2:  # as kubectl attach, and no other of its commands: TYPE NAME
        options.names = ["/".join(options.names)]
    name = target_name(options, parser, "POD")
    from kubews import documents
    from kubews.cli import pods

    pod = pods.find(options, name)
    document = pod.get()
    container = pod.container or pod.choose_container(document)
    spec = documents.container_spec(document, container)
    options.tty = _has_terminal(spec, container, options)
    terminal = wants_terminal(options)
    if spec and not options.quiet:
        say(_WARNING)
    pod = pod.in_container(container)
    if terminal and output_is_terminal():
        return _with_terminal(pod, options)
    process = pod.attach(stdin=standard_input() if options.stdin else None)
    if options.stdin:
        from kubews.cli.jobs import obey_job_control

        obey_job_control()
    return _ended(process)


def _has_terminal(spec: Json, container: str, options: argparse.Namespace) -> bool:
    """Tell whether the container has a terminal, which counts and not ``-t``."""
    if spec.get("tty") is True:
        return True
    if options.tty and not options.quiet:
        say(f"error: Unable to use a TTY - container {container} did not allocate one")
    return False


def _with_terminal(pod: Pod, options: argparse.Namespace) -> int:
    from kubews import PIPE
    from kubews.terminal import interact

    process = pod.attach(stdin=PIPE, stdout=PIPE)
    over = interact(process, detach_keys=options.detach_keys, redraw=True)
    if not options.quiet:
        again = f"kubews attach {pod.name} -c {pod.container} -n {pod.namespace} -i -t"
        print(f"Session ended, resume using '{again}' command")
    if not over:
        process.close()
        return 0
    return _ended(process)


def _ended(process: Attached) -> int:
    return command_ended(process.wait() or 0)
