"""Stream a directory of a pod into a local archive, and believe in it only if tar says so."""

from __future__ import annotations

import pathlib
import tarfile
import tempfile

from kubews.testing import LocalCluster

with (
    LocalCluster() as cluster,
    cluster.client() as client,
    tempfile.TemporaryDirectory() as scratch,
):
    cluster.add_pod("db-0")
    pod = client.pod("db-0")
    pod.run("mkdir data && echo precious > data/table", shell=True, check=True)

    archive = pathlib.Path(scratch) / "backup.tar"
    with open(archive, "wb") as file:
        # An exit code other than 0 raises, and so does a connection that is lost on the way.
        pod.check_call(["tar", "cf", "-", "data"], stdout=file)

    with tarfile.open(archive) as tar:
        print(tar.getnames())
