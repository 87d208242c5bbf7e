"""Ports by number and by name, with kubectl's rules and words: tables, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from kubews import ConfigError, ports

Json = dict[str, Any]

POD: Json = {
    "metadata": {"name": "web-0"},
    "spec": {
        "containers": [
            {"name": "bare"},
            {
                "name": "app",
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "both", "containerPort": 54, "protocol": "UDP"},
                    {"name": "both-tcp", "containerPort": 54, "protocol": "TCP"},
                    {"containerPort": 9000},
                ],
            },
        ],
        "initContainers": [
            {
                "name": "init",
                "ports": [
                    {"name": "http", "containerPort": 1},
                    {"name": "setup", "containerPort": 7000},
                ],
            },
        ],
    },
}


def service(*declared: Json, cluster_ip: str = "10.0.0.1") -> Json:
    return {
        "metadata": {"name": "web"},
        "spec": {"clusterIP": cluster_ip, "ports": list(declared)},
    }


DECLARED: list[Json] = [
    {"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"},
    {"name": "same", "port": 81, "protocol": "TCP"},
    {"name": "zero", "port": 82, "targetPort": 0, "protocol": "TCP"},
    {"name": "number", "port": 443, "targetPort": 8443, "protocol": "TCP"},
    {"name": "init", "port": 83, "targetPort": "setup", "protocol": "TCP"},
    {"name": "lost", "port": 84, "targetPort": "nowhere", "protocol": "TCP"},
    {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    {"name": "mix-udp", "port": 54, "targetPort": 5454, "protocol": "UDP"},
    {"name": "mix-tcp", "port": 54, "targetPort": 5455, "protocol": "TCP"},
    {"name": "8", "port": 85, "targetPort": 8585},
]


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (80, 80),
        ("80", 80),
        ("http", "http"),
        (65535, 65535),
        ("0080", 80),
        ("-x", "-x"),
        ("٣", "٣"),
    ],
)
def test_a_number_is_a_number_in_either_form(given: Any, parsed: Any) -> None:
    assert ports.parse(given) == parsed


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (0, ConfigError, "remote port must be > 0"),
        ("0", ConfigError, "remote port must be > 0"),
        (-1, ConfigError, "remote port must be > 0"),
        (65536, ConfigError, "65535 is the highest"),
        ("70000", ConfigError, "65535 is the highest"),
        ("", ConfigError, "remote port cannot be empty"),
        (True, TypeError, "not True"),
        (8.5, TypeError, r"not 8\.5"),
        (None, TypeError, "not None"),
        (b"80", TypeError, "not b'80'"),
    ],
)
def test_what_cannot_be_a_port(given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ports.parse(given)


@pytest.mark.parametrize(
    ("port", "number"),
    [
        ("http", 8080),
        ("setup", 7000),
        ("both-tcp", 54),
        ("both", 54),
        (54, 54),
        (9000, 9000),
        (5, 5),
    ],
)
def test_the_port_of_a_pod(port: Any, number: int) -> None:
    """Regular containers before init containers; a number need not be declared."""
    assert ports.of_pod(POD, port) == number


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("nope", "Pod 'web-0' does not have a named port 'nope'"),
        ("dns", "UDP protocol is not supported for dns"),
        (53, "UDP protocol is not supported for 53"),
    ],
)
def test_a_port_that_a_pod_has_not(port: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ports.of_pod(POD, port)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("port", "number"),
    [
        (80, 8080),
        ("web", 8080),
        (81, 81),
        ("zero", 82),
        (443, 8443),
        ("init", 7000),
        (54, 5454),  # the first of that number, whatever its protocol, as for kubectl
        (85, 8585),
    ],
)
def test_the_port_of_a_service(port: Any, number: int) -> None:
    assert ports.of_service(service(*DECLARED), POD, port) == number


@pytest.mark.parametrize("port", [80, "web", 443, "lost"])
def test_a_headless_service_translates_nothing(port: Any) -> None:
    """Its port is used unchanged, whatever its targetPort is."""
    numbers = {each["name"]: each["port"] for each in DECLARED}
    headless = service(*DECLARED, cluster_ip="None")
    assert ports.of_service(headless, POD, port) == numbers.get(port, port)


@pytest.mark.parametrize(
    ("port", "says"),
    [
        (8080, "Service web does not have a service port 8080"),
        ("nope", "Service 'web' does not have a named port 'nope'"),
        ("lost", "Pod 'web-0' does not have a named port 'nowhere'"),
        (84, "Pod 'web-0' does not have a named port 'nowhere'"),
        (53, "UDP protocol is not supported for 53"),
        ("dns", "UDP protocol is not supported for dns"),
    ],
)
@pytest.mark.parametrize("cluster_ip", ["10.0.0.1", "None"])
def test_a_port_that_a_service_has_not(port: Any, says: str, cluster_ip: str) -> None:
    if cluster_ip == "None" and port in ("lost", 84):
        assert ports.of_service(service(*DECLARED, cluster_ip="None"), POD, port) == 84
        return
    with pytest.raises(ConfigError) as caught:
        ports.of_service(service(*DECLARED, cluster_ip=cluster_ip), POD, port)
    assert str(caught.value) == says


def test_a_service_without_ports() -> None:
    bare = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}
    with pytest.raises(ConfigError, match="Service web does not have a service port 80"):
        ports.of_service(bare, POD, 80)
