"""Files and directories to and from pods: exact, whole or not at all (R-8, R-44 to R-47)."""

from __future__ import annotations

import errno
import functools
import gzip
import hashlib
import io
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import PRELUDE
from clusters import AnyCluster, added
from podprograms import PROGRAMS, Programs, directory_of, links_to, nothing_unfinished
from support import eventually, in_thread, seconds, time_limit

import kubews
from kubews import Client, Pod
from kubews.errors import (
    CopyError,
    HalfCloseUnsupported,
    NoSuchFile,
    TruncatedTransfer,
    UnsafeArchive,
)
from kubews.testing import Faults, LocalCluster

MTIME = 1_700_000_000
NAMES = [
    b"plain",
    b"with space",
    b" leading",
    b"trailing ",
    b"new\nline",
    b"\n",
    b"tab\t",
    b"-rf",
    b"--help",
    b"*",
    b"?[a]",
    b".hidden",
    b"..two dots",
    b"...",
    b"back\\slash",
    b"\\0101",
    b"%b%s",
    b"quote'\"`$(x)",
    b"colon:name",
    b"\xff\xfe not text",
    "größe €".encode(),
    b"n" * 255,
    b"\x01\x7f",
    b"@LongLink",
]


@pytest.fixture(scope="module")
def without_tar(cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pod with a shell and no tar."""
    programs = links_to(tmp_path_factory.mktemp("programs") / "bin", PROGRAMS)
    if not isinstance(cluster, LocalCluster):
        pytest.skip("no image of ours has a shell and no tar")
    with added(cluster, "without-tar", "", None, programs) as name:
        yield name


@pytest.fixture(params=["web-0", "busybox", "without-tar"])
def each(request: pytest.FixtureRequest, client: Client, nothing_left_behind: None) -> Pod:
    """A pod with GNU tar, with busybox alone, and with a shell but no tar."""
    fixture = {"busybox": "busybox", "without-tar": "without_tar"}.get(request.param)
    return client.pod(request.getfixturevalue(fixture) if fixture else request.param)


def about(path: str) -> tuple[Any, ...]:
    """Return all that a copy must keep of a file, a directory or a link."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return "link", os.readlink(path)
    if stat.S_ISDIR(info.st_mode):
        return "directory", oct(info.st_mode), info.st_mtime
    with open(path, "rb") as file:
        return "file", oct(info.st_mode), info.st_mtime, hashlib.sha256(file.read()).hexdigest()


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return what is in a directory, and itself as ``.``."""
    paths = [os.path.join(base, name) for base, ds, fs in os.walk(root) for name in [".", *ds, *fs]]
    return {os.path.relpath(path, root): about(path) for path in paths}


def age(root: Path, mtime: int = MTIME) -> None:
    """Give everything a time of long ago."""
    for base, _, files in os.walk(root, topdown=False):
        for name in [*files, "."]:
            path = os.path.join(base, name)
            os.utime(path, (mtime, mtime), follow_symlinks=False)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory of everything that is odd about files."""
    root = tmp_path / "odd"
    for number, name in enumerate(NAMES):
        directory = os.fsencode(root) + b"/" + name
        os.makedirs(directory)
        with open(directory + b"/" + name, "wb") as file:
            file.write(name * number)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "empty directory").mkdir()
    # One with dots in it busybox makes at the very end, when the directory has its time already.
    (root / "deep" / "link").symlink_to("mode")
    (root / "deep" / "mode").write_bytes(bytes(range(256)) * 300)
    (root / "deep" / "mode").chmod(0o751)
    (root / "deep" / "secret").write_text("s")
    (root / "deep" / "secret").chmod(0o600)
    with open(root / "deep" / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"x")
        file.truncate(3 << 20)
    (root / "deep" / "er").chmod(0o555)
    age(root)
    return root


def test_odd_names_and_modes_go_there_and_back_r44_r45(
    each: Pod, place: str, odd: Path, tmp_path: Path
) -> None:
    sent = each.copy_to(odd, place)
    assert (sent.path, sent.files, sent.warnings) == (f"./{place}", len(NAMES) + 3, ())
    back = each.copy_from(place, tmp_path / "back", symlinks=True)
    assert (back.files, back.size) == (sent.files, sent.size)
    assert tree(tmp_path / "back") == tree(odd)
    sparse = (tmp_path / "back" / "deep" / "sparse").stat()
    assert sparse.st_blocks * 512 < sparse.st_size / 4


