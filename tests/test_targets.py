"""Which pod and container, and refusals that a person can act on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import yaml
from clusters import make_cluster, minor
from support import eventually, seconds

import kubews
from kubews import Client, Pod
from kubews.testing import FOREVER, Faults, LocalCluster
from kubews.transport.deadline import NEVER

# Those with a token in every cluster of ours; in others they are made.
USERS: dict[str, dict[str, list[str]]] = {
    "token": {"pods/exec": ["get", "create"]},
    "getonly": {"pods/exec": ["get"]},
    "createonly": {"pods/exec": ["create"]},
    "nobody": {},
}

BREAKS = pytest.mark.local_only("it breaks connections, or looks at what the server received")


@pytest.fixture(scope="module")
def zoo(cluster, pytestconfig: pytest.Config):
    """Pods in every state, and users with every right, in a cluster of the kind of ``cluster``."""
    with make_cluster(pytestconfig) as zoo:
        zoo.add_pod("two", {"main": None, "side": None})
        zoo.add_pod(
            "chosen",
            {"main": None, "side": None},
            annotations={"kubectl.kubernetes.io/default-container": "side"},
        )
        zoo.add_pod("init", {"main": None}, init_containers=["setup"])
        for state in ("waiting", "unscheduled", "completed"):
            zoo.add_pod(state, {"main": None}, state=state)
        dead = {"main": ["sh", "-c", "exit 3"], "side": None}
        if isinstance(zoo, LocalCluster):
            zoo.add_pod("dead", dead)
        else:
            zoo.add_pod("dead", dead, restart_policy="Never", timeout=0)
            assert eventually(lambda: "terminated" in str(zoo.get_pod("dead")["status"]), 60)
        zoo.add_user("executor", verbs={"pods/exec": ["get", "create"]})
        known = yaml.safe_load(Path(zoo.kubeconfig).read_text())["contexts"]
        for name in USERS.keys() - {each["name"] for each in known}:
            zoo.add_user(name, verbs=USERS[name])
        yield zoo


@pytest.fixture
def zoo_client(zoo: LocalCluster, nothing_left_behind: None):
    with zoo.client() as client:
        yield client


def test_the_default_container_is_kubectls_r56(zoo, zoo_client: Client) -> None:
    """R-56: the annotation's, else the first."""
    for name, container in (("chosen", "side"), ("two", "main"), ("init", None)):
        for each in ("main", "side") if container else ("main",):
            zoo_client.pod(name, container=each).check_call(f"echo {each} > name", shell=True)
        pod = zoo_client.pod(name)
        assert pod.check_output(["cat", "name"], text=True) == f"{container or 'main'}\n"
        assert pod.container == container
    assert zoo_client.pod("two", container="side").check_output(["cat", "name"]) == b"side\n"


@BREAKS
def test_the_container_is_chosen_once_and_without_a_question_beforehand_r56(
    zoo, zoo_client: Client
) -> None:
    """R-56: one request where the server can choose, and one from then on where it could not."""
    for name, first in (("init", 1), ("two", 3)):
        pod = zoo_client.pod(name)
        for expected in (first, 1):
            before = len(zoo.requests)
            pod.run(["true"])
            assert len(zoo.requests) == before + expected


def test_a_role_with_exec_alone_is_enough(zoo) -> None:
    with zoo.client("executor") as client:
        assert client.pod("init").call(["true"]) == 0
        assert client.pod("two", container="side").call(["true"]) == 0
        with pytest.raises(kubews.BadRequest, match=r"choose one of: \[main side\]"):
            client.pod("two").run(["true"])


def test_a_user_with_a_token_runs_commands(zoo) -> None:
    with zoo.client("token") as client:
        assert client.pod("two", container="main").check_output(["echo", "x"]) == b"x\n"


@pytest.mark.parametrize("user", ["getonly", "createonly", "nobody"])
def test_403_names_both_verbs_r34(zoo, user: str) -> None:
    """R-34: get since 1.30, and create too since 1.35, whose refusal gives no reason at all."""
    with zoo.client(user) as client:
        pod = client.pod("two", container="main")
        if user == "getonly" and minor(zoo) < 35:
            assert pod.call(["true"]) == 0
            return
        with pytest.raises(kubews.Forbidden) as caught:
            pod.run(["true"])
    assert f"get and create on pods/exec in namespace {pod.namespace}" in str(caught.value)
    assert 'pods "two" is forbidden' in str(caught.value)
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    assert caught.value.status["details"] == {"name": "two", "kind": "pods"}


