"""What may be given to a LocalCluster: every check of an argument, in one place.

A mistake is told where it is made, by name and with the cure, not by what comes of it later.

Threads: values and pure functions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Optional, Union, get_args

from kubews.testing.access import ADMIN, User
from kubews.testing.interactive import Interactive

PodState = Literal["running", "waiting", "unscheduled", "completed"]
Commands = Mapping[str, Optional[Sequence[str]]]
Verbs = Union[Iterable[str], Mapping[str, Iterable[str]]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PORTS = range(1, 65536)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TIME_EXAMPLE = '"2026-01-31T12:00:00Z"'


def minor_of(version: str) -> int:
    """Return the minor version of ``"1.36"`` or ``"v1.36.2"``.

    Raises:
        TypeError: it is no str.
        ValueError: it is no version, or older than 1.27.
    """
    # As a number 1.30 would be 1.3.
    parts = _text("version", version, '"1.36"').removeprefix("v").split(".")
    if len(parts) < 2 or parts[0] != "1" or not _is_number(parts[1]) or int(parts[1]) < 27:
        raise ValueError(f'version must be "1.27" or later, not {version!r}')
    return int(parts[1])


@dataclasses.dataclass
class PodSpec:
    """What a pod is made of. It is checked and copied when it is made.

    Raises:
        TypeError: something is of another type.
        ValueError: something cannot be.

    Threads: never changed once it is made.
    """

    name: str
    namespace: str = "default"
    containers: Commands = dataclasses.field(default_factory=lambda: {"app": None})
    init_containers: Sequence[str] = ()
    ephemeral_containers: Commands = dataclasses.field(default_factory=dict)
    state: PodState = "running"
    ports: Mapping[str, int] = dataclasses.field(default_factory=dict)
    listens: Mapping[int, Optional[int]] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    interactive: Interactive = dataclasses.field(default_factory=Interactive)

    def __post_init__(self) -> None:
        _check_name("the name of a pod", self.name, 253, rf"{_LABEL}(\.{_LABEL})*", '"web-0"')
        _check_name("namespace", self.namespace, 63, _LABEL, '"default"')
        self.containers = _commands("containers", self.containers)
        self.init_containers = _texts("init_containers", self.init_containers, '["init"]')
        self.ephemeral_containers = _commands("ephemeral_containers", self.ephemeral_containers)
        self.labels = _text_map("labels", self.labels, '{"app": "web"}')
        self.annotations = _text_map("annotations", self.annotations, '{"note": "mine"}')
        self.env = _text_map("env", self.env, '{"LEVEL": "1"}')
        self.ports = _ports(self.ports)
        self.listens = _listens(self.listens)
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"env cannot have {name!r}: no '=' in a name, and no NUL")
        if self.state not in get_args(PodState):
            known = ", ".join(map(repr, get_args(PodState)))
            raise ValueError(f"state must be one of {known}, not {self.state!r}")
        if not self.containers:
            raise ValueError('a pod has at least one container: containers={"app": None}')
        names = [*self.containers, *self.init_containers, *self.ephemeral_containers]
        for name in names:
            _check_name("the name of a container", name, 63, _LABEL, '"app"')
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is the name of two containers; give each its own")


@dataclasses.dataclass(frozen=True)
class OwnerKind:
    """A kind of object that selects pods: its names, and the group whose version v1 has it."""

    kind: str
    word: str  # the short name, of a job the singular
    group: str = ""

    @property
    def singular(self) -> str:
        """As in ``deployment/web``."""
        return self.kind.lower()

    @property
    def plural(self) -> str:
        """As in a path."""
        return f"{self.singular}s"


SERVICE = OwnerKind("Service", "svc")
WORKLOADS = (
    OwnerKind("Deployment", "deploy", "apps"),
    OwnerKind("ReplicaSet", "rs", "apps"),
    OwnerKind("StatefulSet", "sts", "apps"),
    OwnerKind("DaemonSet", "ds", "apps"),
    OwnerKind("Job", "job", "batch"),
    OwnerKind("ReplicationController", "rc"),
)


@dataclasses.dataclass(frozen=True)
class ServicePort:
    """A port of a Service.

    Args:
        number: the Service's own.
        target: the pod's port, by number or by the name that a container gives it; None for the same.
        name: needed if there are several.
        protocol: ``TCP``, ``UDP`` or ``SCTP``.

    Raises:
        TypeError: something is of another type.
        ValueError: something cannot be.
    """

    number: int
    target: Union[int, str, None] = None
    name: str = ""
    protocol: str = "TCP"

    def __post_init__(self) -> None:
        for port in (self.number, self.target):
            if isinstance(port, str) and port is self.target:
                _check_name("targetPort", port, 15, _LABEL, '"http"')
            elif not (_is_port(port) or (port is None and port is self.target)):
                raise ValueError(f"a port must be a number from 1 to 65535, not {port!r}")
        if self.name:
            _check_name("the name of a port", self.name, 63, _LABEL, '"http"')
        if self.protocol not in ("TCP", "UDP", "SCTP"):
            raise ValueError(f'protocol must be "TCP", "UDP" or "SCTP", not {self.protocol!r}')


ServicePorts = Union[Mapping[int, Union[int, str]], Iterable[ServicePort]]


@dataclasses.dataclass
class ServiceSpec:
    """What a Service is made of. It is checked and copied when it is made.

    Raises:
        TypeError: something is of another type.
        ValueError: something cannot be.
    """

    name: str
    namespace: str = "default"
    selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ports: ServicePorts = ()
    headless: bool = False
    external_name: str = ""
    kind: OwnerKind = SERVICE
    declared: tuple[ServicePort, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        _check_name("the name of a Service", self.name, 63, _LABEL, '"web"')
        _check_name("namespace", self.namespace, 63, _LABEL, '"default"')
        self.selector = _text_map("selector", self.selector, '{"app": "web"}')
        _text("external_name", self.external_name, '"db.example.com"')
        self.declared = _service_ports(self.ports)
        names = [port.name for port in self.declared]
        if len(names) > 1 and ("" in names or len(set(names)) < len(names)):
            raise ValueError('of several ports each needs a name: ServicePort(80, "http", "web")')


@dataclasses.dataclass
class WorkloadSpec:
    """What a Deployment, Job and so on is made of. It is checked and copied when it is made.

    Raises:
        TypeError: something is of another type.
        ValueError: something cannot be.
    """

    target: str
    namespace: str = "default"
    selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    expressions: Iterable[Mapping[str, Any]] = ()
    kind: OwnerKind = dataclasses.field(init=False)
    name: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        word, _, self.name = _text("a workload", self.target, '"deploy/web"').partition("/")
        for kind in WORKLOADS:
            if word in (kind.word, kind.singular, kind.plural):
                self.kind = kind
                break
        else:
            known = ", ".join(each.word for each in WORKLOADS)
            raise ValueError(f'a workload is named as "deploy/web", not {self.target!r}: {known}')
        dotted = rf"{_LABEL}(\.{_LABEL})*"
        _check_name("the name of a workload", self.name, 253, dotted, '"deploy/web"')
        _check_name("namespace", self.namespace, 63, _LABEL, '"default"')
        self.selector = _text_map("selector", self.selector, '{"app": "web"}')
        self.expressions = tuple(_expression(each) for each in self.expressions)
        if self.expressions and not self.kind.group:
            raise ValueError(f"a {self.kind.kind} selects by labels alone, without expressions")
        if not (self.selector or self.expressions):
            raise ValueError('a workload selects pods by their labels: selector={"app": "web"}')


@dataclasses.dataclass(frozen=True)
class PodChange:
    """What the API shall say of a pod from now on; None for what is not changed.

    Raises:
        TypeError: something is of another type.
        ValueError: something cannot be.
    """

    phase: Optional[str] = None
    ready: Optional[bool] = None
    ready_since: Optional[str] = None
    restarts: Optional[int] = None
    created: Optional[str] = None
    deleting: Optional[str] = None

    def __post_init__(self) -> None:
        if self.phase not in (None, "Pending", "Running", "Succeeded", "Failed", "Unknown"):
            raise ValueError(f"there is no phase {self.phase!r}")
        for name in ("ready_since", "created", "deleting"):
            value = getattr(self, name)
            if value is not None and not _TIME.fullmatch(_text(name, value, _TIME_EXAMPLE)):
                raise ValueError(f"{name} must be like {_TIME_EXAMPLE}, not {value!r}")
        if self.ready not in (None, True, False):
            raise TypeError(f"ready must be a bool, not {self.ready!r}")
        if self.restarts is not None and not (
            isinstance(self.restarts, int) and self.restarts >= 0
        ):
            raise ValueError(f"restarts must be a number, not {self.restarts!r}")

    def then(self, later: PodChange) -> PodChange:
        """Return this change with a later one applied to it."""
        given = {key: value for key, value in vars(later).items() if value is not None}
        return dataclasses.replace(self, **given)


def new_user(name: str, token: str, verbs: Verbs, groups: Iterable[str]) -> User:
    """Return a user.

    Raises:
        TypeError: something is of another type.
        ValueError: the name is taken by the admin, or the token cannot stand in a header.
    """
    if not _text("the name of a user", name, '"eve"'):
        raise ValueError('the name of a user must not be empty; use one such as "eve"')
    if name == ADMIN:
        raise ValueError(f'{ADMIN!r} is the admin, who has a certificate; use another, as "eve"')
    if not isinstance(token, str):  # not shown: it may be a real one
        raise TypeError(f"token must be a str or None, not {type(token).__name__}")
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("token must consist of visible ASCII characters, without blanks")
    return User(
        name, frozenset(_texts("groups", groups, '{"system:masters"}')), _rules(verbs), token
    )


def _rules(verbs: Verbs) -> dict[str, frozenset[str]]:
    """Return rules from a mapping resource -> verbs; bare verbs are meant for ``pods/exec``."""
    mapping = verbs if isinstance(verbs, Mapping) else {"pods/exec": verbs}
    return {
        _text("a resource in verbs", resource, '"pods/exec"'): frozenset(
            _texts("verbs", granted, '{"get", "create"}')
        )
        for resource, granted in mapping.items()
    }


def _text(what: str, value: Any, example: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, such as {example}, not {value!r}")
    return value


def _texts(what: str, values: Any, example: str) -> tuple[str, ...]:
    # A str is a collection of its letters, which is never meant.
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a collection, such as {example}, not {values!r}")
    return tuple(_text(f"an element of {what}", value, example) for value in values)


def _mapping(what: str, value: Any, example: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping, such as {example}, not {value!r}")
    return value


def _text_map(what: str, value: Any, example: str) -> dict[str, str]:
    for pair in _mapping(what, value, example).items():
        for each in pair:
            _text(f"each name and value in {what}", each, example)
    return dict(value)


def _commands(what: str, value: Any) -> dict[str, Optional[tuple[str, ...]]]:
    example = '{"app": ["sleep", "1000"]}'
    commands: dict[str, Optional[tuple[str, ...]]] = {}
    for name, command in _mapping(what, value, example).items():
        label = f"the command of {name!r}"
        if command is not None and not isinstance(command, Sequence):
            raise TypeError(f"{label} must be a list or None, not {command!r}")
        commands[name] = None if command is None else _texts(label, command, '["sleep", "1000"]')
    return commands


def _ports(value: Any) -> dict[str, int]:
    for name, port in _mapping("ports", value, '{"http": 8080}').items():
        _text("the name of a port", name, '"http"')
        if not isinstance(port, int) or port not in _PORTS:
            raise ValueError(f"port {name!r} must be a number from 1 to 65535, not {port!r}")
    return dict(value)


def _listens(value: Any) -> dict[int, Optional[int]]:
    for pair in _mapping("listens", value, "{80: 34567}").items():
        for port in pair:
            if port is None and pair[0] is not None:
                continue  # nothing listens there
            if not isinstance(port, int) or port not in _PORTS:
                raise ValueError(
                    f"listens maps ports of the pod to ports of this machine, as {{80: 34567}}; "
                    f"{port!r} is not a number from 1 to 65535"
                )
    return dict(value)


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and value in _PORTS


def _service_ports(value: Any) -> tuple[ServicePort, ...]:
    if isinstance(value, Mapping):
        several = len(value) > 1
        return tuple(
            ServicePort(number, target, f"port-{number}" if several else "")
            for number, target in value.items()
        )
    ports = tuple(value)
    for port in ports:
        if not isinstance(port, ServicePort):
            raise TypeError(f'ports must be as {{80: "http"}} or [ServicePort(80)], not {value!r}')
    return ports


def _expression(value: Any) -> dict[str, Any]:
    example = '{"key": "tier", "operator": "In", "values": ["web"]}'
    fields = _mapping("an expression", value, example)
    operator = fields.get("operator")
    found = {"key": _text("the key of an expression", fields.get("key"), '"tier"')}
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise ValueError(f"the operator of an expression cannot be {operator!r}, as in {example}")
    values = list(_texts("values", fields.get("values", ()), '["web"]'))
    if bool(values) != (operator in ("In", "NotIn")):
        raise ValueError(f"In and NotIn have values, and only they: {example}")
    return {**found, "operator": operator, **({"values": values} if values else {})}


def _check_name(what: str, value: Any, longest: int, pattern: str, example: str) -> None:
    if len(_text(what, value, example)) > longest or not re.fullmatch(pattern, value):
        dots = " and '.'" if "." in pattern else ""
        raise ValueError(
            f"{what} cannot be {value!r}: use at most {longest} small letters, digits and, "
            f"inside, '-'{dots}, such as {example}"
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
