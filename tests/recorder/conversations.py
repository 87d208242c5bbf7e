"""What is asked of a real cluster, and what is said in the course of it.

A conversation has a request, and a script for what follows the upgrade. The name tells the version of
Kubernetes (if it is not 1.36), the subprotocol and the topic: ``exec-1.31-v5-not-found``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recording import Talk

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
PLAIN, BASE64 = "channel.k8s.io", "base64.channel.k8s.io"
_LABELS = {(V5,): "v5", (V4,): "v4", (PLAIN,): "channel", (BASE64,): "base64", (): "none"}

Where = tuple[str, tuple[str, ...]]
NEW_V5: Where = ("1.36", (V5,))  # ended by the kubelet
NEW_V4: Where = ("1.36", (V4,))  # ended by the container runtime
OLD_V5: Where = ("1.31", (V5,))  # ended by the API server, which upgrades before it asks
MID_V4: Where = ("1.31", (V4,))
OLD_V4: Where = ("1.28", (V4,))
PLAINS: list[Where] = [("1.36", each) for each in ((PLAIN,), (BASE64,), ())]
NEW = [NEW_V5, NEW_V4]
OLD = [OLD_V5, OLD_V4]
ALL = [*NEW, *OLD]
ALL_V5 = [NEW_V5, OLD_V5]
MISSING = [NEW_V4, *OLD]  # what has been recorded with v5 of 1.36 already

_FILES = (
    "echo echo >text; echo '#!/no/such/interpreter' >orphan; echo hidden >draft; "
    "mkdir -p folder; chmod 755 text orphan; rm draft; exec sleep 1000"
)
_UNTIL_END = "until [ -e end ]; do sleep 0.05; done"

#: Pods by name, as ``add_pod`` of LocalCluster and of RealCluster takes them.
PODS: Mapping[str, Mapping[str, Any]] = {
    "box": {"containers": {"main": None, "echo": None}},
    "done": {"containers": {"main": None}, "state": "completed"},
    "badimage": {"containers": {"main": None}, "state": "waiting"},
    "short": {"containers": {"main": ["sh", "-c", _UNTIL_END]}},
    "mixed": {
        "containers": {"main": None},
        "init_containers": ["setup"],
        "ephemeral_containers": {"debugger": None},
    },
    "nowhere": {"containers": {"main": ["sh", "-c", 'rmdir "$PWD"; exec sleep 1000']}},
    "files": {"containers": {"main": ["sh", "-c", _FILES]}},
}
#: Those that start in a directory of their own, and what in there is made and then is gone once they have done so.
PREPARED = {"nowhere": (None, ""), "files": ("folder", "draft")}

Script = Callable[["Talk"], Any]


@dataclass(frozen=True)
class Conversation:
    """A request and a script. ``breaks``: the pod is not the same afterwards."""

    topic: str
    version: str
    protocols: tuple[str, ...]
    command: tuple[str, ...]
    script: Script
    pod: str = "box"
    container: str = "main"
    streams: tuple[str, ...] = ("stdout", "stderr")
    headers: tuple[tuple[str, str], ...] = ()
    note: str = ""
    label: str = ""
    breaks: bool = False
    deletes: bool = False
    kills: bool = False

    @property
    def name(self) -> str:
        """The name of the file."""
        version = [] if self.version == "1.36" else [self.version]
        label = self.label or _LABELS[self.protocols]
        return "-".join(["exec", *version, label, self.topic])

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's pairs, in the order that kubectl has them."""
        container = [("container", self.container)] if self.container else []
        commands = [("command", word) for word in self.command]
        return [*container, *commands, *((stream, "true") for stream in self.streams)]


def topic(
    name: str,
    wheres: Sequence[Where],
    command: Sequence[str] | str,
    script: Script | None = None,
    **options: Any,
) -> Iterator[Conversation]:
    """Yield a conversation for each version and subprotocol; a str is for the shell."""
    words = ("sh", "-c", command) if isinstance(command, str) else tuple(command)
    for version, protocols in wheres:
        yield Conversation(name, version, protocols, words, script or to_the_end, **options)


