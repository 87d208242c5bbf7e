"""Signals for a command in a container, and for all that it has started there.

The API server passes no signals, and a connection that closes ends nothing. So the command is started by a
wrapper (``command.marked``) that the container's ``sh`` runs before it becomes the command. It reports its
process id, and sets a random mark in the environment, which every child inherits. A signal is sent by a
second exec, as the same user in the same container, whose ``sh`` looks through ``/proc``. What belongs to
the command is

- the process that was reported, if it has the reported time of start: the number may be another's by now;
- what is in its session, if it leads one: runc makes a session for every exec (``nsexec.c``), Kata only with a
  terminal (``rustjail``);
- what has the mark, so also what has made a session of its own, or lives on when its parents have ended;
- what is below one of these, so also programs that have overwritten or emptied their environment.

Only a daemon that has done all of it, a session of its own, an empty environment, no parent left, is not
found. The image needs a POSIX ``sh``, with ``kill``, ``read`` and ``echo`` built in as in dash, bash and
busybox, and nothing else; the container needs ``/proc``, which all have.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from kubews.command import MARK, marked
from kubews.errors import ExecError, KubewsError, SignalRefused, TimeoutExpired
from kubews.protocol.channels import STDOUT, Channels
from kubews.protocol.report import ReportingChannels
from kubews.session import open_exec
from kubews.targets import Target
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.wait import Expired, Outcome

#: Seconds from SIGTERM to SIGKILL.
GRACE = 2.0

# Seconds for a second exec, which takes a tenth of one: somebody may wait for it who has pressed Ctrl-C.
_ANSWER = 10.0
# Between two looks, in seconds: the first, and the longest.
_FIRST_PAUSE = 0.02
_PAUSE = 0.5

#: The numbers of Linux, which a container runs; this machine may have others, or no such names.
TERM = 15
KILL = 9
_NOTHING = 0

# What the script below exits with if it cannot look.
_NO_PROC = 3

# Arguments: the mark as it stands in the environment; the process id and the time of start that were reported,
# or nothing; the signal; and whether the process is meant alone. Prints two lines: what of it ran when all was
# done, and what could not be signalled.
# A process that forks while it is looked for has a child that the next look finds, so there are looks until
# one finds nobody new, and after SIGKILL until one finds nobody that could be killed. read drops the zero bytes of an
# environment. The name in stat, in parentheses, may hold blanks, parentheses and newlines; the fields behind
# it are numbered by proc(5): state is the third, and the time of start the 22nd.
# Parents get the signal before their children, or a shell would go on with what follows the command that it
# waits for, and end in its own way. The numbers do not tell which is which: a child has a lower one than its
# parent when they have begun anew in between, and 100 is listed before 99. So mine, a list of pid:parent, first
# gets all that is below the processes in it, and is then emptied into found: each pass moves those whose parent
# was not in it. Parents are read one after the other, and a number may be another's by then, so they could
# form a ring: what no pass moves comes last.
_SIGNAL = r"""
mark=$1 top=$2 since=${3:-0} signal=$4 alone=$5
exec 2>/dev/null
[ -r /proc/$$/stat ] || exit 3
look() {
  text=
  while IFS= read -r line || [ "$line" ]; do text="$text $line"; done <"/proc/$1/stat"
  set -- ${text##*)}
  state=${1:-gone} parent=$2 session=$4 begun=${20}
}
marked() {
  while IFS= read -r line || [ "$line" ]; do
    case $line in *"$mark"*) return 0 ;; esac
  done <"/proc/$1/environ"
  return 1
}
scan() {
  found=' ' mine=' ' others=
  for each in /proc/[0-9]*; do
    pid=${each#/proc/}
    look "$pid"
    case $state in gone | Z | X) continue ;; esac
    [ "$begun" -ge "$since" ] || continue
    [ "$pid" = "$top" ] || [ ! "$alone" ] || continue
    if [ "$pid" = "$top" ] || [ "$session" = "$top" ] || marked "$pid"; then mine="$mine$pid:$parent "
    else others="$others $pid:$parent"
    fi
  done
  more=$others
  while [ "$more" ]; do
    more=
    for each in $others; do
      case $mine in
        *" ${each%:*}:"*) ;;
        *" ${each#*:}:"*) mine="$mine$each " more=1 ;;
      esac
    done
  done
  while [ "$mine" != "$more" ]; do
    more=$mine mine=' '
    for each in $more; do
      case $more in
        *" ${each#*:}:"*) mine="$mine$each " ;;
        *) found="$found${each%:*} " ;;
      esac
    done
  done
  for each in $mine; do found="$found${each%:*} "; done
}
look "$top"
[ "$state" = gone ] || [ "$begun" = "$since" ] || top=
sent=' ' refused=' ' looks=0
while [ $((looks += 1)) -le 30 ]; do
  scan
  new= more=
  for pid in $found; do
    case $refused in *" $pid "*) continue ;; esac
    more=1
    case $sent in *" $pid "*) continue ;; esac
    sent="$sent$pid " new=1
    [ "$signal" = 0 ] || kill "-$signal" "$pid" || refused="$refused$pid "
  done
  case $signal in
    0) break ;;
    9 | KILL) [ "$more" ] || break ;;
    *) [ "$new" ] || break ;;
  esac
