"""Back up a database: its dump, streamed into a file here, and the files beside it."""

from __future__ import annotations

import gzip
import os
import pathlib
import tempfile

from kubews import Pod
from kubews.testing import LocalCluster

# In place of: pg_dump --clean shop | gzip
DUMP = "set -e; echo 'BEGIN;'; seq 100000 | sed 's/.*/INSERT INTO t VALUES (&);/'; echo 'COMMIT;'"


def dump(pod: Pod, path: pathlib.Path) -> int:
    """Have the pod's dump at a path, all of it or none; return its lines."""
    unfinished = path.with_suffix(".unfinished")
    try:
        with open(unfinished, "wb") as file:
            # An exit code other than 0 raises, and so does a connection that is lost on the way.
            pod.check_call(f"{{ {DUMP}; }} | gzip", shell=True, stdout=file)
        with gzip.open(unfinished, "rt") as lines:  # reads the checksum at its end, too
            *_, (count, last) = enumerate(lines, 1)
        if last != "COMMIT;\n":  # in a pipe the exit code is gzip's
            raise RuntimeError(f"the dump ends with {last!r}")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


with (
    LocalCluster() as cluster,
    cluster.client() as client,
    tempfile.TemporaryDirectory() as scratch,
):
    cluster.add_pod("db-0")
    pod = client.pod("db-0")
    pod.run("mkdir -p data/wal && echo precious >data/table", shell=True, check=True)

    backup = pathlib.Path(scratch)
    print("lines of the dump:", dump(pod, backup / "dump.sql.gz"))

    copied = pod.copy_from("data", backup / "data")
    print(f"files: {copied.files}, verified by {copied.verified}, warnings: {copied.warnings}")

    # And back: under the same name only when all of it has arrived.
    pod.copy_to(backup / "data", "restored")
    with pod.open("restored/table") as table:
        print("restored:", table.read().strip())
