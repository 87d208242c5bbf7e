"""What ``deploy/web`` stands for when something is opened: the pod, its container, its port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cluster.manifests import PodSpec
from clusters import make_cluster, minor
from support import eventually, seconds

import kubews
from kubews import Client, ConfigError, NotFound, NotReady, Pod
from kubews.testing import FOREVER, Faults, LocalCluster, ServicePort
from kubews.transport.deadline import Deadline

KINDS = ("deploy", "sts", "rs", "ds", "job", "rc")
LOCAL = pytest.mark.local_only("it breaks connections, or looks at what the server received")
DEFAULT = "kubectl.kubernetes.io/default-container"


@pytest.fixture(scope="module")
def farm(cluster, pytestconfig: pytest.Config):
    """Two pods that run, one that never will and one that has ended, and all that selects them."""
    with make_cluster(pytestconfig) as farm:
        labels = {"app": "web"}
        farm.add_pod("pod-z", {"app": None, "side": None}, labels=labels, ports={"http": 7100})
        time.sleep(1.1)  # servers count whole seconds: who came first is ready for longer
        farm.add_pod("pod-a", labels={**labels, "new": "yes"}, containers={"app": None})
        farm.add_pod("pod-b", labels=labels, containers={"app": None}, state="waiting")
        farm.add_pod("pod-c", labels=labels, containers={"app": None}, state="completed")
        farm.add_pod("pod-d", labels={"app": "lost"}, containers={"app": None}, state="waiting")
        farm.add_pod("pod-e", labels={"app": "lost"}, containers={"app": None}, state="completed")
        ports = [
            ServicePort(80, "http", "web"),
            ServicePort(81, 7200, "number"),
            ServicePort(82, name="same"),
            ServicePort(83, "nowhere", "nowhere"),
            ServicePort(53, 5353, "dns", "UDP"),
        ]
        farm.add_service("web", selector=labels, ports=ports)
        farm.add_service("bare", selector=labels, ports=ports, headless=True)
        farm.add_service("blind", ports=ports)
        farm.add_service("far", external_name="example.com")
        farm.add_service("lost", selector={"app": "lost"}, ports=ports)
        farm.add_service("empty", selector={"app": "nobody"}, ports=ports)
        for kind in KINDS if can_have_all(farm) else KINDS[:2]:
            farm.add_workload(f"{kind}/web", selector=labels)
        expressions = [
            {"key": "app", "operator": "In", "values": ["web", "other"]},
            {"key": "new", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "new", "operator": "NotIn", "values": ["no"]},
        ]
        farm.add_workload("deploy/new", expressions=expressions)
        farm.add_workload("deploy/lost", selector={"app": "lost"})
        farm.add_workload("deploy/empty", selector={"app": "nobody"})
        yield farm


def can_have_all(farm: Any) -> bool:
    """Tell whether nothing there acts on a workload: some controllers end pods that they did not make."""
    return isinstance(farm, LocalCluster) or farm.node is not None


@pytest.fixture
def farm_client(farm, nothing_left_behind: None):
    with farm.client() as client:
        yield client


def pod_of(pod: Pod, **options: Any) -> str:
    """Ask the container where it is."""
    text: str = pod.check_output("echo $HOSTNAME", shell=True, text=True, **options)
    return text.strip()


@pytest.mark.parametrize(
    "name",
    [
        *(f"{kind}/web" for kind in KINDS),
        "svc/web",
        "svc/bare",
        "Deployment/web",
        "deployments.apps/web",
        "deploy.v1.apps/web",
        "statefulset/web",
        "services/web",
    ],
)
def test_every_kind_stands_for_the_pod_that_is_ready_for_longest(
    farm, farm_client: Client, name: str
) -> None:
    if name.partition("/")[0] in KINDS[2:] and not can_have_all(farm):
        pytest.skip("a controller of this cluster would end the pods")
    assert pod_of(farm_client.pod(name)) == "pod-z"


def test_expressions_select(farm_client: Client) -> None:
    assert pod_of(farm_client.pod("deploy/new")) == "pod-a"


def test_it_is_chosen_anew_each_time(farm, farm_client: Client) -> None:
    """A handle that lives for hours must not keep a pod that has died."""
    farm.add_pod("first", {"app": None}, labels={"app": "chosen"})
    time.sleep(1.1)
    farm.add_pod("then", {"app": None}, labels={"app": "chosen"})
    farm.add_workload("deploy/chosen", selector={"app": "chosen"})
    pod = farm_client.pod("deploy/chosen")
    assert pod_of(pod) == "first"
    pinned = pod.pin()
    farm.delete_pod("first")
    assert pod_of(pod) == "then"
    assert (pod.name, pod.container) == ("chosen", None)
    with pytest.raises(NotFound, match='pods "first" not found'):
        pod_of(pinned)


def test_a_process_knows_the_pod_that_it_runs_in(farm_client: Client) -> None:
    pod = farm_client.pod("deploy/web", container="side")
    with pod.popen(["cat"], stdin=kubews.PIPE, request_stdin=True) as process:
        namespace = pod.namespace
        where = f"deploy/web -> pod {namespace}/pod-z"
        assert repr(process.pod) == f"<kubews.Pod {where} container='side'>"
        assert repr(process.stdin) == f"<kubews.Stream stdin of {where}, container side>"
        assert (process.pod.name, process.pod.kind, process.container) == ("pod-z", "pod", "side")
        assert process.pod.pin() is process.pod
        assert repr(pod) == f"<kubews.Pod {namespace}/deploy/web container='side'>"
        process.close()


def test_a_failure_names_the_target_and_the_pod(farm_client: Client) -> None:
    with pytest.raises(kubews.ExecError) as caught:
        farm_client.pod("svc/web").run(["/no/such/program"])
    assert f"svc/web -> pod {farm_client.config.namespace}/pod-z, container app" in str(
        caught.value
    )


def test_the_container_is_kubectls_and_is_not_remembered(farm, farm_client: Client) -> None:
    labels = {"app": "boxes"}
    annotations = {DEFAULT: "side"}
    farm.add_pod("boxed", {"app": None, "side": None}, labels=labels, annotations=annotations)
    farm.add_workload("deploy/boxes", selector=labels)
    pod = farm_client.pod("deploy/boxes")
    with pod.popen(["true"]) as process:
        assert process.container == "side"
    assert pod.container is None
    for given, expected in ((pod, "app"), ("deploy/boxes", "app")):
        options: Any = {} if given is pod else {"client": farm_client}
        with kubews.Popen(["true"], pod=given, container="app", **options) as process:
            assert process.container == expected
    with pytest.raises(kubews.BadRequest, match="The pod has the containers app, side"):
        farm_client.pod("deploy/boxes", container="nope").run(["true"])


def add_ill_pod(farm: Any, name: str, labels: dict[str, str]) -> None:
    """Add a pod that runs, but does not answer its probe."""
    if isinstance(farm, LocalCluster):
        farm.add_pod(name, {"app": None}, labels=labels)
        farm.change_pod(name, ready=False)
        return
    document = PodSpec(name, {"app": None}, farm.image, labels=labels, node=farm.node).document()
    probe = {"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1}
    document["spec"]["containers"][0]["readinessProbe"] = probe
    farm.create(document)
    farm.wait(name)


def test_a_pod_that_does_not_answer_its_probe_is_opened_all_the_same(
    farm, farm_client: Client
) -> None:
    """kubectl takes it, and who looks for the reason must get in."""
    add_ill_pod(farm, "ill", {"app": "ill"})
    farm.add_workload("deploy/ill", selector={"app": "ill"})
    pod = farm_client.pod("deploy/ill")
    assert pod_of(pod) == "ill"
    assert pod_of(pod, wait_ready=5) == "ill"  # its container runs
    farm.add_pod("well", {"app": None}, labels={"app": "ill"})
    assert eventually(lambda: pod_of(pod) == "well", 20)


@LOCAL
def test_a_pod_that_ends_is_the_last_choice_among_those_that_are_ready(
    farm, farm_client: Client
) -> None:
    for name in ("ends-a", "ends-b"):
        farm.add_pod(name, {"app": None}, labels={"app": "ends"})
    farm.add_service("ends", selector={"app": "ends"})
    pod = farm_client.pod("svc/ends")
    assert pod_of(pod) == "ends-a"
    farm.change_pod("ends-a", deleting="2026-01-01T00:00:00Z")
    assert pod_of(pod) == "ends-b"
    farm.change_pod("ends-b", ready=False)
    assert pod_of(pod) == "ends-a"


def test_kubectl_chooses_the_same(farm, farm_client: Client, tmp_path: Path) -> None:
    if isinstance(farm, LocalCluster) and minor(farm) < 30:
        pytest.skip("kubectl speaks SPDY with such servers, and LocalCluster does not")
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or "kubectl"
    for name in ("deploy/web", "svc/web", "sts/web", "deploy/new"):
        command = [program, "exec", name, "--", "sh", "-c", "echo $HOSTNAME"]
        environment = {**os.environ, "KUBECONFIG": farm.kubeconfig, "HOME": str(tmp_path)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds(30)
        )
        assert done.stdout.strip() == pod_of(farm_client.pod(name)), done.stderr


@LOCAL
def test_an_init_container_that_runs_can_be_entered_though_the_pod_is_pending(
    farm, farm_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    status: dict[str, Any] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "setup", "state": {"running": {}}}],
        "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    spec = {"nodeName": "n", "containers": [{"name": "app"}], "initContainers": [{"name": "setup"}]}
    pods = {"items": [{"metadata": {"name": "p"}, "spec": spec, "status": status}]}
    owner = {"spec": {"selector": {"matchLabels": {"app": "p"}}}}
    monkeypatch.setattr(
        farm_client, "get", lambda path, **_: pods if "labelSelector" in path else owner
    )
    target = farm_client.pod("deploy/p", container="setup")
    assert target.resolve(Deadline(None)).pod_name == "p"
    with pytest.raises(NotReady, match=r"app is waiting \(PodInitializing\)"):
        farm_client.pod("deploy/p").resolve(Deadline(None))
    assert target.wait_ready(1).name == "p"
    for number in range(6):
        pods["items"].append({**pods["items"][0], "metadata": {"name": f"p{number}"}})
    with pytest.raises(NotReady, match=r"p3 is Pending: .*; and 2 more"):
        farm_client.pod("deploy/p").resolve(Deadline(None))
    status["phase"] = "Failed"
    with pytest.raises(NotReady, match=r"has ended \(phase Failed\)"):
        target.resolve(Deadline(None))


# What is not there.


@pytest.mark.parametrize("name", ["deploy/lost", "svc/lost"])
def test_where_no_pod_runs_it_says_what_they_do_instead(farm_client: Client, name: str) -> None:
    with pytest.raises(NotReady) as caught:
        farm_client.pod(name).run(["true"])
    kind = name.partition("/")[0]
    said = str(caught.value)
    assert said.startswith(f"{kind} {farm_client.config.namespace}/lost has no pod that runs: ")
    assert "pod-d is Pending: app is waiting" in said
    assert "pod-e has ended (phase Succeeded)" in said
    assert said.endswith("; wait_ready=SECONDS waits for one")


@pytest.mark.parametrize("name", ["deploy/empty", "svc/empty"])
def test_where_no_pod_is_selected_it_names_the_selector(farm_client: Client, name: str) -> None:
    with pytest.raises(NotReady, match="empty has no pod: there is none with app=nobody"):
        farm_client.pod(name).run(["true"])
    with pytest.raises(NotReady, match=r"app=nobody, after 1\.5 s"):
        farm_client.pod(name).run(["true"], wait_ready=1.5)
    with pytest.raises(NotReady, match="app=nobody"):
        farm_client.pod(name).get()


@pytest.mark.parametrize("name", ["svc/blind", "svc/far"])
def test_a_service_without_a_selector_is_refused_with_kubectls_words(
    farm_client: Client, name: str
) -> None:
    expected = f"invalid service '{name[4:]}': Service is defined without a selector"
    for options in ({}, {"wait_ready": 30}):
        with pytest.raises(ConfigError) as caught:
            farm_client.pod(name).run(["true"], **options)
        assert str(caught.value) == expected


def test_what_is_not_there_at_all(farm_client: Client) -> None:
    with pytest.raises(NotFound, match=r'deployments\.apps "nope" not found') as caught:
        farm_client.pod("deploy/nope").run(["true"])
    assert caught.value.status["details"] == {
        "name": "nope",
        "group": "apps",
        "kind": "deployments",
    }
    with pytest.raises(NotFound, match='services "nope" not found'):
        farm_client.pod("svc/nope").run(["true"])
    with pytest.raises(NotReady, match=r"deploy \S+/nope does not exist, after 1\.5 s"):
        farm_client.pod("deploy/nope").run(["true"], wait_ready=1.5)


def test_rights_that_are_missing_are_named(farm) -> None:
    execs = {"pods/exec": ["get", "create"]}
    farm.add_user("choosing", verbs={**execs, "deployments.apps": ["get"], "pods": ["list"]})
    farm.add_user("blind", verbs={**execs, "pods": ["list"]})
    farm.add_user("unlisting", verbs={**execs, "deployments.apps": ["get"], "services": ["get"]})
    with farm.client("choosing") as client:
        assert pod_of(client.pod("deploy/web")) == "pod-z"
        with pytest.raises(kubews.Forbidden, match="needs the verb get on services in namespace"):
            client.pod("svc/web").run(["true"])
    with farm.client("blind") as client:
        with pytest.raises(kubews.Forbidden) as caught:
            client.pod("deploy/web").run(["true"])
        assert 'deployments.apps "web" is forbidden' in str(caught.value)
        assert "needs the verb get on deployments.apps in namespace" in str(caught.value)
        assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
        assert pod_of(client.pod("pod-z", container="app")) == "pod-z"
    with farm.client("unlisting") as client:
        for name in ("deploy/web", "svc/web"):
            for options in ({}, {"wait_ready": 30}):
                with pytest.raises(kubews.Forbidden, match="needs the verb list on pods in namesp"):
                    client.pod(name).run(["true"], **options)


# Waiting.


def test_wait_ready_waits_for_a_pod_and_for_what_selects_it(farm, farm_client: Client) -> None:
    labels = {"app": "late"}

    def add() -> None:
        farm.add_workload("deploy/late", selector=labels)
        time.sleep(0.3)
        farm.add_pod("late", {"app": None}, labels=labels)

    adding = threading.Timer(0.3, add)
    adding.start()
    pod = farm_client.pod("deploy/late")
    assert pod_of(pod, wait_ready=seconds(20)) == "late"
    adding.join()
    ready = pod.wait_ready(seconds(5))
    assert (ready.name, ready.container) == ("late", "app")
    plain = farm_client.pod("late")
    assert plain.wait_ready(None) is plain


def test_wait_ready_waits_on_where_pods_have_ended(farm, farm_client: Client) -> None:
    """Of a Deployment another one may come, other than of a pod."""
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"pod-e has ended .*, after 1\.5 s"):
        farm_client.pod("deploy/lost").run(["true"], wait_ready=1.5)
    assert time.monotonic() - begin > 1.4
    with pytest.raises(kubews.TimeoutExpired):
        farm_client.pod("deploy/lost").run(["true"], wait_ready=30, timeout=0.5)


@LOCAL
def test_a_server_that_is_silent_when_it_is_asked(farm, farm_client: Client) -> None:
    farm.next_faults(Faults(match="/deployments/web", response_delay=FOREVER))
    with pytest.raises(NotReady, match=r"the server has not told, after 1\.5 s"):
        farm_client.pod("deploy/web").run(["true"], wait_ready=1.5)
    farm.next_faults(Faults(match="labelSelector", response_delay=FOREVER))
    with pytest.raises(kubews.ConnectTimeout):
        farm_client.pod("deploy/web").run(["true"], connect_timeout=1.5)


@LOCAL
def test_three_requests_are_all_that_it_takes(farm, farm_client: Client) -> None:
    """Two questions and the exec, with the container that the answers have named."""
    before = len(farm.requests)
    assert pod_of(farm_client.pod("deploy/web")) == "pod-z"
    paths = [request.path.rpartition("/")[2] for request in farm.requests[before:]]
    assert paths == ["web", "pods", "exec"]


# Ports.


@pytest.mark.parametrize(
    ("name", "port", "number"),
    [
        ("svc/web", 80, 7100),
        ("svc/web", "80", 7100),
        ("svc/web", "web", 7100),
        ("svc/web", 81, 7200),
        ("svc/web", "same", 82),
        ("svc/bare", 80, 80),
        ("svc/bare", "number", 81),
        ("deploy/web", "http", 7100),
        ("deploy/web", 1234, 1234),
        ("pod-z", "http", 7100),
        ("pod/pod-z", 1234, 1234),
    ],
)
def test_ports(farm_client: Client, name: str, port: Any, number: int) -> None:
    found = farm_client.pod(name).resolve_port(port, Deadline(seconds(10)))
    assert found == ("pod-z", number)


@pytest.mark.parametrize(
    ("name", "port", "says"),
    [
        ("svc/web", 7100, "Service web does not have a service port 7100"),
        ("svc/web", "http", "Service 'web' does not have a named port 'http'"),
        ("svc/web", 83, "Pod 'pod-z' does not have a named port 'nowhere'"),
        ("svc/web", "dns", "UDP protocol is not supported for dns"),
        ("svc/web", 53, "UDP protocol is not supported for 53"),
        ("deploy/web", "nope", "Pod 'pod-z' does not have a named port 'nope'"),
        ("pod-z", "nope", "Pod 'pod-z' does not have a named port 'nope'"),
        ("pod-z", 0, "remote port must be > 0"),
        ("svc/blind", 80, "invalid service 'blind': Service is defined without a selector"),
    ],
)
def test_ports_that_are_none(farm_client: Client, name: str, port: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        farm_client.pod(name).resolve_port(port, Deadline(seconds(10)))
    assert str(caught.value) == says


def test_ports_where_no_pod_runs(farm_client: Client) -> None:
    with pytest.raises(NotReady, match="pod-d is Pending"):
        farm_client.pod("svc/lost").resolve_port(80, Deadline(seconds(10)))
    with pytest.raises(NotFound, match='pods "nope" not found'):
        farm_client.pod("nope").resolve_port("http", Deadline(seconds(10)))
    with pytest.raises(TypeError):
        farm_client.pod("deploy/web").resolve_port(8.5, Deadline(None))  # type: ignore[arg-type]


@LOCAL
def test_a_number_of_a_named_pod_costs_no_question(farm, farm_client: Client) -> None:
    """A role with pods/portforward alone is enough."""
    before = len(farm.requests)
    assert farm_client.pod("nope").resolve_port(80, Deadline(None)) == ("nope", 80)
    assert farm_client.pod("nope").resolve_port("80", Deadline(None)) == ("nope", 80)
    assert farm_client.pod("nope").resolve(Deadline(None)).pod_name == "nope"
    assert len(farm.requests) == before


def test_the_object_is_that_of_the_chosen_pod(farm_client: Client) -> None:
    pod = farm_client.pod("deploy/web").get()
    assert (pod["kind"], pod["apiVersion"], pod["metadata"]["name"]) == ("Pod", "v1", "pod-z")
    found = farm_client.pod("svc/web").resolve(Deadline(None))
    assert (found.pod_name, found.owner["kind"]) == ("pod-z", "Service")
    assert found.document["metadata"]["name"] == "pod-z"
    assert "uid" not in repr(found)
    kinds = {"deploy/web": "deployment", "svc/web": "service", "job/x": "job", "x": "pod"}
    assert {name: farm_client.pod(name).kind for name in kinds} == kinds
