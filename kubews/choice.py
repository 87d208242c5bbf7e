"""Names such as ``deploy/web``, and the one pod of many that kubectl takes for them.

Threads: values and pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from kubews.documents import Json, at, entries, name_of
from kubews.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Kind(NamedTuple):
    """A kind of object that is a pod or selects pods; it is always version v1 that is asked for."""

    singular: str
    plural: str
    short: str
    group: str = ""

    @property
    def resource(self) -> str:
        """The resource as kubectl and RBAC's messages write it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def means(self, text: str) -> bool:
        """Tell whether kubectl takes ``text`` for this kind: ``deploy``, ``Deployment``, ``deployments.v1.apps``.

        Short names are taken as they are written, the others in any case (client-go,
        ``restmapper/shortcut.go``, apimachinery, ``api/meta/restmapper.go: ResourcesFor``).
        """
        name, _, group = text.partition(".")
        if group not in ("", self.group, f"v1.{self.group}"):
            return False
        return name == self.short or name.lower() in (self.singular, self.plural)


POD = Kind("pod", "pods", "po")
SERVICE = Kind("service", "services", "svc")
KINDS = (
    POD,
    Kind("deployment", "deployments", "deploy", "apps"),
    Kind("replicaset", "replicasets", "rs", "apps"),
    Kind("statefulset", "statefulsets", "sts", "apps"),
    Kind("daemonset", "daemonsets", "ds", "apps"),
    Kind("replicationcontroller", "replicationcontrollers", "rc"),
    Kind("job", "jobs", "job", "batch"),
    SERVICE,
)


def parse(text: str) -> tuple[Kind, str]:
    """Split ``web-0``, ``pod/web-0`` or ``deploy/web`` into kind and name.

    Raises:
        ConfigError: it can be no name, or one of a kind that has no pods to choose from.
    """
    if text.count("/") > 1:  # kubectl's text (cli-runtime, ``resource/builder.go``)
        raise ConfigError(
            f"{text!r}: arguments in resource/name form may not have more than one slash"
        )
    word, slash, name = text.rpartition("/")
    kind = next((each for each in KINDS if each.means(word)), None) if slash else POD
    if kind is None:
        known = ", ".join(each.short for each in KINDS)
        raise ConfigError(f"{text!r}: {word!r} selects no pods; what does is one of {known}")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{text!r} cannot be the name of a {kind.singular}")
    return kind, name


def selector_of(kind: Kind, owner: Json) -> str:
    """Return the label selector by which an object finds its pods, as a query wants it.

    Raises:
        ConfigError: it has none: a Service of type ExternalName, or one with endpoints of its own.
    """
    selector = at(owner, "spec", "selector")
    if not selector and kind is SERVICE:
        # The text of kubectl (``polymorphichelpers/helpers.go: SelectorsForObject``).
        name = name_of(owner)
        raise ConfigError(f"invalid service '{name}': Service is defined without a selector")
    if kind.group:
        terms = [f"{key}={value}" for key, value in (at(selector, "matchLabels") or {}).items()]
        terms += [_term(each) for each in entries(selector, "matchExpressions")]
    else:  # older kinds have a map of labels
        terms = [f"{key}={value}" for key, value in (selector or {}).items()]
    if not terms:  # no selector at all would be every pod of the namespace
        raise ConfigError(f"{kind.short}/{name_of(owner)} is defined without a selector")
    return ",".join(terms)


def _term(expression: Mapping[str, Any]) -> str:
    key, operator = expression.get("key"), expression.get("operator")
    values = ",".join(map(str, expression.get("values") or ()))
    forms = {
        "In": f"{key} in ({values})",
        "NotIn": f"{key} notin ({values})",
        "Exists": f"{key}",
        "DoesNotExist": f"!{key}",
    }
    if operator not in forms:
        raise ConfigError(f"a selector has the operator {operator!r}, which kubews does not know")
    return forms[str(operator)]


def best_first(pods: Iterable[Json]) -> list[Json]:
    """Sort pods as kubectl does before it takes the first.

    It is the order of ``util/podutils/podutils.go: ActivePods``, reversed. What is alike stays in the
    order of the list, which is that of the names.
    """
    return sorted(pods, key=_rank)


def _rank(pod: Json) -> tuple[Any, ...]:
    deleted = _time(at(pod, "metadata", "deletionTimestamp"))
    ready = next((each for each in _conditions(pod) if each.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    phases = {"Running": 0, "Unknown": 1}  # an ended pod counts as one that is pending
    return (
        not at(pod, "spec", "nodeName"),
        phases.get(at(pod, "status", "phase"), 2),
        not is_ready,
        deleted is not None,
        -(deleted or 0),  # the one that has longer to live
        _oldest_first(ready.get("lastTransitionTime")) if is_ready else (),
        *_restarts(pod),
        _oldest_first(at(pod, "metadata", "creationTimestamp")),
    )


def _conditions(pod: Json) -> list[Json]:
    return entries(pod, "status", "conditions")


def _restarts(pod: Json) -> tuple[int, int]:
    """Return the restarts of the regular container with the most, and of the sidecar."""
    sidecars = {
        each.get("name")
        for each in entries(pod, "spec", "initContainers")
        if each.get("restartPolicy") == "Always"
    }
    regular = entries(pod, "status", "containerStatuses")
    initial = entries(pod, "status", "initContainerStatuses")
    besides = [each for each in initial if each.get("name") in sidecars]
    return _most_restarts(regular), _most_restarts(besides)


def _most_restarts(statuses: list[Json]) -> int:
    return max((int(each.get("restartCount") or 0) for each in statuses), default=0)


def _oldest_first(text: Any) -> tuple[bool, float]:
    """Return a key that sorts by time; who has none comes last."""
    seconds = _time(text)
    return seconds is None, seconds or 0.0


def _time(text: Any) -> Optional[float]:
    """Return the seconds of a ``metav1.Time``, which is always in UTC and without fractions."""
    from datetime import datetime  # not for those who name a pod itself

    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except (TypeError, ValueError):
        return None
