"""The logger ``kubews``: silent by default, telling at DEBUG, and never a secret."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import kubews
from kubews.testing import Faults


def test_it_tells_connections_refusals_and_losses(local, caplog) -> None:
    token = local.add_user("talker", token="t0ken-of-talker", verbs={"get", "create"})
    caplog.set_level(logging.DEBUG, logger="kubews")
    with local.client("talker") as client:
        client.get("/version")
        client.pod("web-0").run(["sh", "-c", "exit 0", "s3cret-argument"])
        with pytest.raises(kubews.BadRequest):
            client.pod("web-0", container="nope").run(["true"])
        local.next_faults(Faults(no_status=True))
        with pytest.raises(kubews.ConnectionLost):
            client.pod("web-0").run(["true"])
    for text in (
        "GET /version: HTTP 200",
        "exec in pod default/web-0: connected, v",
        "exec in pod default/web-0: ended, Success",
        "container nope is not valid",
        "connection lost",
    ):
        assert text in caplog.text
    assert token not in caplog.text
    assert "s3cret" not in caplog.text
    # Whoever keeps the records would keep the frames of an exception, and what these hold open.
    kept = [each for record in caplog.records for each in (record.args or ())]
    assert kept
    assert not [each for each in kept if isinstance(each, BaseException)]


def test_it_is_silent_by_default(cluster) -> None:
    script = (
        "import kubews; client = kubews.Client(); client.pod('web-0').run(['true']); client.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
