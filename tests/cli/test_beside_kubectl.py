"""The same command lines through kubectl and through kubews, on the same cluster."""

from __future__ import annotations

from typing import NamedTuple, Optional

import pytest
from clusters import AnyCluster
from logpods import said
from programs import PROGRAMS, Commands, Said
from support import in_thread

from kubews.testing import LocalCluster

pytestmark = pytest.mark.half_close

NULLS = b"a\0\xff\r\n\x04"
BOTH = "echo out; echo err >&2; exit 3"
TERMINAL = "test -t 1 && echo a terminal || echo none"


class Line(NamedTuple):
    """A command line; where kubews is meant to differ, how, and why."""

    arguments: list[str]
    data: Optional[bytes] = None
    meant: Optional[Said] = None
    why: str = ""


def line(text: str, *remote: str, data: Optional[bytes] = None) -> Line:
    return Line([*text.split(), *(["--", *remote] if remote else [])], data)


LINES = [
    line("exec web-0", "echo", "hi"),
    line("exec web-0", "sh", "-c", BOTH),
    line("exec -q web-0", "sh", "-c", BOTH),
    line("exec web-0", "sh", "-c", "kill -9 $$"),
    line("exec web-0", "echo", "-n", "--", "-c", "a b", ""),
    line("exec web-0", "printf", "\\0\\377\\r\\n"),
    line("exec web-0", "no-such-program"),
    # Input.
    line("exec -i web-0", "cat", data=NULLS),
    line("exec --stdin web-0", "wc", "-c", data=bytes(300_000)),
    line("exec --stdin=true web-0", "cat", data=b"x"),
    line("exec --stdin=false web-0", "cat", data=b"x"),
    line("exec -ti=0 web-0", "cat", data=b"x"),
    line("exec -i=T web-0", "cat", data=b"x"),
    line("exec web-0", "cat", data=b"not read"),
    # Terminals that are none.
    line("exec -t web-0", "sh", "-c", TERMINAL),
    line("exec -it web-0", "sh", "-c", TERMINAL),
    line("exec -i -t -q web-0", "cat", data=b"x"),
    # Flags before and behind the target, together and apart.
    line("exec web-0 -c app", "echo", "hi"),
    line("exec -capp web-0", "echo", "hi"),
    line("exec -c=app web-0", "echo", "hi"),
    line("exec --container=app web-0 --quiet", "echo", "hi"),
    line("exec web-0 -qic app", "cat", data=NULLS),
    line("exec web-0 --pod-running-timeout 1m30s", "echo", "hi"),
    line("exec --pod-running-timeout=0s web-0", "echo", "hi"),
    line("exec --pod-running-timeout=soon web-0", "echo", "hi"),
    line("exec web-0 --bogus", "echo", "hi"),
    line("exec web-0 --cont=app", "echo", "hi"),
    line("exec web-0 -c"),
    # Containers.
    line("exec two", "echo", "hi"),
    line("exec -q two", "echo", "hi"),
    line("exec two -c b", "echo", "hi"),
    line("exec two -c c", "echo", "hi"),
    line("exec marked", "echo", "hi"),
    Line(
        ["exec", "initial", "--", "echo", "hi"],
        meant=Said(b"hi\n", [], 0),
        why="with one regular container the server chooses, and nothing is asked beforehand",
    ),
    # Targets.
    line("exec pod/web-0", "echo", "hi"),
    line("exec deploy/front", "echo", "hi"),
    line("exec nope", "echo", "hi"),
    line("exec deploy/nope", "echo", "hi"),
    line("exec nonsense/web-0", "echo", "hi"),
    line("exec a/b/c", "echo", "hi"),
    line("exec web-0 -n nowhere", "echo", "hi"),
    # Without -- there is no command.
    line("exec web-0 echo hi"),
    line("exec web-0 more", "echo", "hi"),
    line("exec web-0"),
    line("exec web-0 --"),
    line("exec"),
    line("exec --", "echo"),
    # Which cluster.
    line("--context=nope exec web-0", "echo", "hi"),
    line("--kubeconfig /nonexistent exec web-0", "echo", "hi"),
    line("--server https://127.0.0.1:1 exec web-0", "echo", "hi"),
    line("exec web-0 --user nope", "echo", "hi"),
    line("exec web-0 --cluster nope", "echo", "hi"),
    # The container's own process.
    line("attach -i echoing", data=b""),
    line("attach -qi echoing", data=b""),
    line("attach -it echoing", data=b""),
    line("attach -it -q echoing", data=b""),
    line("attach --stdin --tty=false echoing -c app", data=b""),
    line("attach -i deploy/echoing", data=b""),
    line("attach -i pod echoing", data=b""),
    line("attach -i talking", data=b""),
    line("attach -i last-of-{program}", data=b"one\n"),
    Line(
        ["attach", "-i", "-q", "failing-of-{program}"],
        data=b"one\n",
        meant=Said(b"got one\n", ["err one", "command terminated with exit code 5"], 5),
        why="of a container that has ended kubectl does not ask for the exit code",
    ),
    line("attach -q ended"),
    line("attach -q nope"),
    line("attach echoing -c nope"),
    line("attach --pod-running-timeout=0s echoing"),
    line("attach echoing --bogus"),
    line("attach"),
    line("attach a b c"),
    # Logs.
    line("logs two"),
    line("logs two b"),
    line("logs two -c b --tail=1"),
    line("logs two -c b --tail 0"),
    line("logs two -c b --limit-bytes 3"),
    line("logs two -c b --since=1h"),
    line("logs two -c b --since-time=2020-01-31T12:00:00.5Z"),
    line("logs two -c b --since-time=2190-01-31T12:00:00+01:00"),
    line("logs two -c b --follow=false --timestamps=false"),
    line("logs two --all-containers --prefix --tail=1"),
    line("logs two -c q"),
    line("logs marked"),
    line("logs pod/marked --prefix"),
    line("logs initial"),
    line("logs deploy/front"),
    line("logs deploy/several --prefix"),
    line("logs two -c b --all-pods --tail=1"),
    line("logs deploy/front --all-pods --all-containers"),
    line("logs deploy/nope --all-pods"),
    line("logs two -c b --insecure-skip-tls-verify-backend"),
    line("logs two -c b --ignore-errors"),
    Line(
        ["logs", "two", "-c", "b", "-p", "--ignore-errors"],
        meant=Said(b"", ["error"], 0),
        why="kubectl mixes the error with the lines of the log",
    ),
    line("logs -f ended"),
    line("logs -f ended --tail=0 --limit-bytes=3"),
    line("logs -f initial -c before --prefix"),
    line("logs ended -p"),
    line("logs -l app=front"),
    line("logs -l app=nowhere"),
    line("logs -l app=pair -f --max-log-requests=1 --all-containers"),
    line("logs -l !!"),
    line("logs nope"),
    line("logs deploy/nope"),
    line("logs a b c"),
    line("logs two b -c b"),
    line("logs -l app=front two"),
    line("logs two --since=1s --since-time=2020-01-31T12:00:00Z"),
    line("logs two --since-time=yesterday"),
    line("logs two --all-containers -c a"),
    line("logs two --tail=-2"),
    line("logs two --tail=x"),
    line("logs two --limit-bytes=-1"),
    line("logs two --since=-1s"),
    line("logs two --pod-running-timeout=0s"),
    line("logs"),
    # Ports that cannot be forwarded.
    line("port-forward web-0"),
    line("port-forward web-0 0"),
    line("port-forward web-0 x:80"),
    line("port-forward web-0 80000:80"),
    line("port-forward web-0 :nope"),
    line("port-forward web-0 :80 --address nonsense"),
    line("port-forward nope :80"),
    line("nonsense"),
]