WITH_INPUT = ("stdin", "stdout", "stderr")
TTY = ("stdin", "stdout", "tty")
_SIZE = b'\4{"Width":132,"Height":43}'


def to_the_end(talk: Talk) -> None:
    talk.run_out()


def half_close(talk: Talk) -> None:
    for message in (b"\0hello\n", b"\xff\0"):
        talk.say(message)
    talk.run_out()


def half_close_ignored(talk: Talk) -> None:
    for message in (b"\0hello\n", b"\xff\0"):
        talk.say(message)
    talk.quiet()


def close_in_between(talk: Talk) -> None:
    talk.say(b"\0hello\n")
    talk.say(b"\xff\0")
    if talk.subprotocol == V5:
        talk.run_out()
    else:
        talk.quiet()


def input_after_its_end(talk: Talk) -> None:
    for message in (b"\0before\n", b"\xff\0", b"\0after\n", b"\xff\0"):
        talk.say(message)
    talk.run_out()


def close_signals(talk: Talk) -> None:
    """End every channel but stdin: nothing comes of it."""
    talk.say(b"\0one\n")
    for channel in (1, 2, 3):
        talk.say(bytes((255, channel)))
    talk.say(b"\0two\n")
    talk.say(b"\xff\0")
    talk.run_out()


def wrong_close_signal(payload: bytes) -> Script:
    def script(talk: Talk) -> None:
        talk.say(b"\0hello\n")
        talk.say(payload)
        talk.run_out()

    return script


def tty_half_close(talk: Talk) -> None:
    talk.say(b"\0abc\n")
    talk.say(b"\xff\0")
    talk.quiet()


def tty_end_of_file(talk: Talk) -> None:
    """Ctrl-D after a part of a line hands that over; the second one is the end."""
    talk.say(b"\0abc")
    talk.say(b"\0\4")
    talk.say(b"\0def\4\4")
    talk.run_out()


def tty_sizes(talk: Talk) -> None:
    talk.until(b"0 0")
    talk.say(_SIZE)
    talk.say(b"\0go\n")
    talk.run_out()


def tty_wrong_size(talk: Talk) -> None:
    """What is no size ends the resizing; after one more message the server is stuck."""
    for message in (b'\4{"Width":-1,"Height":43}', b"\0one\n"):
        talk.say(message)
    talk.say(b"ping", "ping")
    talk.say(_SIZE)
    talk.say(b"\0two\n")
    talk.say(b"ping", "ping")
    talk.quiet()


def tty_interrupt(talk: Talk) -> None:
    talk.until(b"begun")
    talk.say(b"\0\3")
    talk.run_out()


def sizes_without_tty(talk: Talk) -> None:
    for size in (_SIZE, _SIZE, _SIZE):
        talk.say(size)
        talk.say(b"ping", "ping")
    talk.say(b"\0hello\n")
    if talk.subprotocol != V5:
        talk.until(b"hello")
    talk.quiet()


def some_input(talk: Talk) -> None:
    talk.say(b"\0" + b"x" * (100 << 10))
    talk.say(b"ping", "ping")
    talk.run_out()


def much_input(talk: Talk) -> None:
    """More than the pipes on the way hold: containerd waits for somebody to read it, for ever."""
    talk.say(b"\0" + b"x" * (1 << 20))
    talk.pause(1.5)
    talk.quiet(5)


def input_for_nobody(talk: Talk) -> None:
    talk.until(b"closed")
    for message in (b"\0one\n", b"\0two\n", b"\0three\n"):
        talk.say(message)
    talk.say(b"ping", "ping")
    talk.run_out()


def close_in_the_middle(talk: Talk) -> None:
    talk.until(b"begun")
    talk.say(b"\x03\xe8", "close")
    talk.run_out()