done
echo "left $found"
echo "refused $refused"
"""


class _Answer(NamedTuple):
    left: tuple[int, ...]
    refused: tuple[int, ...]


class Tree:
    """A command that was started with a mark, and all that it has started.

    Args:
        target: the pod itself, see ``pin``.

    Threads: any.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._mark = os.urandom(16).hex()
        self._report: Outcome[Optional[str]] = Outcome()
        #: Whether it was started by this process, and not by the one that this is a fork of.
        self.own = True
        forks.tell(self)

    def _after_fork(self) -> None:
        self._report._after_fork()
        self.own = False

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return what to run instead, so that the command and its children can be found."""
        return marked(argv, self._mark)

    @property
    def codec(self) -> Callable[..., Channels]:
        """The codec for its connection, which takes the report out of its output."""
        return functools.partial(ReportingChannels, mark=self._mark, reported=self._report.set)

    def wait_started(self, deadline: Deadline) -> Optional[int]:
        """Wait for the report, at most some seconds; none comes if the command could not be started.

        Returns:
            The process id in the container, None if it is not known. Signals reach it all the same.

        Threads: blocks.
        """
        try:
            line = self._report.get(deadline.at_most(_ANSWER))
        except Expired:
            return None
        number = (line or "").split(" ", 1)[0]
        return int(number) if number.isdigit() else None

    def send(self, sig: int, *, children: bool = True) -> tuple[int, ...]:
        """Send a signal.

        Args:
            sig: its number in Linux, or a ``signal.Signals``; 0 only looks.
            children: whether to everything that the command has started, too.

        Returns:
            The process ids, in the container, of what still ran a moment later.

        Raises:
            SignalRefused: the container's user may not signal what has become another user's.
            TimeoutExpired: there was no answer; whether the signal was sent is unknown.
            ApiError: the server refused.
            ConnectFailed: it could not be reached.
            ExecError: it could not look into the container, or it does not know the command alone.

        Threads: blocks.
        """
        if not children and not self._identity()[0]:
            raise ExecError(
                f"{self._target.where}: the command has not reported its process id, and cannot be told "
                "from its children: send the signal to all, or once it has"
            )
        answer = self._ask(sig, children)
        refused = sorted({*answer.refused} & {*answer.left})
        if refused:
            raise SignalRefused(
                f"{self._target.where}: the container's user may not send signal {sig:d} to process "
                f"{', '.join(map(str, refused))}, which is another user's"
            )
        return answer.left

    def end(self, grace: float = GRACE) -> bool:
        """Send SIGTERM, and SIGKILL to what still runs after a while.

        Args:
            grace: seconds between the two.

        Returns:
            Whether nothing is left, as a look into the container has shown.

        Raises:
            KubewsError: as for ``send``, but for what is refused: that is left.

        Threads: blocks a little longer than ``grace``, if anything needs that.
        """
        deadline = Deadline(grace)
        left = self._ask(TERM).left
        pause = _FIRST_PAUSE
        while left and not deadline.expired():
            time.sleep(min(pause, deadline.remaining() or 0.0))
            pause = min(2 * pause, _PAUSE)
            left = self._ask(_NOTHING).left
        return not (left and self._ask(KILL).left)

    def end_or_warn(self) -> bool:
        """End it, with a RuntimeWarning if it cannot be known to have ended; return whether it has.

        Threads: blocks.
        """
        try:
            if self.end():
                return True
            why = "some of it does not go, even by SIGKILL"
        except (KubewsError, OSError) as exc:
            why = str(exc)
        warnings.warn(
            f"{self._target.where}: the command, or what it has started, may still run: {why}",
            RuntimeWarning,
            stacklevel=4,
        )
        return False

    def _ask(self, sig: int, children: bool = True) -> _Answer:
        """Run the script in the container."""
        word = _word(sig)
        pid, begun = self._identity()
        arguments = [f"{MARK}={self._mark}", pid, begun, word, "" if children else "alone"]
        deadline = Deadline(_ANSWER)
        session = open_exec(
            self._target,
            ["sh", "-c", _SIGNAL, "sh", *arguments],
            stdin=False,
            merged=False,
            tty=False,
            deadline=deadline,
        )
        connection = session.connection
        try:
            status = connection.status.get(deadline)
            if not connection.pipes[STDOUT].wait_end(deadline):
                raise Expired
            output = connection.pipes[STDOUT].take_all()
        except Expired as exc:
            raise TimeoutExpired(f"kill -{word} in {self._target.where}", _ANSWER) from exc
        finally:
            connection.close(1.0 if connection.status.done() else 0.0)
        if not status.success:
            why = (
                status.message if status.exit_code != _NO_PROC else "there is no /proc to look into"
            )
            raise ExecError(
                f"{self._target.where}: no signal could be sent: {why}", status=status.document
            )
        return _answer(output)

    def _identity(self) -> tuple[str, str]:
        """Return the process id and the time of start that were reported."""
        line = self._report.get(Deadline(0)) if self._report.done() else None
        fields = (line or "").rpartition(")")[2].split()
        if len(fields) < 20 or line is None:
            return "", ""
        return line.split(" ", 1)[0], fields[19]


def _word(sig: int) -> str:
    """Return a signal as ``kill`` takes it: by name where numbers may be other ones than Linux has."""
    if isinstance(sig, signal.Signals) and sys.platform != "linux":
        return sig.name.removeprefix("SIG")
    if not isinstance(sig, int):
        raise TypeError(f"a signal is a number or one of signal.Signals, not {sig!r}")
    if not 0 <= sig <= 64:
        raise ValueError(f"there is no signal {sig}: Linux has 1 to 64")
    return str(int(sig))


def _answer(output: bytes) -> _Answer:
    left, refused = (
        tuple(int(number) for number in line.split()[1:]) for line in output.splitlines()
    )
    return _Answer(left, refused)
