"""LocalCluster's attach where kubews and kubectl do not go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rawclient import SUCCESS, V4, V5, RawClient
from support import eventually

from kubews.testing import LocalCluster

PATH = "/api/v1/namespaces/default/pods/{}/attach?stdout=true&stderr=true"


@pytest.fixture(scope="module")
def pods() -> Iterator[LocalCluster]:
    with LocalCluster(process=True) as cluster:
        yield cluster


def test_who_does_not_read_stops_the_process_and_leaving_frees_it(pods: LocalCluster) -> None:
    script = "head -c 50000000 /dev/zero; touch done; exec sleep 1000"
    pod = pods.add_pod(
        "loud", {"app": ["sh", "-c", f"until [ -e go ]; do sleep 0.02; done; {script}"]}
    )
    folder = pod.directory / "app"
    with RawClient(pods) as client:
        assert client.upgrade(PATH.format("loud"), [V5]).status == 101
        while not client.frames:
            client.pump(0.1)
        (folder / "go").touch()
        while len(client.frames) < 2:
            client.pump(0.1)
        assert not (folder / "done").exists()
    assert eventually((folder / "done").exists, 20)


def test_v4_without_input_ends_where_the_container_has_one(pods: LocalCluster) -> None:
    pods.add_pod("asking", {"app": ["cat"]}, stdin=True)
    with RawClient(pods) as client:
        assert client.upgrade(PATH.format("asking"), [V4]).status == 101
        client.run_out()
        assert [bytes(each.data) for each in client.frames[:2]] == [b"\1", b"\3" + SUCCESS]


def test_arguments(pods: LocalCluster) -> None:
    with pytest.raises(ValueError, match="stdin_once goes with stdin"):
        pods.add_pod("wrong", stdin_once=True)
    with pytest.raises(TypeError, match="tty must be a bool, not 1"):
        pods.add_pod("wrong", tty=1)  # type: ignore[arg-type]