def then(*action: Any) -> Script:
    """Return a script that does something to the cluster once the command has begun."""

    def script(talk: Talk) -> None:
        talk.until(b"begun")
        talk.act(*action)
        talk.run_out()

    return script


_BEGUN = "echo begun; sleep 100"
_BLOCKS = "dd bs=32k iflag=fullblock 2>/dev/null"
_LARGE = (
    f"head -c 4000000 /dev/zero | tr '\\0' o | {_BLOCKS} & "
    f"head -c 3000000 /dev/zero | tr '\\0' e | {_BLOCKS} >&2 & wait; exit 3"
)


def _output() -> Iterator[Conversation]:
    yield from topic("large-both", ALL, _LARGE, note="4 MB and 3 MB at once, then a Status")
    yield from topic("stdout-stderr-exit3", OLD, "echo out; echo err >&2; exit 3")
    yield from topic(
        "stdout-closed-early", ALL, "echo out; exec >&-; sleep 0.4; echo err >&2; exit 4"
    )
    yield from topic("outputs-closed-early", ALL, "echo out; exec >&- 2>&-; sleep 0.4; exit 5")
    yield from topic("background-holds-stdout", MISSING, "sleep 0.4 & echo started")
    yield from topic("no-output", MISSING, ["true"])
    yield from topic("stderr-only", ALL, "echo out; echo err >&2", streams=("stderr",))
    yield from topic("stdin-only", ALL, "cat; exit 6", close_in_between, streams=("stdin",))


def _statuses() -> Iterator[Conversation]:
    everywhere = [*ALL, *PLAINS]
    yield from topic("no-command", [NEW_V4, *OLD, *PLAINS], [])
    yield from topic("not-found", [NEW_V4, *OLD, *PLAINS], ["no-such-command"])
    yield from topic("path-not-found", ALL, ["/no/such/command"])
    yield from topic("permission-denied", everywhere, ["/etc/passwd"])
    yield from topic("is-a-directory", ALL, ["/etc"])
    yield from topic("not-a-directory", ALL, ["/etc/passwd/command"])
    yield from topic("empty-word", ALL, [""])
    yield from topic("nul-in-argument", ALL, ["echo", "a\0b"])
    yield from topic("directory-missing", ALL, ["true"], pod="nowhere")
    for name, program in (
        ("not-a-program", "./text"),
        ("interpreter-missing", "./orphan"),
        ("own-directory", "./folder"),
    ):
        yield from topic(name, ALL, [program], pod="files")
    yield from topic("not-a-program-tty", ALL, ["./text"], pod="files", streams=TTY)
    yield from topic("signal-9", [NEW_V4, *OLD, *PLAINS], "kill -9 $$")
    yield from topic("signal-15", ALL, "kill -15 $$")
    yield from topic("shell-126", ALL, "/etc/passwd")
    yield from topic("shell-127", ALL, "no-such-command")
    yield from topic("exit-255", ALL, "exit 255")
    yield from topic("success", PLAINS, ["true"])


def _refusals() -> Iterator[Conversation]:
    more = [*MISSING, MID_V4]
    yield from topic("waiting-pod", more, ["true"], pod="badimage")
    yield from topic("completed-pod", more, ["true"], pod="done")
    yield from topic("pod-missing", more, ["true"], pod="nope")
    yield from topic("container-missing", more, ["true"], container="nope")
    yield from topic("container-unspecified-two", more, ["true"], container="")
    yield from topic("no-streams", more, ["true"], streams=())
    yield from topic("init-container", [NEW_V5, *more], ["true"], pod="mixed", container="setup")
    yield from topic("ephemeral", [NEW_V5, *more], ["echo", "x"], pod="mixed", container="debugger")
    yield from topic("refused", [("1.28", (V5,))], ["true"], note="v5 is unknown to it")
    yield from topic("chosen", [("1.28", (V5, V4))], ["echo", "x"], label="v5-and-v4")
    yield from topic("chosen", [("1.31", (V4, V5))], ["echo", "x"], label="v4-and-v5")
    for version in ("1.31", "1.28"):
        yield from topic(
            "getonly", [(version, (V5, V4))], ["true"], label="rbac",
            headers=(("Impersonate-User", "kubews-getonly"),),
            note="enough before 1.35",
        )  # fmt: skip


