"""Which port of a pod is meant by a number or a name, with the rules and the words of kubectl.

They are those of ``kubectl port-forward`` (``cmd/portforward/portforward.go``, ``util/pod_port.go`` and
``util/service_port.go``).

Threads: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

from kubews.documents import Json, at, entries, name_of
from kubews.errors import ConfigError

Port = Union[int, str]


def parse(port: Port) -> Port:
    """Return the number of a port, or its name if it is one.

    Raises:
        TypeError: it is neither a number nor a str.
        ConfigError: no port has such a number, or a name is empty.
    """
    if isinstance(port, bool) or not isinstance(port, (int, str)):
        raise TypeError(f"a port must be a number or a name, not {port!r}")
    if isinstance(port, str):
        if not port:
            raise ConfigError("remote port cannot be empty")
        if not (port.isascii() and port.isdigit()):
            return port
        port = int(port)
    if port < 1:
        raise ConfigError("remote port must be > 0")
    if port > 65535:
        raise ConfigError(f"no port can be {port}: 65535 is the highest")
    return port


def of_pod(pod: Json, port: Port) -> int:
    """Return the number of a pod's port: it is the one that is given, or that of a container's port.

    Raises:
        ConfigError: no container has a port of that name, or it is one of UDP.
    """
    number = port if isinstance(port, int) else _named(pod, port)
    regular = entries(pod, "spec", "containers")
    declared = [each for container in regular for each in entries(container, "ports")]
    _refuse_udp(port, number, [(each.get("containerPort"), each) for each in declared])
    return number


def of_service(service: Json, pod: Json, port: Port) -> int:
    """Return the number of the pod's port that a port of a Service leads to.

    Args:
        service: its document.
        pod: the document of the pod that was chosen.
        port: number or name of the Service's port.

    Raises:
        ConfigError: the Service has no such port, it is one of UDP, or no container has the port of
            the name that it leads to.
    """
    numbers = [(each.get("port"), each) for each in entries(service, "spec", "ports")]
    number = port if isinstance(port, int) else of_service_itself(service, port)
    _refuse_udp(port, number, numbers)
    found = next((each for given, each in numbers if given == number), None)
    if found is None:
        raise ConfigError(f"Service {name_of(service)} does not have a service port {number}")
    if at(service, "spec", "clusterIP") == "None":
        return number  # headless: its clients reach the pods themselves, and nothing translates
    target = found.get("targetPort") or number
    return _named(pod, target) if isinstance(target, str) else int(target)


def of_service_itself(service: Json, name: str) -> int:
    """Return the number of the port of this name that the Service itself has.

    Raises:
        ConfigError: it has none of this name.
    """
    for declared in entries(service, "spec", "ports"):
        if declared.get("name") == name:
            return int(declared["port"])
    raise ConfigError(f"Service '{name_of(service)}' does not have a named port '{name}'")


def _named(pod: Json, name: str) -> int:
    for kind in ("containers", "initContainers"):
        for container in entries(pod, "spec", kind):
            for declared in entries(container, "ports"):
                if declared.get("name") == name:
                    return int(declared["containerPort"])
    raise ConfigError(f"Pod '{name_of(pod)}' does not have a named port '{name}'")


def _refuse_udp(port: Port, number: int, declared: Iterable[tuple[Any, Json]]) -> None:
    # Servers fill in the protocol: TCP.
    protocols = {each.get("protocol") or "TCP" for given, each in declared if given == number}
    if "UDP" in protocols and "TCP" not in protocols:
        raise ConfigError(f"UDP protocol is not supported for {port}")
