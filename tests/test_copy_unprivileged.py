"""Copies by users who may not do everything: read-only directories, and what may not be read (R-45)."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from podprograms import PROGRAMS, Programs, directory_of, nothing_unfinished
from support import seconds

from kubews.errors import CopyError, NoSuchFile

# For root: nobody, who can at least read what root has made here; and root who may not pass over modes.
READ = "dac_read_search"
SETPRIV = shutil.which("setpriv") or "setpriv"
NOBODY = [SETPRIV, "--reuid=65534", "--clear-groups", f"--bounding-set=-all,+{READ}"]
NOBODY += [f"--inh-caps=-all,+{READ}", f"--ambient-caps=-all,+{READ}"]
UNPRIVILEGED = [SETPRIV, "--bounding-set=-all", "--inh-caps=-all"]
if os.getuid() != 0:
    NOBODY = UNPRIVILEGED = []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory in which everything is read-only, as in Go's cache of modules."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for path in (root / "f", root / "sub" / "f"):
        path.write_bytes(os.urandom(300_000))
        path.chmod(0o444)
    (root / "sub").chmod(0o555)
    root.chmod(0o555)
    yield root
    root.chmod(0o755)
    (root / "sub").chmod(0o755)


@pytest.mark.parametrize("tar", [True, False])
def test_read_only_directories_go_to_users_that_are_not_root_r45(
    tar: bool, programs: Programs, read_only: Path
) -> None:
    pod = programs(
        [*PROGRAMS, "tar"] if tar else PROGRAMS, sh=f'exec {" ".join([*NOBODY, "/bin/sh"])} "$@"'
    )
    there = directory_of(pod) / "place"
    there.mkdir()
    there.chmod(0o777)
    pod.copy_to(read_only, "place/one")
    another = read_only.with_name("another")
    (another / "sub").mkdir(parents=True)
    (another / "sub" / "g").write_text("g")
    (another / "sub").chmod(0o555)
    assert pod.copy_to([f"{read_only}/.", f"{another}/."], "place").files == 3
    assert sorted(os.listdir(there / "sub")) == ["f", "g"]
    for path in ("one", "one/sub"):
        assert stat.S_IMODE((there / path).stat().st_mode) == 0o555
        (there / path).chmod(0o755)
    assert sorted(path.name for path in (there / "one").rglob("*")) == ["f", "f", "sub"]
    (there / "root" / "f").mkdir(parents=True)
    (there / "root").chmod(0o777)
    with pytest.raises(CopyError, match="is a directory"):  # when all has been unpacked
        pod.copy_to(read_only, "place")
    assert nothing_unfinished(there)


ALONE = """
import os, sys
import kubews
from kubews.testing import LocalCluster
source, target = sys.argv[1:]
def interrupt(done, total):
    if done > 500_000:
        raise KeyboardInterrupt
