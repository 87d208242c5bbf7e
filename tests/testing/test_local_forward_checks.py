"""Port-forward requests that LocalCluster refuses, in the order and words of real clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from podservers import PodServer, echo
from rawclient import RawClient
from spdyclient import FIN, LEGACY, TUNNEL, SpdyClient, target

from kubews.testing import LocalCluster

OFFERS = [[TUNNEL], [LEGACY], [TUNNEL, LEGACY]]


@pytest.fixture(params=["1.30", "1.31", "1.36"])
def any_version(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    with LocalCluster(version=request.param) as cluster:
        cluster.add_pod("box", listens={80: None})
        yield cluster


def ask(cluster: LocalCluster, path: str, offer: list[str], *headers: Any) -> Any:
    with RawClient(cluster, cert=not headers) as client:
        return client.upgrade(path, offer, headers)


def told(answer: Any) -> tuple[int, str]:
    text = answer.body.decode()
    return answer.status, json.loads(text)["message"] if text.startswith("{") else text


def minor(cluster: LocalCluster) -> int:
    return int(cluster.version.partition(".")[2])


def test_which_protocol_is_chosen(any_version: LocalCluster) -> None:
    tunnels = minor(any_version) >= 31
    for offer in ([TUNNEL, LEGACY], [LEGACY, TUNNEL]):
        answer = ask(any_version, target(80), offer)
        assert answer.headers["sec-websocket-protocol"] == (TUNNEL if tunnels else LEGACY)
    answers = [told(ask(any_version, target(*ports), [TUNNEL])) for ports in ((80,), ())]
    missing = (400, 'query parameter "port" is required')
    assert answers == ([(101, ""), (101, "")] if tunnels else [(403, ""), missing])


def test_other_tunnels(any_version: LocalCluster) -> None:
    answer = ask(any_version, target(80), ["SPDY/3.1+foo.k8s.io", LEGACY])
    if minor(any_version) < 31:
        assert answer.headers["sec-websocket-protocol"] == LEGACY
        return
    names = "client supports [foo.k8s.io], server accepts [portforward.k8s.io]"
    text = f"unable to upgrade: unable to negotiate protocol: {names}\n"
    assert told(answer) == (403, text)
    assert answer.headers["x-accepted-stream-protocol-versions"] == "portforward.k8s.io"
    both = ask(any_version, target(80), ["SPDY/3.1+foo.k8s.io", TUNNEL])
    assert both.headers["sec-websocket-protocol"] == TUNNEL
    # It has not the form of one: nobody's.
    assert told(ask(any_version, target(80), ["SPDY/3.1+foo"])) == (403, "")


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    ("ports", "text", "problem"),
    [
        (["http"], "http", "invalid syntax"),
        (["80", "70000"], "70000", "value out of range"),
        (["80,65536"], "65536", "value out of range"),
        (["99999999999999999999"], "99999999999999999999", "value out of range"),
        ([""], "", "invalid syntax"),
        (["80,"], "", "invalid syntax"),
        (["-1"], "-1", "invalid syntax"),
        (["+1"], "+1", "invalid syntax"),
        (["1_0"], "1_0", "invalid syntax"),
    ],
)
def test_ports_that_are_none(
    any_version: LocalCluster, offer: list[str], ports: list[str], text: str, problem: str
) -> None:
    message = f'cannot convert to []int32: strconv.ParseUint: parsing "{text}": {problem}'
    assert told(ask(any_version, target(*ports), offer)) == (400, message)


def test_port_zero(any_version: LocalCluster) -> None:
    for ports, text in (([0], "0"), (["80,0"], "80,0"), ([8080, 0], "8080,0")):
        answer = told(ask(any_version, target(*ports), [LEGACY]))
        assert answer == (400, f'port "{text}" must be > 0')
    if minor(any_version) >= 31:  # the tunnel asks for none
        assert ask(any_version, target(0), [TUNNEL]).status == 101


@pytest.mark.parametrize("offer", OFFERS)
def test_pods_that_cannot_be_forwarded_to(any_version: LocalCluster, offer: list[str]) -> None:
    for state in ("unscheduled", "completed"):
        any_version.add_pod(state, state=state)

    def answer(pod: str) -> tuple[int, str]:
        return told(ask(any_version, target(80, pod=pod), offer))

    assert answer("nope") == (404, 'pods "nope" not found')
    assert answer("unscheduled") == (400, "pod unscheduled does not have a host assigned")
    assert answer("completed") == (500, 'pod not found ("completed_default")')


def test_a_pod_that_waits_for_its_containers_refuses_every_port(cluster: LocalCluster) -> None:
    with PodServer(echo) as server:
        cluster.add_pod("pulling", state="waiting", listens={80: server.port})
        with RawClient(cluster) as client:
            assert client.upgrade(target(80, pod="pulling"), [LEGACY]).status == 101
            assert b"connection refused" in client.run_out().channel(1)
        with SpdyClient(cluster, pod="pulling") as tunnel:
            error, _ = tunnel.connect(80)
            tunnel.see((FIN, error))
            assert "connection refused" in tunnel.text(error)
        assert server.accepted == 0


@pytest.mark.parametrize("offer", OFFERS)
def test_who_may(any_version: LocalCluster, offer: list[str]) -> None:
    checked = minor(any_version) >= 35
    for user, verbs, status, text in (
        ("nothing", (), 403, "cannot get resource"),
        ("create", {"create"}, 403, "cannot get resource"),
        ("get", {"get"}, 403 if checked else 101, 'pods "box" is forbidden: ' if checked else ""),
        ("both", {"get", "create"}, 101, ""),
    ):
        token = any_version.add_user(user, verbs={"pods/portforward": verbs})
        bearer = ("Authorization", f"Bearer {token}")
        answer = ask(any_version, target(80), offer, bearer)
        if (answer.status, status) == (403, 403):
            assert text in told(answer)[1]
        elif offer == [TUNNEL] and minor(any_version) < 31 and status == 101:
            assert told(answer) == (403, "")
        else:
            assert answer.status == status
    token = any_version.add_user("exec", verbs={"get", "create"})
    assert ask(any_version, target(80), offer, ("Authorization", f"Bearer {token}")).status == 403


def test_checks_in_their_order(cluster: LocalCluster) -> None:
    get = ("Authorization", f"Bearer {cluster.add_user('g', verbs={'pods/portforward': ['get']})}")
    none = ("Authorization", f"Bearer {cluster.add_user('n')}")
    assert "cannot get" in told(ask(cluster, target("x", pod="nope"), [LEGACY], none))[1]
    assert "ParseUint" in told(ask(cluster, target("x", pod="nope"), [LEGACY], get))[1]
    forbidden = 'pods "nope" is forbidden: '
    assert told(ask(cluster, target(80, pod="nope"), [LEGACY], get)) == (403, forbidden)
    cluster.add_pod("done", state="completed")
    assert told(ask(cluster, target(pod="done"), [LEGACY]))[0] == 400
    assert told(ask(cluster, target(80, pod="done"), ["v5.channel.k8s.io"]))[0] == 500


@pytest.mark.parametrize("offer", ["v5.channel.k8s.io", "channel.k8s.io", "portforward.k8s.io"])
def test_protocols_that_nobody_knows(any_version: LocalCluster, offer: str) -> None:
    answer = ask(any_version, target(80), [offer])
    assert (told(answer), answer.headers) == ((403, ""), {"connection": "close"})


UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
KEY = ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
VERSION = ("Sec-WebSocket-Version", "13")


def test_no_upgrade_and_no_websocket(cluster: LocalCluster) -> None:
    with RawClient(cluster) as client:
        assert told(client.request(target(80))) == (400, "Upgrade request required")
    for method in ("GET", "POST"):
        with RawClient(cluster) as client:
            spdy = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
            status, text = told(client.request(target(80), spdy, method))
            assert status == 400
            assert text.startswith("LocalCluster speaks WebSocket only, not SPDY; ")


def test_handshakes_of_a_tunnel_that_are_wrong(cluster: LocalCluster) -> None:
    """gorilla's words, which are fewer than x/net's."""
    offer = ("Sec-WebSocket-Protocol", TUNNEL)
    for method, headers, wanted in (
        ("POST", [KEY, VERSION], (405, "Method Not Allowed\n")),
        ("GET", [KEY, ("Sec-WebSocket-Version", "12")], (400, "Bad Request\n")),
        ("GET", [("Sec-WebSocket-Key", "AAAA"), VERSION], (400, "Bad Request\n")),
    ):
        with RawClient(cluster) as client:
            answer = client.request(target(80), [*UPGRADE, offer, *headers], method)
            assert told(answer) == wanted
            assert answer.headers["sec-websocket-version"] == "13"


def test_what_listens_may_be(cluster: LocalCluster) -> None:
    for listens in ({80: 0}, {0: 80}, {80: 65536}, {"80": 80}, {80: "x"}, {None: 80}):
        with pytest.raises(ValueError, match="listens maps ports of the pod"):
            cluster.add_pod("p", listens=listens)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="listens must be a mapping"):
        cluster.add_pod("p", listens=[80])  # type: ignore[arg-type]
    cluster.add_pod("p", listens={80: 8080, 1: 65535, 2: None})
