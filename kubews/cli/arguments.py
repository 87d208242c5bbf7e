"""What a command line says, with the flags of kubectl.

Sources: kubectl ``pkg/cmd/exec/exec.go``, ``pkg/cmd/util/helpers.go``, and cobra for the rest: flags stand
before or behind the command and the target, and nothing behind ``--`` is a flag.

Threads: the main one.
"""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

# Each command, its module, and what it does in a line.
_COMMANDS = {
    "exec": ("execute", "Execute a command in a container"),
    "attach": ("attach", "Attach to a running container"),
    "logs": ("logs", "Print the log of a container"),
    "shell": ("shell", "Open a shell in a container"),
    "cp": ("cp", "Copy files and directories to and from containers"),
    "port-forward": ("forward", "Forward local ports to a pod"),
    "local": ("local", "Serve a LocalCluster to try things on, until Ctrl-C"),
    "version": ("version", "Print the version"),
}

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# What Go takes for a bool (``strconv.ParseBool``).
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")

_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|us|µs|ns|h|m|s)"

# Of a given width: to ask the terminal for its own, argparse imports several compressors, even if it then
# prints nothing.
_Formatter = functools.partial(argparse.RawDescriptionHelpFormatter, width=98)


class Parser(argparse.ArgumentParser):
    """A parser with kubectl's manners: no abbreviations, and exit code 1.

    Threads: the main one.
    """

    def __init__(self, prog: str, usage: str, **options: Any) -> None:
        super().__init__(
            prog,
            f"{prog} {usage}",
            allow_abbrev=False,
            formatter_class=_Formatter,
            **options,
        )
        self._switches: dict[str, str] = {}  # the long name of each of its names

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong with the command line, and exit."""
        self.exit(1, f"error: {message}\nSee '{self.prog} -h' for help and examples\n")

    def add_switch(self, *names: str, help: str) -> None:
        """Add a flag that is on or off, its long name last; kubectl also takes ``--stdin=false`` and ``-it=0``."""
        long = names[-1]
        action = self.add_argument(*names, action="store_true", help=help)
        self.add_argument(
            f"{long}=false",
            dest=action.dest,
            action="store_false",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
        self._switches.update(dict.fromkeys(names, long))

    def spell_out(self, argument: str) -> list[str]:
        """Return an argument as this can parse it, if it is a switch with a value (pflag, ``flag.go``)."""
        names, equals, value = argument.partition("=")
        if not equals or not names.startswith("-"):
            return [argument]
        letters = [] if names.startswith("--") else [f"-{letter}" for letter in names[1:-1]]
        last = names if names.startswith("--") else f"-{names[-1]}"
        if last not in self._switches or not self._switches.keys() >= {*letters}:
            return [argument]
        long = self._switches[last]
        if value not in _TRUE + _FALSE:
            self.error(
                f'invalid argument "{value}" for "{long}": it is on or off, such as true or false'
            )
        return [*letters, long if value in _TRUE else f"{long}=false"]


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, Parser]:
    """Parse a command line.

    Args:
        argv: the arguments behind the program's name.

    Returns:
        The options, with ``run`` for what to do and ``remote`` for what stands behind ``--`` (None without
        it), and the parser, for what the command finds wrong with them.

    Raises:
        SystemExit: it was a request for help, or it is wrong; all is said.
    """
    own, remote = _split(argv)
    if own[:1] == ["help"]:
        own = [*own[1:], "-h"]
    if own and own[0] in _COMMANDS:
        return _parse_command(own[0], own[1:], argparse.Namespace(remote=remote))
    everything = "\n".join(f"  {name:<14}{line}" for name, (_, line) in _COMMANDS.items())
    top = Parser(
        "kubews",
        "[flags] COMMAND ...",
        description="subprocess, sockets and files for Kubernetes pods\n\ncommands:\n" + everything,
        epilog='"kubews COMMAND -h" tells more about a command.',
    )
    _add_common(top)
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = top.parse_args(own)
    options.remote = remote
    name = "version" if options.version else options.name
    if name is None:
        top.print_help()
        top.exit(0)
    if name not in _COMMANDS:
        top.error(f'unknown command "{name}"; there are: {", ".join(_COMMANDS)}')
    return _parse_command(name, options.rest, options)


def _parse_command(
    name: str, arguments: Sequence[str], options: argparse.Namespace
) -> tuple[argparse.Namespace, Parser]:
    file, line = _COMMANDS[name]
    module = importlib.import_module(f"kubews.cli.{file}")
    parser = Parser(f"kubews {name}", module.USAGE, description=f"{line}.", epilog=module.__doc__)
    module.add_arguments(parser)
    _add_common(parser)
    parser.set_defaults(run=module.run)
    spelled_out = [each for argument in arguments for each in parser.spell_out(argument)]
    # What stood in front of the command is in the options, and no default replaces it.
    return parser.parse_intermixed_args(spelled_out, options), parser


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    # By hand, because argparse has had several ideas of what -- means.
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, None
    position = arguments.index("--")
    return arguments[:position], arguments[position + 1 :]


def _add_common(parser: Parser) -> None:
    """Add the flags that may stand in front of the command, too."""
    group = parser.add_argument_group("which cluster")
    for names, word, text in (
        (["--kubeconfig"], "PATH", "the only kubeconfig to read"),
        (["--context"], "NAME", "the context to use"),
        (["-n", "--namespace"], "NAME", "the namespace, by default the context's"),
        (["--cluster"], "NAME", "the cluster to use instead of the context's"),
        (["--user"], "NAME", "the user to use instead of the context's"),
        (["-s", "--server"], "URL", "where the API server is, instead of what the cluster says"),
    ):
        group.add_argument(*names, metavar=word, help=text)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="tell on stderr what happens, and of errors where",
    )


def add_target(parser: Parser) -> None:
    """Add the flags of everything that goes into a container."""
    parser.add_argument(
        "-c",
        "--container",
        metavar="NAME",
        help="the container; by default the one that the pod's annotation names, else the first",
    )
    add_running_timeout(parser)
    parser.add_argument("names", nargs="*", metavar="POD | TYPE/NAME", help=argparse.SUPPRESS)


def add_running_timeout(parser: Parser, default: str = "1m") -> None:
    """Add how long to wait for a pod of a Deployment and the like."""
    parser.add_argument(
        "--pod-running-timeout",
        metavar="DURATION",
        type=duration,
        default=duration(default),
        help=f"how long to wait for a pod of TYPE/NAME to run, such as 5s or 2m ({default})",
    )


def target_name(options: argparse.Namespace, parser: Parser, usage: str) -> str:
    """Return the one target that was named, or end with kubectl's words."""
    names = [name for name in options.names if name]
    if not names:
        parser.error("pod or type/name must be specified")
    if len(names) > 1:
        parser.error(
            f"{parser.prog} [POD] [COMMAND] is not supported: use {parser.prog} {usage} instead"
        )
    if options.pod_running_timeout <= 0:
        parser.error("--pod-running-timeout must be higher than zero")
    return str(names[0])


def duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it: ``90s``, ``1m30s``, ``1.5h``.

    Raises:
        ArgumentTypeError: it is none.
    """
    import re

    parts = re.findall(_PART, text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f'invalid duration "{text}"; it should look like 5s or 2m')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