def fails(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (kubews.CopyError, KeyboardInterrupt) as exc:
        print(type(exc).__name__, exc)
with LocalCluster() as cluster, cluster.client() as client:
    cluster.add_pod("web-0")
    pod = client.pod("web-0")
    fails(pod.copy_from, source, target + "/new", progress=interrupt)
    print(os.listdir(target))
    os.chmod(target, 0o333)
    fails(pod.copy_from, source + "/f", target + "/f")
    os.chmod(target, 0o755)
    os.chmod(source + "/f", 0)
    fails(pod.copy_to, source + "/f", "f")
    fails(pod.copy_to, source, "f")
"""


@pytest.mark.parametrize(
    "shell", [["/bin/sh"], [shutil.which("bash")], [shutil.which("busybox"), "sh"]]
)
def test_what_may_not_be_searched_is_not_called_missing(
    shell: list[str], programs: Programs, tmp_path: Path
) -> None:
    """As the system here distinguishes them, and as who writes defaults where there is nothing relies on."""
    pod = programs(PROGRAMS, sh=f'exec {" ".join([*UNPRIVILEGED, *shell])} "$@"')
    hidden = directory_of(pod) / "hidden"
    (hidden / "d").mkdir(parents=True)
    (hidden / "f").write_text("f")
    (directory_of(pod) / "to file").symlink_to("hidden/f")
    (directory_of(pod) / "to directory").symlink_to(hidden / "d")
    hidden.chmod(0o600)
    try:
        for name in ("hidden/f", "hidden/d/f", "to file", "to directory/f"):
            for refused in (
                lambda: pod.open(name),  # noqa: B023
                lambda: pod.open(name, "w"),  # noqa: B023
                lambda: pod.copy_from(name, tmp_path / "f"),  # noqa: B023
                lambda: pod.copy_to(io.BytesIO(b"f"), name),  # noqa: B023
            ):
                with pytest.raises(CopyError, match="permission denied: a directory on") as caught:
                    refused()
                assert not isinstance(caught.value, FileNotFoundError)
                assert caught.value.errno == errno.EACCES
    finally:
        hidden.chmod(0o700)
    (directory_of(pod) / "to nothing").symlink_to("no/such")
    (directory_of(pod) / "to itself").symlink_to("to itself")
    for name in ("no/such", "to nothing"):
        with pytest.raises(NoSuchFile):
            pod.open(name)
    for name in ("to itself", "to itself/f"):
        with pytest.raises(CopyError, match="too many levels of symbolic links") as caught:
            pod.open(name)
        assert caught.value.errno == errno.ELOOP
    (directory_of(pod) / "secret").write_text("s")
    (directory_of(pod) / "secret").chmod(0o200)
    for refused in (
        lambda: pod.open("secret"),
        lambda: pod.copy_from("secret", tmp_path / "f"),
    ):
        with pytest.raises(CopyError, match="secret: permission denied: the file may") as caught:
            refused()
        assert caught.value.errno == errno.EACCES


def test_read_only_directories_come_to_users_that_are_not_root_r45(
    read_only: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    done = subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-c", ALONE, str(read_only), str(target)],
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    assert done.stdout.splitlines() == [
        "KeyboardInterrupt ",
        "[]",
        f"CopyError {str(target)!r} cannot be used: Permission denied",
        f"CopyError {read_only}/f cannot be read: Permission denied",
        f"CopyError {read_only}/f cannot be read: Permission denied",
    ], done.stderr


REFUSED = """
import os, sys
from kubews import UnsafeArchive
from kubews.files.archives import TarReader
from kubews.files.arrival import Arrival
from kubews.files.landing import Landing
from kubews.files.receivetree import _remove
with open(sys.argv[1], "rb") as file, Landing(sys.argv[2], called="new") as landing:
    try:
        Arrival(landing, replaced_by=("new",)).take(TarReader(file.read).entries())
    except UnsafeArchive as exc:
        print(exc)
print(os.listdir(sys.argv[2]))
_remove(os.path.join(sys.argv[2], "new"))
print(os.listdir(sys.argv[2]))
"""


@pytest.mark.parametrize("mode", [0o555, 0])
def test_read_only_directories_with_too_long_a_path_are_removed_r45(
    mode: int, tmp_path: Path
) -> None:
    """Nothing names the innermost of them: all of their names together are longer than the system takes."""
    target = tmp_path / "target"
    target.mkdir()
    with tarfile.open(tmp_path / "archive", "w") as archive:
        for depth in range(20):
            info = tarfile.TarInfo("/".join(["d" * 250] * (depth + 1)))
            info.type, info.mode = tarfile.DIRTYPE, mode
            archive.addfile(info)
        for name in ("z", "../evil"):  # the first lets the others have their modes
            archive.addfile(tarfile.TarInfo(name))
    done = subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-c", REFUSED, str(tmp_path / "archive"), str(target)],
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    subprocess.run(["rm", "-rf", str(target)], check=True)
    refused = "the name '../evil' leads out of the destination"
    assert done.stdout.splitlines() == [refused, "['new']", "[]"], done.stderr