def _input() -> Iterator[Conversation]:
    wc = ["wc", "-c"]
    yield from topic("stdin-halfclose", [OLD_V5], wc, half_close, streams=WITH_INPUT)
    yield from topic("close-signal-ignored", [OLD_V4], wc, half_close_ignored, streams=WITH_INPUT)
    yield from topic(
        "stdin-after-halfclose", ALL_V5, "cat; sleep 1; echo end", input_after_its_end,
        streams=WITH_INPUT,
    )  # fmt: skip
    yield from topic("close-signals", ALL_V5, ["cat"], close_signals, streams=WITH_INPUT)
    for name, payload in (
        ("unknown-channel", b"\xff\5"),
        ("no-channel", b"\xff"),
        ("two-channels", b"\xff\0\0"),
    ):
        wrong = wrong_close_signal(payload)
        yield from topic(f"close-signal-{name}", ALL_V5, ["cat"], wrong, streams=WITH_INPUT)
    script = "sleep 1; exit 7"
    yield from topic("stdin-unread", ALL, script, some_input, streams=WITH_INPUT)
    yield from topic(
        "stdin-unread-much", ALL, script, much_input, streams=WITH_INPUT,
        note="the process has ended after a second, and nothing says so",
    )  # fmt: skip
    yield from topic(
        "stdin-closed-early", ALL, "exec <&-; echo closed; sleep 2; echo end", input_for_nobody,
        streams=WITH_INPUT,
    )  # fmt: skip
    for name, script in (
        ("stdin-after-stdout", "echo begun; exec >&-; cat >&2; echo end >&2; exit 8"),
        ("stdin-after-stderr", "echo begun; exec 2>&-; cat; echo end; exit 8"),
    ):
        note = "the end of an output ends stdin as well"
        yield from topic(name, ALL, script, streams=WITH_INPUT, note=note)
    yield from topic("resize-without-tty", ALL, ["cat"], sizes_without_tty, streams=WITH_INPUT)


def _terminals() -> Iterator[Conversation]:
    sizes = "stty size; read x; stty size; echo got $x; exit 7"
    yield from topic("tty", MISSING, sizes, tty_sizes, streams=TTY)
    yield from topic("tty-half-close", ALL, ["cat"], tty_half_close, streams=TTY)
    yield from topic("tty-end-of-file", ALL, ["cat"], tty_end_of_file, streams=TTY)
    yield from topic("tty-wrong-size", ALL, ["cat"], tty_wrong_size, streams=TTY)
    yield from topic("tty-ctrl-c", MISSING, "echo begun; sleep 30", tty_interrupt, streams=TTY)
    yield from topic("tty-not-found", ALL, ["no-such-command"], streams=TTY)


def _endings() -> Iterator[Conversation]:
    yield from topic("websocket-close-mid", OLD, _BEGUN, close_in_the_middle)
    ends = then("execute", "short", "touch", "end")
    yield from topic("container-ends", ALL, _BEGUN, ends, pod="short", breaks=True)
    for name, grace in (("pod-force-deleted", 0), ("pod-deleted", 1)):
        script = then("delete_pod", "short", grace)
        yield from topic(name, ALL, _BEGUN, script, pod="short", breaks=True, deletes=True)
    for daemon in ("apiserver", "kubelet", "containerd"):
        script = then("kill", daemon)
        yield from topic(f"{daemon}-killed", ALL, "echo begun; sleep 20", script, kills=True)


#: All of them; what breaks the servers comes last.
CONVERSATIONS = sorted(
    [*_output(), *_statuses(), *_refusals(), *_input(), *_terminals(), *_endings()],
    key=lambda each: each.kills,
)