@pytest.fixture(scope="session")  # as long as the cluster that it is in
def pods(cluster: AnyCluster) -> None:
    """What the lines name beside ``web-0``."""
    sleep = ["sh", "-c", "exec sleep 100000"]
    talking = ["sh", "-c", "for i in 1 2 3; do echo said $i; done; exec sleep 100000"]
    cluster.add_pod("two", {"a": sleep, "b": talking}, labels={"app": "pair"})
    mark = {"kubectl.kubernetes.io/default-container": "b"}
    cluster.add_pod("marked", {"a": sleep, "b": sleep}, annotations=mark)
    cluster.add_pod("initial", {"a": sleep}, init_containers=["before"])
    cluster.add_pod("front-7f-x2", {"app": sleep}, labels={"app": "front"})
    cluster.add_workload("deploy/front", selector={"app": "front"})
    for number in (0, 1):
        script = f"echo here is {number}; exec sleep 100000"
        cluster.add_pod(f"many-{number}", {"app": ["sh", "-c", script]}, labels={"app": "several"})
    cluster.add_workload("deploy/several", selector={"app": "several"})
    echo = ["sh", "-c", "while read l; do echo got $l; done; exec sleep 100000"]
    cluster.add_pod("echoing", {"app": echo}, stdin=True, labels={"app": "echoing"})
    cluster.add_workload("deploy/echoing", selector={"app": "echoing"})
    cluster.add_pod("talking", {"a": echo, "b": sleep}, stdin=True)
    cluster.add_pod("ended", {"app": ["true"]}, state="completed")
    never = {} if isinstance(cluster, LocalCluster) else {"restart_policy": "Never"}
    for program in PROGRAMS:
        for name, code in (("last", 0), ("failing", 5)):
            script = f"read l; echo got $l; echo err $l >&2; exit {code}"
            cluster.add_pod(
                f"{name}-of-{program}",
                {"app": ["sh", "-c", script]},
                stdin=True,
                stdin_once=True,
                **never,
            )
    with cluster.client() as client:  # or one program might find less in a log than the other
        said(client.pod("two", container="b"), 3)
        for number in (0, 1):
            said(client.pod(f"many-{number}"), 1)


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line.arguments))
def test_kubews_says_what_kubectl_says(pods: None, commands: Commands, line: Line) -> None:
    """Stdout and exit code are the same, and on stderr the notes; of an error, that it is one."""

    def said_by(name: str) -> Said:
        arguments = [argument.replace("{program}", name) for argument in line.arguments]
        return commands.run(*arguments, data=line.data, program=PROGRAMS[name])

    kubectl = in_thread(said_by, "kubectl")
    ours = said_by("kubews")
    theirs = kubectl.result(60)
    if line.meant is None:
        assert ours == theirs
    else:
        assert theirs != line.meant, "they no longer differ: the table should not say so"
        assert ours == line.meant, line.why