def test_an_unknown_container_lists_the_known_ones_r56(zoo_client: Client) -> None:
    """R-56."""
    with pytest.raises(kubews.BadRequest, match=r"is not valid for pod two.*main, side"):
        zoo_client.pod("two", container="nope").run(["true"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("waiting", r"Pending: main is waiting \(\w+\).*wait_ready=SECONDS"),
        ("unscheduled", "no node has been chosen"),
        ("completed", "has ended .phase Succeeded."),
        ("dead", r"main is terminated .*exit code 3"),
    ],
)
def test_a_pod_that_cannot_run_a_command_says_what_it_does_r56(
    zoo, zoo_client: Client, name: str, says: str
) -> None:
    """R-56: the kubelet's 500 and 400 tell little; the pod's own state tells why."""
    with pytest.raises((kubews.ApiError, kubews.ExecError), match=says) as caught:
        zoo_client.pod(name, container="main").run(["true"])
    # From 1.30 to 1.35 the server agrees first and finds out afterwards.
    if isinstance(caught.value, kubews.ApiError):
        assert caught.value.code in (400, 404, 500)


def test_missing_pods_namespaces_and_credentials_r33(zoo, zoo_client: Client) -> None:
    """R-33: the code, the reason, the decoded Status, and a message with the server's own words."""
    with pytest.raises(kubews.NotFound, match='pods "nope" not found') as caught:
        zoo_client.pod("nope").run(["true"])
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")
    assert caught.value.status["message"] == 'pods "nope" not found'
    with pytest.raises(kubews.NotFound):
        zoo_client.pod("two", namespace="nowhere").run(["true"])


@BREAKS
@pytest.mark.parametrize("body", ["length", "chunked", "close"])
def test_bodies_of_every_form_are_read_r33(zoo, zoo_client: Client, body: str) -> None:
    """R-33: a chunked or close-delimited Status is not lost."""
    zoo.next_faults(Faults(body=body), Faults(body=body))
    with pytest.raises(kubews.NotFound, match='pods "nope" not found'):
        zoo_client.pod("nope").run(["true"])


