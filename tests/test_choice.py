"""The names of kubectl, selectors, and its order of pods: tables, without a server."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kubews import ConfigError, choice
from kubews.choice import KINDS, SERVICE

Json = dict[str, Any]

DEPLOYMENT = next(kind for kind in KINDS if kind.singular == "deployment")
CONTROLLER = next(kind for kind in KINDS if kind.singular == "replicationcontroller")


@pytest.mark.parametrize(
    ("text", "resource", "name"),
    [
        ("web-0", "pods", "web-0"),
        ("pod/web-0", "pods", "web-0"),
        ("po/web-0", "pods", "web-0"),
        ("pods/web-0", "pods", "web-0"),
        ("Pod/web-0", "pods", "web-0"),
        ("pods.v1./web-0", "pods", "web-0"),
        ("deploy/web", "deployments.apps", "web"),
        ("deployment/web", "deployments.apps", "web"),
        ("deployments/web", "deployments.apps", "web"),
        ("Deployment/web", "deployments.apps", "web"),
        ("deployments.apps/web", "deployments.apps", "web"),
        ("deployment.apps/web", "deployments.apps", "web"),
        ("deploy.apps/web", "deployments.apps", "web"),
        ("deployments.v1.apps/web", "deployments.apps", "web"),
        ("rs/web", "replicasets.apps", "web"),
        ("replicaset/web", "replicasets.apps", "web"),
        ("sts/db", "statefulsets.apps", "db"),
        ("statefulsets/db", "statefulsets.apps", "db"),
        ("ds/x", "daemonsets.apps", "x"),
        ("daemonset/x", "daemonsets.apps", "x"),
        ("rc/x", "replicationcontrollers", "x"),
        ("replicationcontroller/x", "replicationcontrollers", "x"),
        ("job/x", "jobs.batch", "x"),
        ("jobs.batch/x", "jobs.batch", "x"),
        ("svc/web", "services", "web"),
        ("service/web", "services", "web"),
        ("services/web", "services", "web"),
    ],
)
def test_names_are_those_of_kubectl(text: str, resource: str, name: str) -> None:
    kind, found = choice.parse(text)
    assert (kind.resource, found) == (resource, name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be the name of a pod"),
        ("/", "selects no pods"),
        ("/web", "selects no pods"),
        ("pod/", "cannot be the name of a pod"),
        ("svc/", "cannot be the name of a service"),
        ("svc/UPPER", "cannot be the name of a service"),
        ("a/b/c", "may not have more than one slash"),
        (
            "cm/web",
            "'cm' selects no pods; what does is one of po, deploy, rs, sts, ds, rc, job, svc",
        ),
        ("cronjob/web", "selects no pods"),
        ("DEPLOY/web", "selects no pods"),
        ("deployments.batch/web", "selects no pods"),
        ("deployments.v1beta1.apps/web", "selects no pods"),
        ("../x", "selects no pods"),
    ],
)
def test_what_is_no_name_says_why(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choice.parse(text)
    assert says in str(caught.value)


def owner(selector: Any) -> Json:
    return {"metadata": {"name": "web"}, "spec": {"selector": selector}}


def test_a_selector_of_labels_and_expressions_becomes_one_string() -> None:
    expressions = [
        {"key": "tier", "operator": "In", "values": ["front", "back"]},
        {"key": "track", "operator": "NotIn", "values": ["canary"]},
        {"key": "zone", "operator": "Exists"},
        {"key": "example.com/old", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": expressions}
    assert choice.selector_of(DEPLOYMENT, owner(selector)) == (
        "app=web,tier in (front,back),track notin (canary),zone,!example.com/old"
    )
    assert choice.selector_of(SERVICE, owner({"app": "web", "x": "y"})) == "app=web,x=y"
    assert choice.selector_of(CONTROLLER, owner({"app": "web"})) == "app=web"


@pytest.mark.parametrize("selector", [None, {}])
def test_without_a_selector_no_pod_is_meant_and_not_every_one(selector: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        choice.selector_of(SERVICE, owner(selector))
    # Word by word what kubectl says.
    expected = "invalid service 'web': Service is defined without a selector"
    assert str(caught.value) == expected
    for kind in (DEPLOYMENT, CONTROLLER):
        with pytest.raises(ConfigError, match="web is defined without a selector"):
            choice.selector_of(kind, owner(selector))


def test_an_operator_of_the_future_is_not_passed_over() -> None:
    selector = {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}
    with pytest.raises(ConfigError, match="'Gt'"):
        choice.selector_of(DEPLOYMENT, owner(selector))


def pod(
    name: str = "p",
    *,
    node: str = "n",
    phase: str = "Running",
    ready: str | None = "2026-01-01T00:00:00Z",
    deleted: str | None = None,
    restarts: tuple[int, int] = (0, 0),
    created: str | None = "2026-01-01T00:00:00Z",
) -> Json:
    condition: Json = {"type": "Ready", "status": "False" if ready is None else "True"}
    if ready:
        condition["lastTransitionTime"] = ready
    return {
        "metadata": {"name": name, "deletionTimestamp": deleted, "creationTimestamp": created},
        "spec": {
            "nodeName": node,
            "initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}],
        },
        "status": {
            "phase": phase,
            "conditions": [{"type": "PodScheduled", "status": "True"}, condition],
            "containerStatuses": [
                {"name": "a", "restartCount": 0},
                {"name": "b", "restartCount": restarts[0]},
            ],
            # What an init container has tried before counts for nothing.
            "initContainerStatuses": [
                {"name": "init", "restartCount": 9 - restarts[0]},
                {"name": "side", "restartCount": restarts[1]},
            ],
        },
    }


NEW, OLD = "2026-01-02T00:00:00Z", "2025-12-31T23:59:59Z"

# For each rule a better and a worse value, in the order of ActivePods, reversed.
RULES: list[tuple[Json, Json]] = [
    ({"node": "n"}, {"node": ""}),
    ({"phase": "Running"}, {"phase": "Unknown"}),
    ({"phase": "Unknown"}, {"phase": "Pending"}),
    ({"ready": NEW}, {"ready": None}),
    ({"deleted": None}, {"deleted": NEW}),
    ({"deleted": NEW}, {"deleted": OLD}),
    ({"ready": OLD}, {"ready": NEW}),
    ({"ready": NEW}, {"ready": ""}),
    ({"restarts": (1, 9)}, {"restarts": (2, 0)}),
    ({"restarts": (1, 0)}, {"restarts": (1, 1)}),
    ({"created": OLD}, {"created": NEW}),
    ({"created": NEW}, {"created": None}),
]


@pytest.mark.parametrize("number", range(len(RULES)))
def test_each_rule_of_kubectl_decides_where_those_before_do_not(number: int) -> None:
    better, worse = RULES[number]
    # Whatever speaks for the worse one by the rules that come later must not count.
    for later_better, later_worse in RULES[number + 1 :]:
        first = pod("first", **{**later_worse, **better})
        second = pod("second", **{**later_better, **worse})
        for order in itertools.permutations([first, second]):
            assert choice.best_first(order)[0] is first, (better, later_worse)
    for order in itertools.permutations([pod("first", **better), pod("second", **worse)]):
        assert choice.best_first(order)[0]["metadata"]["name"] == "first"


def test_an_ended_pod_counts_as_one_that_is_pending() -> None:
    """Go's map gives 0 for a phase that it does not have."""
    ended = pod("ended", phase="Succeeded", ready=None, created=OLD)
    pending = pod("pending", phase="Pending", ready=None)
    failed = pod("failed", phase="Failed", ready=None, created=NEW)
    assert choice.best_first([failed, pending, ended]) == [ended, pending, failed]


def test_what_is_alike_stays_in_the_order_of_the_list() -> None:
    alike = [pod(name) for name in "cab"]
    assert choice.best_first(alike) == alike
    assert choice.best_first([]) == []
    assert choice.best_first([{}, pod("p")])[0]["metadata"]["name"] == "p"