@pytest.mark.parametrize("name", [b"a b\n'\"$x", b"\xff\xfe", b"-n", b"n" * 255], ids=repr)
def test_a_single_file_of_any_name_r44(each: Pod, place: str, name: bytes, tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    source.write_bytes(os.urandom(100_000))
    source.chmod(0o640)
    os.utime(source, (MTIME, MTIME))
    each.run(["mkdir", place], check=True)
    sent = each.copy_to(source, place)
    assert (sent.path, sent.files, sent.size) == (f"./{place}/{os.fsdecode(name)}", 1, 100_000)
    assert sent.verified in ("cksum", "sha256")
    (tmp_path / "back").mkdir()
    back = each.copy_from(sent.path, tmp_path / "back")
    assert back.path == str(tmp_path / "back" / source.name)
    assert back.verified in ("cksum", "sha256")
    assert about(back.path) == about(str(source))


def small_files(root: Path, count: int) -> Path:
    for number in range(count):
        directory = root / f"d{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / str(number)).write_bytes(os.urandom(number % 3000))
    age(root)
    return root


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_a_tree_of_small_files_r44_r46(each: Pod, place: str, count: int, tmp_path: Path) -> None:
    source = small_files(tmp_path / "source", count)
    with time_limit(120):
        assert each.copy_to(source, place).files == count
        assert each.copy_from(place, tmp_path / "back").files == count
    assert tree(tmp_path / "back") == tree(source)


@pytest.mark.parametrize("size", [64 << 20, pytest.param(2 << 30, marks=pytest.mark.long)])
def test_a_large_file_in_constant_memory_r47(
    pod: Pod, place: str, size: int, tmp_path: Path
) -> None:
    import resource

    piece = os.urandom(1 << 20)
    with open(tmp_path / "large", "wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + piece[8:])

    def most() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

    before = most()
    try:
        sent = pod.copy_to(tmp_path / "large", place)
        assert (sent.size, sent.verified) == (size, "cksum")
        back = pod.copy_from(place, tmp_path / "back")
        assert (back.size, back.verified) == (size, "cksum")
        assert most() - before < 40  # MiB
    finally:
        pod.run(["rm", "-f", place])
    with open(tmp_path / "large", "rb") as one, open(tmp_path / "back", "rb") as other:
        while data := one.read(1 << 20):
            assert data == other.read(1 << 20)
        assert not other.read(1)


def test_holes_stay_holes_wherever_the_pieces_of_the_stream_end_r44(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    source, target = directory_of(pod) / place, tmp_path / "target"
    with open(source, "wb") as file:
        for _ in range(40):
            file.write(os.urandom(32 << 10))
            file.seek(96 << 10, os.SEEK_CUR)
        file.write(b"x" + bytes(100_000))
    pod.copy_from(place, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks


# -- cuts


def cuts(total: int, count: int = 10) -> list[int]:
    """Return places to cut at: the first and the last bytes, and any between them."""
    return [0, 1, total - 1, *(random.randrange(total) for _ in range(count - 3))]


def _note(seen: list[tuple[int, int | None]], done: int, total: int | None) -> None:
    seen.append((done, total))


def test_a_file_that_was_cut_on_its_way_here_is_gone_on_with_r47(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    data = os.urandom(300_000)
    (directory_of(pod) / place).write_bytes(data)
    for size in cuts(len(data)):
        target = tmp_path / "target"
        target.write_text("as before")
        fault = Faults(match="kubews-checksum", drop_after=size + 3)
        local.next_faults(fault)
        with pytest.raises(TruncatedTransfer, match=f"copying ./{place} was cut after") as caught:
            pod.copy_from(place, target, retries=0)
        assert caught.value.received <= size
        assert isinstance(caught.value.__cause__, kubews.ConnectionLost)
        assert target.read_text() == "as before"
        assert nothing_unfinished(tmp_path)
        local.next_faults(fault)
        done: list[tuple[int, int | None]] = []
        copied = pod.copy_from(place, target, progress=functools.partial(_note, done))
        assert copied.verified == "cksum"
        assert target.read_bytes() == data
        assert done == sorted(done)  # never from the beginning
    assert nothing_unfinished(tmp_path)


def test_a_file_that_was_cut_on_its_way_there_is_gone_on_with_r47(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    data = os.urandom(900_000)
    (tmp_path / "source").write_bytes(data)
    there = directory_of(pod)
    for size in cuts(len(data)):
        (there / place).write_text("as before")
        fault = Faults(match="umask%20077", drop_after_stdin=size)
        local.next_faults(fault)
        with pytest.raises(TruncatedTransfer, match=f"copying ./{place} was cut after"):
            pod.copy_to(tmp_path / "source", place, retries=0)
        assert (there / place).read_text() == "as before"
        assert nothing_unfinished(there)
        local.next_faults(fault)
        copied = pod.copy_to(tmp_path / "source", place)
        assert (copied.size, copied.verified) == (len(data), "cksum")
        assert (there / place).read_bytes() == data
        assert nothing_unfinished(there)
    again = [each for each in local.requests if "conv%3Dnotrunc" in each.target]
    assert any("seek" in each.target for each in again)


@pytest.mark.parametrize("where", ["web-0", "without-tar"])
def test_a_tree_that_was_cut_is_noticed_and_copied_again_r8_r46(
    where: str, local: LocalCluster, client: Client, without_tar: str, place: str, tmp_path: Path
) -> None:
    pod = client.pod(where)
    source = small_files(tmp_path / "source", 14)
    there, target = directory_of(pod), tmp_path / "target"
    expected = tree(source)

    def settled() -> bool:
        return not [command for command in local.execs if command.pod == where]

    for size in cuts(sum(path.stat().st_size for path in source.rglob("*/*")), 4)[1:]:
        fault = Faults(match="trap", drop_after_stdin=size)
        local.next_faults(fault)
        with pytest.raises(TruncatedTransfer, match="was cut"):
            pod.copy_to(source, place, retries=0)
        # All of it, if all had arrived before, or nothing.
        assert eventually(settled)
        if (there / place).exists():
            assert tree(there / place) == expected
            shutil.rmtree(there / place)
        local.next_faults(fault)
        pod.copy_to(source, place)
        assert eventually(settled)
        assert tree(there / place) == expected
        fault = Faults(match="exec%20tar" if where == "web-0" else "walk", drop_after=size + 3)
        local.next_faults(fault)
        with pytest.raises(TruncatedTransfer, match="was cut"):
            pod.copy_from(place, target, retries=0)
        assert not target.exists()
        assert nothing_unfinished(tmp_path)
        local.next_faults(fault)
        pod.copy_from(place, target)
        assert tree(target) == expected
        shutil.rmtree(target)
        shutil.rmtree(there / place)
    assert nothing_unfinished(there, tmp_path)


@pytest.mark.parametrize("where", ["web-0", "without-tar"])
def test_ctrl_c_leaves_nothing_unfinished_r47(
    where: str, local: LocalCluster, client: Client, without_tar: str, place: str, tmp_path: Path
) -> None:
    pod = client.pod(where)
    there = directory_of(pod)
    source = small_files(tmp_path / "source", 30)
    (source / "large").write_bytes(bytes(3 << 20))
    pod.copy_to(source, place)

    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    for call in (
        lambda: pod.copy_to(source, f"{place}-tree", progress=interrupt),
        lambda: pod.copy_to(source / "large", f"{place}-file", progress=interrupt),
        lambda: pod.copy_from(place, tmp_path / "tree", progress=interrupt),
        lambda: pod.copy_from(f"{place}/large", tmp_path / "file", progress=interrupt),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "programs") == ["source"]
    assert eventually(lambda: nothing_unfinished(there), 10)
    assert not (there / f"{place}-tree").exists()
    assert not (there / f"{place}-file").exists()


# -- what the remote tools say and do


def test_what_tar_says_is_a_warning_and_its_exit_code_decides_r46(
    programs: Programs, tmp_path: Path
) -> None:
    script = 'echo "tar: something odd" >&2\n/bin/tar "$@"\nread -r code <code; exit "$code"'
    pod = programs(PROGRAMS, tar=script)
    there = directory_of(pod)
    (there / "code").write_text("0\n")
    (there / "d").mkdir()
    (there / "d" / "f").write_text("x")
    copied = pod.copy_from("d", tmp_path / "one")
    assert copied.warnings == ("tar: something odd",)
    assert pod.copy_to(tmp_path / "one", "e").warnings == ("tar: something odd",)
    (there / "code").write_text("2\n")
    with pytest.raises(CopyError, match="exit code 2: tar: something odd") as caught:
        pod.copy_from("d", tmp_path / "two")
    assert caught.value.warnings == ("tar: something odd",)
    with pytest.raises(CopyError, match="exit code 2: tar: something odd"):
        pod.copy_to(tmp_path / "one", "f")
    assert not (there / "f").exists()
    assert nothing_unfinished(there, tmp_path)


@pytest.mark.parametrize(
    ("says", "whole"),
    [
        ("tar: ./log: file changed as we read it", True),
        ("tar: ./log: File removed before we read it", True),
        ("tar: ./log: File shrank by 10 bytes; padding with zeros", False),
        ("tar: ./log: Cannot open: Permission denied", False),
        ("", False),
    ],
)
def test_a_log_that_is_written_to_is_no_failure_r46(
    says: str, whole: bool, programs: Programs, tmp_path: Path
) -> None:
    pod = programs(
        PROGRAMS, tar=f'/bin/tar "$@"\ncase $1 in -*) exit;; esac\nprintf %s "{says}" >&2\nexit 1'
    )
    there = directory_of(pod)
    (there / "d").mkdir()
    (there / "d" / "log").write_text("x")
    if whole:
        assert pod.copy_from("d", tmp_path / "d").warnings == (says,)
    else:
        with pytest.raises(CopyError, match="exit code 1"):
            pod.copy_from("d", tmp_path / "d")
    assert (tmp_path / "d").exists() is whole


@pytest.mark.parametrize(
    ("tar", "error"),
    [
        ("/bin/tar cf - -C d . | head -c 1024", "'./f' ended after 0 of 1 bytes"),
        ("exit 0", "was cut after 0 bytes"),
        ("head -c 100000 /dev/urandom", "is no archive"),
        ("cd d; mkfifo p; ln f g; /bin/tar cf - -P ./f ../code", "leads out"),
    ],
)
def test_what_a_tar_sends_that_lies_is_not_believed_r8_r45(
    tar: str, error: str, programs: Programs, tmp_path: Path
) -> None:
    pod = programs([*PROGRAMS, "mkfifo"], tar=f"case $1 in --version) exit;; esac\n{tar}")
    there = directory_of(pod)
    (there / "code").write_text("0")
    (there / "d").mkdir()
    (there / "d" / "f").write_text("x")
    with pytest.raises(CopyError, match=error):
        pod.copy_from("d", tmp_path / "one", retries=0)
    assert not (tmp_path / "code").exists()


def test_a_file_whose_end_is_lost_without_an_error_is_gone_on_with_r8(
    programs: Programs, tmp_path: Path
) -> None:
    """The end of what a process has written may be missing though its exit code is 0."""
    pod = programs(PROGRAMS, cat="head -c 1000")
    data = os.urandom(5000)
    (directory_of(pod) / "f").write_bytes(data)
    with pytest.raises(TruncatedTransfer) as caught:
        pod.copy_from("f", tmp_path / "f", retries=0)
    assert (caught.value.received, caught.value.expected) == (1000, 5000)
    assert list(tmp_path.glob("*f")) == []
    assert pod.copy_from("f", tmp_path / "f").verified == "cksum"
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.half_close  # others read their input with head
def test_a_file_that_arrives_as_another_is_refused_r46(programs: Programs, tmp_path: Path) -> None:
    pod = programs([*PROGRAMS, "tr"], cat="tr a b")
    there = directory_of(pod)
    (there / "f").write_bytes(b"a" * 5000)
    for checksum, name in ((None, "cksum"), (True, "sha256")):
        with pytest.raises(CopyError, match=f"another {name} there than here"):
            pod.copy_from("f", tmp_path / "f", checksum=checksum)
        (tmp_path / "g").write_bytes(b"a" * 5000)
        with pytest.raises(CopyError, match=f"another {name} there than here"):
            pod.copy_to(tmp_path / "g", "g", checksum=checksum)
        assert not (tmp_path / "f").exists()
        assert not (there / "g").exists()
        assert nothing_unfinished(there, tmp_path)
    assert pod.copy_from("f", tmp_path / "f", checksum=False).verified == "size"


@pytest.mark.half_close  # others read their input with head
def test_a_full_disk_leaves_nothing_r46(programs: Programs, tmp_path: Path) -> None:
    pod = programs(PROGRAMS, cat='head -c 1000; echo "cat: No space left on device" >&2; exit 1')
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    with pytest.raises(CopyError, match="exit code 1: cat: No space left"):
        pod.copy_to(tmp_path / "f", "f")
    assert list(directory_of(pod).iterdir()) == []


@pytest.mark.parametrize(
    "sh", ["echo nonsense", "exit 3", "echo file; echo yes; echo x y z; echo; echo"]
)
def test_a_shell_that_lies_is_not_believed_r45(sh: str, programs: Programs, tmp_path: Path) -> None:
    pod = programs(["cat"], sh=sh)
    told = "its sh does not do what it is told"
    died = "looking at ./f failed with exit code 3"
    with pytest.raises(CopyError, match=died if sh == "exit 3" else told):
        pod.copy_from("f", tmp_path / "f")
    with pytest.raises(CopyError, match=told):
        pod.open("f")


# -- images with less


def test_without_a_shell_tar_or_cat_will_do_and_neither_is_named_r44(
    local: LocalCluster, client: Client, tmp_path: Path, nothing_left_behind: None
) -> None:
    (tmp_path / "none").mkdir()
    for name, programs in (("tar", ["tar"]), ("cat", ["cat"]), ("none", [])):
        links_to(tmp_path / name, programs)
        (tmp_path / "f").write_text("x")
        with added(local, f"only-{name}", "", None, tmp_path / name) as made:
            pod = client.pod(made)
            work = tmp_path / f"work-{name}"
            (work / "d").mkdir(parents=True)
            (work / "d" / "f").write_bytes(b"contents")
            if name == "none":
                for source in (f"{work}/d", f"{work}/d/f"):
                    with pytest.raises(CopyError, match="needs sh or tar or cat in the image"):
                        pod.copy_from(source, work / "copy")
            else:
                assert pod.copy_from(f"{work}/d/f", work / "copy").files == 1
                assert (work / "copy").read_bytes() == b"contents"
            if name == "tar":
                assert pod.copy_from(f"{work}/d", work / "tree").files == 1
                assert (work / "tree" / "f").read_bytes() == b"contents"
            with pytest.raises(CopyError, match="copying to it needs sh in the image"):
                pod.copy_to(tmp_path / "f", f"{work}/g")
            assert nothing_unfinished(work)


def test_programs_that_are_missing_are_named_r44(programs: Programs, tmp_path: Path) -> None:
    pod = programs(["sh", "cat", "mv", "rm"])
    (directory_of(pod) / "f").write_text("x" * 100)
    (tmp_path / "d").mkdir()
    with pytest.raises(CopyError, match="copying a directory to it needs tar in the image"):
        pod.copy_to(tmp_path / "d", "d")
    for call in (lambda: pod.copy_from("f", tmp_path / "f", checksum=True),
                 lambda: pod.copy_to(tmp_path / "f", "g", checksum=True)):  # fmt: skip
        (tmp_path / "f").write_text("f")
        with pytest.raises(CopyError, match="checksum=True needs sha256sum"):
            call()
    assert pod.copy_from("f", tmp_path / "f").size == 100


# -- where to


def test_an_existing_directory_is_copied_into_r44(each: Pod, place: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("1")
    each.run(["mkdir", place], check=True)
    assert each.copy_to(source, place).path == f"./{place}/source"
    assert each.copy_to(source, f"{place}/").path == f"./{place}/source"
    (source / "f").write_text("22")
    (source / "g").write_text("3")
    assert each.copy_to(source, place).files == 2
    each.run(["mv", f"{place}/source/g", f"{place}/source/other"], check=True)
    each.copy_to(source, place)  # what else is there stays
    assert each.copy_from(f"{place}/source", tmp_path).path == str(source)
    assert {path.name: path.read_text() for path in source.iterdir()} == {
        "f": "22",
        "g": "3",
        "other": "3",
    }
    assert each.copy_from(f"{place}/source/f", tmp_path / "renamed").path == str(
        tmp_path / "renamed"
    )
    assert (tmp_path / "renamed").read_text() == "22"


def test_globs_and_several_sources_r44(each: Pod, place: str, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.bin", "[x].txt"):
        (tmp_path / name).write_text(name)
    each.run(["mkdir", place], check=True)
    assert each.copy_to(tmp_path / "*.txt", place).files == 3
    assert each.copy_to([tmp_path / "c.bin", tmp_path / "[x].txt"], place).files == 2
    assert each.copy_from(place, tmp_path / "back").files == 4
    assert (tmp_path / "back" / "[x].txt").read_text() == "[x].txt"
    with pytest.raises(NoSuchFile, match=r"no\*such doesn't exist in local filesystem"):
        each.copy_to(tmp_path / "no*such", place)
    with pytest.raises(CopyError, match="is no directory, and 3 are to be copied into it"):
        each.copy_to(tmp_path / "*.txt", f"{place}/missing")


def test_a_slash_at_the_end_is_of_a_directory_r44(
    each: Pod, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file does not take the name of the directory that it was to go into."""
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("f")
    each.run(["mkdir", place], check=True)
    for source in ("f", io.BytesIO(b"f")):
        with pytest.raises(NoSuchFile, match=f"{place}/no/: no such directory"):
            each.copy_to(source, f"{place}/no/")
    assert each.copy_to("f", f"{place}/").path == f"./{place}/f"
    with pytest.raises(NoSuchFile, match="no/: there is no such directory here") as caught:
        each.copy_from(f"{place}/f", "no/")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "no/")
    with pytest.raises(ValueError, match="the path here is empty"):
        each.copy_from(f"{place}/f", "")
    assert each.copy_from(f"{place}/", "tree/").files == 1  # a tree makes it
    assert each.copy_to("tree/", f"{place}/tree/").files == 1
    each.run(["rm", "-r", place], check=True)
    each.run(["mkdir", place], check=True)
    os.symlink("/etc/hosts", "tree/link")
    os.mkfifo("tree/fifo")
    copied = each.copy_to("tree/.", f"{place}/")
    assert (copied.path, copied.files) == (f"./{place}", 1)
    assert "fifo: left out" in copied.warnings[0]
    assert each.check_output(["ls", place]) == b"f\nlink\n"
    assert each.check_output(["readlink", f"{place}/link"]) == b"/etc/hosts\n"
    with pytest.raises(NoSuchFile, match=f"{place}/f/: no such directory"):
        each.copy_from(f"{place}/f/", "g")
    with pytest.raises(CopyError, match="several of what is to be copied would be 'f' in the pod"):
        each.copy_to(["tree/.", "f"], place)
    assert sorted(os.listdir()) == ["f", "tree"]


def test_contents_of_several_directories_are_merged_r44(
    each: Pod, place: str, tmp_path: Path
) -> None:
    """As ``cp -r`` does; which of two files would stay is not guessed."""
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / f"of {name}").write_text(name)
    each.run(["mkdir", place], check=True)
    assert each.copy_to(f"{tmp_path}/[ab]/.", place).files == 2
    assert each.check_output(["ls", f"{place}/sub"]) == b"of a\nof b\n"
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name / "sub" / "fifo")
    copied = each.copy_to([f"{tmp_path}/a/.", f"{tmp_path}/b/."], place)
    assert (copied.files, len(copied.warnings)) == (2, 2)
    (tmp_path / "a" / "sub" / "of b").write_text("another")
    for sources in (["a/.", "b/."], ["a/sub", "b/."]):
        with pytest.raises(CopyError, match="several of what is to be copied would be 'sub"):
            each.copy_to([f"{tmp_path}/{source}" for source in sources], place)
    assert each.check_output(["cat", f"{place}/sub/of b"]) == b"b"


@pytest.mark.parametrize("buffering", [0, 10_000])
def test_a_pipe_that_does_not_block_gets_all_r44(
    pod: Pod, place: str, tmp_path: Path, buffering: int
) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "data").write_bytes(data)
    pod.copy_to(tmp_path / "data", place)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def read() -> bytes:
        time.sleep(0.2)  # it is full by then
        with open(reading, "rb") as file:
            return file.read()

    got = in_thread(read)
    with open(writing, "wb", buffering) as file:
        assert pod.copy_from(place, file).size == len(data)
        os.set_blocking(writing, True)  # or closing could not flush it
    assert got.result(20) == data


def test_a_socket_that_does_not_block_gets_all_r44(pod: Pod, place: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data := os.urandom(2_000_000))
    pod.copy_to(tmp_path / "data", place)
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)

        def read() -> bytes:
            time.sleep(0.2)  # it is full by then
            with there.makefile("rb") as file:
                return file.read()

        got = in_thread(read)
        with here.makefile("wb", buffering=0) as file:
            assert pod.copy_from(place, file).size == len(data)
        here.close()
        assert got.result(20) == data


def test_a_file_of_a_user_that_says_nothing_must_block_r44(pod: Pod, place: str) -> None:
    """Whether it has taken all or nothing cannot be known."""
    pod.run(["sh", "-c", f"seq 1000 >{place}"], check=True)

    class File(io.RawIOBase):
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def writable(self) -> bool:
            return True

        def fileno(self) -> int:
            return self.sock.fileno()

        def write(self, data: Any) -> None:
            self.sock.sendall(data)

    here, there = socket.socketpair()
    with here, there, File(here) as file:
        assert pod.copy_from(place, file).size == 3893
        assert len(there.recv(10_000, socket.MSG_WAITALL | socket.MSG_DONTWAIT)) == 3893
        here.settimeout(seconds(5))
        with pytest.raises(OSError, match=r"File.write\(\) returned None"):
            pod.copy_from(place, file)


def test_a_file_that_cannot_say_how_much_it_took_is_an_error_r44(
    pod: Pod, place: str, tmp_path: Path
) -> None:
    """The bytes that a ``GzipFile`` could not write are not those it was given."""
    (tmp_path / "data").write_bytes(os.urandom(2_000_000))
    pod.copy_to(tmp_path / "data", place)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    pipe = os.fdopen(writing, "wb", 1000)
    packing = gzip.GzipFile(fileobj=pipe, mode="wb")
    try:
        with pytest.raises(BlockingIOError):
            pod.copy_from(place, packing)
    finally:
        os.close(reading)
        for file in (packing, pipe):
            with pytest.raises(BrokenPipeError):
                file.close()


def test_standard_output_is_written_on_where_it_is_r44(
    cluster: AnyCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    """``/dev/stdout`` is no file to be replaced, also if it leads to one."""
    program = f"""
print("head", flush=True)
pod.copy_from({place!r}, "/dev/stdout")
print("foot", flush=True)
"""
    pod.run(["sh", "-c", f"echo data >{place}"], check=True)
    with open(tmp_path / "out", "w+b") as out:
        command = [sys.executable, "-c", PRELUDE + program, str(cluster.kubeconfig)]
        subprocess.run(command, check=True, stdout=out, timeout=seconds(60))
        out.seek(0)
        assert out.read() == b"head\ndata\nfoot\n"


def test_what_is_in_the_way_is_said_r44(each: Pod, place: str, tmp_path: Path) -> None:
    (tmp_path / "d" / "x").mkdir(parents=True)
    (tmp_path / "f").write_text("f")
    each.copy_to(tmp_path / "f", place)
    with pytest.raises(CopyError, match="is no directory"):
        each.copy_to(tmp_path / "d", place)
    with pytest.raises(NoSuchFile, match=f"{place}/no: no such file or directory"):
        each.copy_to(tmp_path / "f", f"{place}/no/such")
    with pytest.raises(NoSuchFile, match="no such file or directory") as caught:
        each.copy_from("no such", tmp_path / "g")
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(CopyError, match="no such directory here"):
        each.copy_from(place, tmp_path / "no" / "such")
    with pytest.raises(CopyError, match="neither a file nor a directory"):
        each.copy_from("/dev/null", tmp_path / "g")
    with pytest.raises(CopyError, match="in/d/d' cannot be written here: Is a directory"):
        (tmp_path / "in" / "d" / "d").mkdir(parents=True)
        each.run(["mkdir", f"{place}-d"], check=True)
        each.copy_to(tmp_path / "f", f"{place}-d/d")
        each.copy_from(f"{place}-d/d", tmp_path / "in" / "d")
    each.run(["mkdir", "-p", f"{place}-m/f"], check=True)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "f").write_text("f")
    with pytest.raises(CopyError, match="is a directory"):
        each.copy_to([tmp_path / "m" / "f", tmp_path / "d"], f"{place}-m")
    with pytest.raises(ValueError, match="empty"):
        each.copy_from("", tmp_path)
    with pytest.raises(ValueError, match="null byte"):
        each.copy_from("a\0b", tmp_path)


# -- links, owners, modes


def test_links_are_made_only_when_asked_for_and_only_within_r45(
    each: Pod, place: str, tmp_path: Path
) -> None:
    script = f"mkdir {place}; cd {place}; echo x >f; ln -s f inside; ln -s /etc/passwd outside; ln -s ../.. up"
    each.run(script, shell=True, check=True)
    plain = each.copy_from(place, tmp_path / "plain")
    assert os.listdir(tmp_path / "plain") == ["f"]
    assert len(plain.warnings) == 3
    linked = each.copy_from(place, tmp_path / "linked", symlinks=True)
    assert sorted(os.listdir(tmp_path / "linked")) == ["f", "inside"]
    assert os.readlink(tmp_path / "linked" / "inside") == "f"
    assert ["out of the copy" in line for line in linked.warnings] == [True, True]
    # Those that are named are followed.
    assert each.copy_from(f"{place}/inside", tmp_path / "followed").files == 1
    (tmp_path / "way").symlink_to("plain")
    assert each.copy_to(tmp_path / "way", f"{place}/way").files == 1
    assert each.copy_from(place, tmp_path / "way").path == str(tmp_path / "plain" / place)


def test_owners_and_setuid_are_left_alone_r45(each: Pod, place: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("f")
    if os.getuid() == 0:
        os.chown(source / "f", 12345, 12345)
    (source / "f").chmod(0o6755)
    each.copy_to(source, place)
    told = each.check_output(["stat", "-c", "%a %u", f"{place}/f"], text=True)
    assert told.split()[0] == "755"
    assert "12345" not in told
    each.run(["chmod", "4711", f"{place}/f"], check=True)
    each.copy_from(place, tmp_path / "back")
    info = (tmp_path / "back" / "f").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o711, os.getuid())


def test_modes_and_times_can_be_left_to_the_place_r45(
    each: Pod, place: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("f")
    (source / "f").chmod(0o604)
    age(source)
    each.copy_to(source, place, preserve=False)
    each.copy_to(source / "f", f"{place}/g", preserve=False)
    for name in ("f", "g"):
        mtime = each.check_output(["stat", "-c", "%Y", f"{place}/{name}"])
        assert int(mtime) > MTIME
    each.copy_to(source, f"{place}-kept")
    back = each.copy_from(f"{place}-kept", tmp_path / "back", preserve=False)
    info = os.stat(f"{back.path}/f")
    assert info.st_mtime > MTIME
    assert stat.S_IMODE(info.st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_limits_of_what_may_come_r45(each: Pod, place: str, tmp_path: Path) -> None:
    each.run(
        f"mkdir {place}; cd {place}; echo 12345678 >a; echo 12345678 >b", shell=True, check=True
    )
    with pytest.raises(UnsafeArchive, match="max_files= allows more"):
        each.copy_from(place, tmp_path / "a", max_files=2)
    with pytest.raises(UnsafeArchive, match="max_bytes= allows more"):
        each.copy_from(place, tmp_path / "b", max_bytes=10)
    with pytest.raises(CopyError, match="max_bytes= allows more"):
        each.copy_from(f"{place}/a", tmp_path / "c", max_bytes=5)
    assert not (tmp_path / "c").exists()


# -- streams, progress, threads


@pytest.mark.half_close
def test_streams_of_bytes_r47(each: Pod, place: str) -> None:
    data = os.urandom(200_000)
    copied = each.copy_to(io.BytesIO(data), place)
    assert (copied.path, copied.size) == (f"./{place}", len(data))
    sink = io.BytesIO()
    assert each.copy_from(place, sink).size == len(data)
    assert sink.getvalue() == data
    each.run(["chmod", "640", place], check=True)
    each.copy_to(io.BytesIO(b"shorter"), place)
    assert each.check_output(["stat", "-c", "%a %s", place]) == b"640 7\n"
    assert each.copy_to(io.BytesIO(), f"{place}-empty").size == 0
    assert each.check_output(["stat", "-c", "%s", f"{place}-empty"]) == b"0\n"
    with pytest.raises(TypeError, match="bytes, not str"):
        each.copy_to(io.StringIO("text"), place)
    each.run(["mkdir", f"{place}-d"], check=True)
    with pytest.raises(CopyError, match="is a directory: name the file"):
        each.copy_to(io.BytesIO(b""), f"{place}-d")
    with pytest.raises(CopyError, match="is a directory"):
        each.copy_from(f"{place}-d", io.BytesIO())
    assert each.check_output(["cat", place]) == b"shorter"


def test_files_of_proc_have_more_in_them_than_they_say_r46(pod: Pod, tmp_path: Path) -> None:
    assert pod.copy_from("/proc/self/status", tmp_path / "status").size > 100
    assert b"Name:" in (tmp_path / "status").read_bytes()


def test_a_copy_can_go_to_what_is_no_file(pod: Pod, place: str, tmp_path: Path) -> None:
    pod.run(f"echo hello >{place}", shell=True, check=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = in_thread(fifo.read_bytes)
    pod.copy_from(place, fifo)
    assert reading.result() == b"hello\n"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_progress_is_told_r47(each: Pod, place: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(700_000))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 1000)
    for call in (
        lambda told: each.copy_to(tmp_path / "f", place, progress=told),
        lambda told: each.copy_from(place, tmp_path / "g", progress=told),
        lambda told: each.copy_to(tmp_path / "d", f"{place}-d", progress=told),
    ):
        seen: list[tuple[int, int | None]] = []
        copied = call(functools.partial(_note, seen))
        assert seen[-1] == (copied.size, copied.size)
        assert seen == sorted(seen)
    seen = []
    each.copy_from(f"{place}-d", tmp_path / "e", progress=lambda *told: seen.append(told))
    assert seen[-1] == (1000, None)


def test_progress_is_shown_by_tqdm_r47(
    pod: Pod, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # a thread that never ends
    (tmp_path / "f").write_bytes(bytes(3 << 20))
    pod.copy_to(tmp_path / "f", place, progress=True)
    assert "3.00M/3.00M" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"kubews\[progress\]"):
        pod.copy_to(tmp_path / "f", place, progress=True)


def test_many_threads_copy_with_one_client_r22(
    client: Client, pod: Pod, place: str, tmp_path: Path
) -> None:
    def both(number: int) -> bool:
        data = os.urandom(50_000)
        source = tmp_path / f"s{number}"
        source.write_bytes(data)
        pod.copy_to(source, f"{place}-{number}")
        pod.copy_from(f"{place}-{number}", tmp_path / f"t{number}")
        return (tmp_path / f"t{number}").read_bytes() == data

    copying = [in_thread(both, number) for number in range(8)]
    assert all(each.result(seconds(30)) for each in copying)


def test_servers_that_cannot_end_an_input_are_told_sizes_r44(
    old_pod: Pod, odd: Path, tmp_path: Path
) -> None:
    place = f"copy-{os.getpid()}-{random.getrandbits(64):x}"
    old_pod.copy_to(odd, place)
    old_pod.copy_from(place, tmp_path / "back", symlinks=True)
    assert tree(tmp_path / "back") == tree(odd)
    (tmp_path / "f").write_bytes(os.urandom(300_000))
    old_pod.copy_to(tmp_path / "f", f"{place}-f")
    old_pod.copy_from(f"{place}-f", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
    with pytest.raises(HalfCloseUnsupported, match="copy a file instead of a stream"):
        old_pod.copy_to(io.BytesIO(b"x"), f"{place}-s")