@BREAKS
def test_an_empty_403_is_explained_r33(zoo, zoo_client: Client) -> None:
    """R-33: it is not about permissions but about the protocol."""
    zoo.next_faults(Faults(response=b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"))
    with pytest.raises(kubews.Forbidden, match="none of the offered subprotocols") as caught:
        zoo_client.pod("init").run(["true"])
    assert caught.value.status is None


@BREAKS
def test_too_many_requests_says_when_to_come_back_r33(zoo, zoo_client: Client) -> None:
    """R-33."""
    zoo.next_faults(
        Faults(
            response=b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\n"
            b"Content-Length: 4\r\n\r\nwait"
        )
    )
    with pytest.raises(kubews.TooManyRequests, match="wait") as caught:
        zoo_client.pod("init").run(["true"])
    assert caught.value.retry_after == 60.0


@BREAKS
def test_a_401_is_tried_once_more_and_then_told_r33(zoo, zoo_client: Client) -> None:
    """R-33, R-30: a token that was replaced a moment ago is read anew."""
    refusal = Faults(
        response=b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nUnauthorized"
    )
    zoo.next_faults(refusal)
    assert zoo_client.pod("init").call(["true"]) == 0
    zoo.next_faults(refusal, refusal)
    with pytest.raises(kubews.Unauthorized):
        zoo_client.pod("init").run(["true"])


@BREAKS
def test_redirects_are_not_followed_with_credentials_r33(zoo) -> None:
    """R-33."""
    zoo.next_faults(
        Faults(
            response=b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
    )
    with zoo.client("executor") as client:
        with pytest.raises(kubews.ApiError, match=r"redirects to https://elsewhere\.example/"):
            client.pod("init").run(["true"])


@BREAKS
def test_no_error_shows_a_credential_r33(zoo) -> None:
    """R-33: neither message, repr nor attribute."""
    token = zoo.add_user("secretive", token="s3cr3t-t0ken")
    with zoo.client("secretive") as client:
        assert token not in repr(client)
        with pytest.raises(kubews.Forbidden) as caught:
            client.pod("two", container="main").run(["true"])
        zoo.next_faults(Faults(drop_head_after=5))
        with pytest.raises(kubews.KubewsError) as broken:
            client.pod("two", container="main").run(["true"])
    exc: BaseException | None
    for first in (caught.value, broken.value):
        exc = first
        while exc is not None:
            assert token not in f"{exc} {exc!r} {vars(exc)}"
            exc = exc.__cause__ or exc.__context__


def test_wait_ready_waits_for_a_pod_that_does_not_exist_yet_r56(zoo, zoo_client: Client) -> None:
    """R-56."""
    timer = threading.Timer(0.5, zoo.add_pod, ["late", {"main": None}])
    timer.start()
    assert zoo_client.pod("late").call(["true"], wait_ready=seconds(10)) == 0
    timer.join()


def test_wait_ready_says_what_it_waited_for_r56(zoo, zoo_client: Client) -> None:
    """R-56."""
    with pytest.raises(TimeoutError, match=r"main is waiting \(\w+\), after") as caught:
        zoo_client.pod("waiting").run(["true"], wait_ready=seconds(1))
    assert "SECONDS" not in str(caught.value)  # that is what was done
    with pytest.raises(kubews.NotReady, match="does not exist"):
        zoo_client.pod("never").run(["true"], wait_ready=seconds(1))
    begin = time.monotonic()
    with pytest.raises(kubews.NotReady, match="has ended"):
        zoo_client.pod("completed").run(["true"], wait_ready=30)
    assert time.monotonic() - begin < seconds(5)
    # Another container of the pod may run on.
    assert zoo_client.pod("dead", container="side").call(["true"], wait_ready=5) == 0


@BREAKS
def test_wait_ready_of_a_silent_server_r56(zoo, zoo_client: Client) -> None:
    """R-56: it is no lost connection, but a wait that was in vain."""
    zoo.next_faults(Faults(response_delay=FOREVER))
    with pytest.raises(kubews.NotReady, match=r"the server has not told, after 0\.3 s"):
        zoo_client.pod("waiting").run(["true"], wait_ready=0.3)


@pytest.mark.parametrize("name", ["", "/", "a b", "../x", "UPPER", "pod/", "svc/", "/web", "a/b/c"])
def test_names_that_are_none(zoo_client: Client, name: str) -> None:
    with pytest.raises(kubews.ConfigError):
        zoo_client.pod(name)


def test_a_pod_handle_tells_what_it_is(zoo_client: Client) -> None:
    pod = zoo_client.pod("pod/two", namespace="shop", container="c")
    assert isinstance(pod, Pod)
    assert repr(pod) == "<kubews.Pod shop/two container='c'>"
    assert (pod.name, pod.namespace, pod.container) == ("two", "shop", "c")
    assert zoo_client.pod("two").get()["metadata"]["name"] == "two"


def test_a_closed_client_says_so(zoo) -> None:
    client = zoo.client()
    pod = client.pod("init")
    process = pod.popen(["sleep", "3"], stdout=kubews.PIPE)
    client.close()
    client.close()
    with pytest.raises(kubews.ConnectionLost):
        process.wait(seconds(5))
    with pytest.raises(kubews.KubewsError, match="is closed"):
        pod.run(["true"])
    process.close()


def test_certificates_and_contexts_are_kept_while_they_are_the_same(zoo_client: Client) -> None:
    access = zoo_client._access
    certificates = [access.identity.show(NEVER).certificate for _ in range(2)]
    first, second = map(access.tls, certificates)
    assert first is second


def test_two_generations_before_the_kubelet_ended_the_websocket() -> None:
    """On 1.30 to 1.35 a container that does not run is told after the upgrade: an ExecError."""
    with LocalCluster(version="1.33", process=True) as cluster:
        cluster.add_pod("waiting", {"main": None}, state="waiting")
        with cluster.client() as client:
            with pytest.raises(kubews.ExecError, match="container not found"):
                client.pod("waiting").run(["true"])
