"""What may happen to a copy: names that are taken, files that change, servers that are away, programs that are odd."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from clusters import added
from podprograms import PROGRAMS, Programs, directory_of, links_to, nothing_unfinished
from support import eventually, in_thread, resources, seconds, time_limit

from kubews import Client, Pod
from kubews.errors import CopyError, NoSuchFile, TruncatedTransfer
from kubews.files import packing
from kubews.testing import Faults, LocalCluster

# -- names that are taken


def test_a_directory_in_place_of_a_file_is_no_place_for_it_r46(
    each: Pod, place: str, tmp_path: Path
) -> None:
    """``mv`` would move the file into it, under its temporary name."""
    (tmp_path / "f").write_text("f")
    each.run(["mkdir", "-p", f"{place}/f"], check=True)
    with pytest.raises(CopyError, match="f: is a directory"):
        each.copy_to(tmp_path / "f", place)
    assert each.check_output(["ls", "-A", place, f"{place}/f"], text=True).split() == [
        *(f"{place}:", "f", f"{place}/f:")
    ]


def test_what_is_no_file_is_not_replaced_by_one_r46(each: Pod, place: str, tmp_path: Path) -> None:
    """Devices, above all: who is root in a pod would be without ``/dev/null``."""
    (tmp_path / "p").write_text("f")
    each.run(f"mkdir {place} && mkfifo {place}/p", shell=True, check=True)
    for target in (place, f"{place}/p"):
        with pytest.raises(CopyError, match=r"p:? is no file"):
            each.copy_to(tmp_path / "p", target)
        assert each.check_output(f"cd {place}; ls -A; [ -p p ]", shell=True) == b"p\n"
    (tmp_path / place).mkdir()
    os.mkfifo(tmp_path / place / "q")
    each.run(f"echo f >{place}/q", shell=True, check=True)
    for source, target in ((f"{place}/q", tmp_path / place), (place, tmp_path)):
        with pytest.raises(CopyError, match=r"'.*q' here is no file, and stays"):
            each.copy_from(source, target)
    assert [path.is_fifo() for path in (tmp_path / place).iterdir()] == [True]


@pytest.mark.parametrize("how", ["ln", "ln -s"])
def test_nor_by_a_link_r46(how: str, each: Pod, place: str, tmp_path: Path) -> None:
    """Which of two hard links is the file in an archive is the pod's affair."""
    each.run(f"mkdir {place}; cd {place}; echo f >a; {how} a b", shell=True, check=True)
    for name in "ab":
        (tmp_path / name / place).mkdir(parents=True)
        fifo = tmp_path / name / place / name
        os.mkfifo(fifo)
        with pytest.raises(CopyError, match=f"'.*{name}' here is no file, and stays"):
            each.copy_from(place, tmp_path / name, symlinks=True)
        assert fifo.is_fifo()


@pytest.mark.half_close
def test_a_link_that_is_named_is_followed_r45(each: Pod, place: str, tmp_path: Path) -> None:
    script = f"mkdir {place}; cd {place}; echo old >real; ln -s real link; ln -s none dangling"
    each.run(script, shell=True, check=True)
    (tmp_path / "f").write_text("copied")
    assert each.copy_to(tmp_path / "f", f"{place}/link").path.endswith(f"/{place}/real")
    assert each.check_output(["cat", f"{place}/real"]) == b"copied"
    with each.open(f"{place}/link", "w") as file:
        file.write("written")
    with each.open(f"{place}/link", "a") as file:
        file.write(", and more")
    each.copy_to(io.BytesIO(b"bytes"), f"{place}/dangling")
    told = each.check_output(
        f"cd {place}; cat real none; readlink link; readlink dangling", shell=True
    )
    assert told == b"written, and morebytesreal\nnone\n"
    assert each.check_output(["ls", "-A", place], text=True).split() == [
        *("dangling", "link", "none", "real")
    ]


@pytest.mark.half_close
def test_links_to_nothing_are_followed_to_their_end_r45(
    each: Pod, place: str, tmp_path: Path
) -> None:
    script = (
        f"mkdir {place}; cd {place}; ln -s b a; ln -s ../{place}/c b; ln -s no/such d; ln -s e e"
    )
    (tmp_path / "f").write_text("copied")
    each.run(script, shell=True, check=True)

    def write(mode: Literal["w", "a"]) -> None:
        with each.open(f"{place}/a", mode) as file:
            file.write(mode)

    for make in (
        lambda: each.copy_to(tmp_path / "f", f"{place}/a"),
        lambda: write("w"),
        lambda: write("a"),
    ):
        make()
        each.run(f"cd {place}; [ -h a ] && [ -h b ] && [ -f c ] && rm c", shell=True, check=True)
    with pytest.raises(NoSuchFile, match=f"{place}/no: no such file or directory"):
        each.copy_to(tmp_path / "f", f"{place}/d")
    with pytest.raises(CopyError, match="too many levels of symbolic links") as caught:
        each.copy_to(tmp_path / "f", f"{place}/e")
    assert caught.value.errno == errno.ELOOP


def test_two_of_one_name_are_refused_r46(pod: Pod, place: str, tmp_path: Path) -> None:
    pod.run(["mkdir", place], check=True)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f").write_text(folder)
    with pytest.raises(CopyError, match="several of what is to be copied would be 'f'"):
        pod.copy_to(tmp_path / "*" / "f", place)
    assert pod.check_output(["ls", place]) == b""


# -- sources that are no ordinary files


@pytest.mark.half_close
def test_what_is_no_file_is_read_when_it_is_named_r47(pod: Pod, place: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writing = in_thread(fifo.write_bytes, b"x" * 300_000)
    copied = pod.copy_to(fifo, place)
    writing.result(seconds(10))
    assert (copied.files, copied.size) == (1, 300_000)
    assert pod.copy_to("/proc/self/status", place).size > 100  # which says that it is empty
    assert b"Name:" in pod.check_output(["cat", place])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "empty").chmod(0o751)
    pod.copy_to(tmp_path / "empty", place)
    assert pod.check_output(["stat", "-c", "%a %s", place]) == b"751 0\n"


@pytest.mark.half_close
def test_a_file_object_that_does_not_block_is_refused_r46(pod: Pod, place: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        with (
            open(reading, "rb", buffering=0) as file,
            pytest.raises(TypeError, match="not NoneType"),
        ):
            os.write(writing, b"only the beginning")
            pod.copy_to(file, place)
    finally:
        os.close(writing)
    assert pod.run(["test", "-e", place]).returncode == 1


def test_a_tree_may_be_deeper_than_calls_may_be_r47(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        here, before = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(before)
    os.close(here)
    try:
        kinds = [item.kind for item in packing.walk(str(tmp_path), "root")]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True, timeout=seconds(30))
    assert kinds == ["directory"] * (depth + 1) + ["left"] * (depth + 1)


# -- files that change


@pytest.mark.parametrize(("change", "size"), [(-2 << 20, None), (1 << 20, 3 << 20)])
def test_a_file_here_that_changes_while_it_is_read_r46(
    change: int, size: int | None, pod: Pod, old_pod: Pod, place: str, tmp_path: Path
) -> None:
    """Servers before 1.30 are told its size, and would wait for the rest for ever."""
    source = tmp_path / "f"

    def resize(done: int, total: int | None) -> None:
        os.truncate(source, (3 << 20) + change)

    for each in (pod, old_pod):
        source.write_bytes(os.urandom(3 << 20))
        with time_limit(20):
            if size is None:
                with pytest.raises(CopyError, match="has become shorter while it was read"):
                    each.copy_to(source, place, progress=resize)
                assert each.run(["test", "-e", place]).returncode == 1
            else:
                assert each.copy_to(source, place, progress=resize).size == size
                each.run(["rm", place], check=True)


def test_a_file_here_that_is_rewritten_while_it_is_read_is_not_sent_as_a_mixture_r46(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"a" * (3 << 20))

    def rewrite(done: int, total: int | None) -> None:
        if done < 1 << 20:
            source.write_bytes(b"z" * (3 << 20))

    with pytest.raises(CopyError, match="f: was written to while it was read, and what arrived"):
        pod.copy_to(source, place, progress=rewrite)
    assert pod.run(["test", "-e", place]).returncode == 1
    assert nothing_unfinished(directory_of(pod))


def test_what_is_appended_to_a_log_meanwhile_is_a_warning_r46(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    """In whichever direction; what was there at the beginning has arrived."""
    logs = tmp_path / place
    logs.mkdir()
    there = directory_of(pod) / place
    (logs / "b").write_bytes(b"a" * (3 << 20))

    def append(done: int, total: int | None) -> None:
        for folder in (logs, there):
            for path in folder.glob("[ab]"):
                with path.open("ab") as file:
                    file.write(b"b" * 1000)

    told = [f"{logs}/b: was written to while it was read"]
    assert list(pod.copy_to(logs / "b", f"{place}-b", progress=append).warnings) == told
    copy = (directory_of(pod) / f"{place}-b").read_bytes()
    assert copy == (logs / "b").read_bytes()[: len(copy)]
    there.mkdir()
    (there / "a").write_bytes(b"a" * (16 << 20))  # more than fits on the way
    copied = pod.copy_from(f"{place}/a", tmp_path / "a", progress=append)
    assert list(copied.warnings) == [f"./{place}/a: was written to while it was read"]
    assert (tmp_path / "a").read_bytes() == (there / "a").read_bytes()[: copied.size]


def test_a_tree_here_that_is_written_to_meanwhile_is_a_warning_r46(
    pod: Pod, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(b"a" * (3 << 20))
    contents = packing.contents

    def appended(path: str, *args: Any) -> Iterator[bytes]:
        for piece in contents(path, *args):
            with open(path, "ab") as file:
                file.write(b"b")
            yield piece

    monkeypatch.setattr(packing, "contents", appended)
    copied = pod.copy_to(tmp_path / "log", place)
    assert copied.warnings == (f"{tmp_path}/log: was written to while it was read",)
    pod.run(["mkdir", f"{place}-d"], check=True)
    copied = pod.copy_to(f"{tmp_path}/.", f"{place}-d")
    assert copied.warnings == (f"{tmp_path}/./log: was written to while it was read",)


def test_a_tree_here_that_changes_is_no_reason_to_wait_for_ever_r46(
    old_pod: Pod, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(bytes(300_000))
    measure = packing.archive_size

    def measured(*args: Any) -> int:
        size = measure(*args)
        (source / "b").unlink(missing_ok=True)
        return size

    monkeypatch.setattr(packing, "archive_size", measured)
    with (
        time_limit(20),
        pytest.raises(CopyError, match="has changed while it was read"),
    ):
        old_pod.copy_to(source, place)
    assert old_pod.run(["test", "-e", place]).returncode == 1


def test_a_file_here_that_is_another_one_after_a_cut_is_not_pieced_together_r46(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"a" * 900_000)

    def change(done: int, total: int | None) -> None:
        if done > 500_000:
            source.write_bytes(b"b" * 900_000)

    local.next_faults(Faults(match="umask%20077", drop_after_stdin=600_000))
    with pytest.raises(CopyError, match="has changed while it was read"):
        pod.copy_to(source, place, checksum=False, progress=change)
    assert pod.run(["test", "-e", place]).returncode == 1
    assert nothing_unfinished(directory_of(pod))


def test_a_file_there_that_becomes_shorter_while_it_is_read_r46(
    programs: Programs, tmp_path: Path
) -> None:
    pod = programs([*PROGRAMS, "truncate"], cat="head -c 1000; truncate -s 10 f")
    (directory_of(pod) / "f").write_bytes(os.urandom(5000))
    with pytest.raises(CopyError, match="has become shorter while it was read"):
        pod.copy_from("f", tmp_path / "f", checksum=False)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("mark", ["1", "ok"])
def test_a_listing_whose_file_became_shorter_by_what_follows_it_r46(
    mark: str, programs: Programs, tmp_path: Path
) -> None:
    """The next file would be taken for contents, if it were not for the files' numbers."""
    follows = len(f"{mark}\0f\000600 1700000000 0\0b\0")
    head = f'[ "$2" = 0 ] || exec /bin/head -c $(($2 - {follows}))'
    pod = programs(PROGRAMS, head=head)
    folder = directory_of(pod) / "d"
    folder.mkdir()
    for name, size in (("a", 5000), ("b", 0)):
        (folder / name).write_bytes(os.urandom(size))
        (folder / name).chmod(0o600)
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    with pytest.raises(CopyError, match="'a' has changed while it was read"):
        pod.copy_from("d", tmp_path / "d", retries=0)


# -- servers that are away for a while


@pytest.mark.parametrize(
    "fault",
    [
        {"drop_after": 0},
        {"response": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"},
    ],
    ids=["cut", "503"],
)
def test_cuts_may_follow_each_other_r47(
    fault: dict[str, Any], local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    """What a copy looks at after a cut may be cut, too, and counts as one of the retries."""
    data = os.urandom(400_000)
    (directory_of(pod) / place).write_bytes(data)
    away = Faults(match="/exec", **fault)
    once = iter([away, away])

    def next_fault(done: int, total: int | None) -> None:
        local.next_faults(*once)

    local.next_faults(Faults(match="kubews-checksum", drop_after=100_000))
    assert pod.copy_from(place, tmp_path / "f", progress=next_fault).verified == "cksum"
    assert (tmp_path / "f").read_bytes() == data
    local.next_faults(Faults(match="tail%20-c", drop_after=300_000))
    with pod.open(place, "rb") as file:
        file.read(10)
        local.next_faults(away, away)
        assert data[:10] + file.read() == data
    once = iter([away])
    local.next_faults(Faults(match="kubews-checksum", drop_after=100_000))
    with pytest.raises(TruncatedTransfer, match="was cut after"):
        pod.copy_from(place, tmp_path / "f", progress=next_fault, retries=1)


def test_without_a_shell_a_file_is_read_again_after_a_cut_and_limits_hold_r47(
    local: LocalCluster, client: Client, tmp_path: Path, nothing_left_behind: None
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    cut = Faults(match="command=cat&", drop_after=100_000)
    with added(local, "cat", "", None, links_to(tmp_path / "cat", ["cat"])) as name:
        pod = client.pod(name)
        local.next_faults(cut)
        pod.copy_from(str(source), tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == source.read_bytes()
        local.next_faults(cut)
        with pytest.raises(TruncatedTransfer, match="was cut after"):
            pod.copy_from(str(source), io.BytesIO())
        with pytest.raises(CopyError, match="max_bytes= allows more"):
            pod.copy_from(str(source), tmp_path / "g", max_bytes=1000)
    assert not (tmp_path / "g").exists()


# -- programs that are odd


def test_a_checksum_that_is_not_told_is_no_checksum_r46(programs: Programs, tmp_path: Path) -> None:
    pod = programs(PROGRAMS, cksum="exit 0")
    (directory_of(pod) / "f").write_text("there")
    (tmp_path / "f").write_text("here")
    for call in (lambda: pod.copy_from("f", tmp_path / "g"), lambda: pod.copy_to(tmp_path / "f", "g")):  # fmt: skip
        with pytest.raises(CopyError, match=r"could not be verified: cksum .*checksum=False"):
            call()
    assert pod.copy_from("f", tmp_path / "g", checksum=False).verified == "size"


def test_of_a_file_that_grows_what_was_there_is_verified_r46(
    programs: Programs, tmp_path: Path
) -> None:
    cksum, head = shutil.which("cksum"), shutil.which("head")
    cut = f'echo cut >>heads; exec {head} "$@"'
    pod = programs(PROGRAMS, cksum=f"echo more >>f; exec {cksum}", head=cut)
    there = directory_of(pod)
    for name in ("f", "g"):  # only the first one grows
        data = os.urandom(100_000)
        (there / name).write_bytes(data)
        assert pod.copy_from(name, tmp_path / name).verified == "cksum"
        assert (tmp_path / name).read_bytes()[:100_000] == data
    assert (there / "heads").read_text() == "cut\n"


def test_a_checksum_that_is_insisted_on_is_compared_or_refused_r46(
    local: LocalCluster, client: Client, pod: Pod, place: str, tmp_path: Path
) -> None:
    (directory_of(pod) / place).write_bytes(b"")
    assert pod.copy_from(place, tmp_path / "f", checksum=True).verified == "sha256"
    with pytest.raises(CopyError, match="does not say how much is in it"):
        pod.copy_from("/proc/self/status", tmp_path / "g", checksum=True)
    for names in (["cat"], ["tar"], ["sh", "tar"]):
        path = links_to(tmp_path / "-".join(names), names)
        with added(local, "-".join(["only", *names]), "", None, path) as name:
            for target in (tmp_path / "g", io.BytesIO()):
                with pytest.raises(CopyError, match="checksum=True needs sh"):
                    client.pod(name).copy_from("/etc/hosts", target, checksum=True)
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("wc", [None, "echo junk", r"printf '\377'"])
def test_a_size_that_is_not_told_is_no_size_r46(
    wc: str | None, programs: Programs, tmp_path: Path
) -> None:
    names = [name for name in PROGRAMS if name != "wc"]
    pod = programs(names, **({} if wc is None else {"wc": wc}))
    (tmp_path / "f").write_bytes(os.urandom(1000))
    assert pod.copy_to(tmp_path / "f", "f").verified == "cksum"
    assert pod.copy_to(tmp_path / "f", "f", checksum=False).verified == ""


def test_a_checksum_is_found_behind_whatever_else_is_said_r46(
    programs: Programs, tmp_path: Path
) -> None:
    """More than any buffer holds, while the other side is busy with the contents."""
    lines = 400_000
    pod = programs([*PROGRAMS, "seq"], cat=f"seq {lines} >&2; exec /bin/cat")
    (directory_of(pod) / "f").write_bytes(os.urandom(3 << 20))
    with time_limit(30):
        copied = pod.copy_from("f", tmp_path / "f")
    assert copied.verified == "cksum"
    assert len(copied.warnings) == 1000
    assert (copied.warnings[0], copied.warnings[-1]) == ("1", str(lines))


@pytest.mark.half_close  # others read their input with head
def test_a_tar_that_says_much_while_it_unpacks_r46(programs: Programs, tmp_path: Path) -> None:
    tar = 'case $1 in --version) exit;; esac; seq 800000 >&2; exec /bin/tar "$@"'
    pod = programs([*PROGRAMS, "seq"], tar=tar)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(os.urandom(8 << 20))
    with time_limit(30):
        assert pod.copy_to(tmp_path / "d", "d").warnings[-1] == "800000"


@pytest.mark.half_close
def test_ctrl_c_while_a_file_is_opened_leaves_no_connection(
    local: LocalCluster, programs: Programs
) -> None:
    pod = programs(PROGRAMS, sh='case $2 in *umask*) exec sleep 1000;; esac; exec /bin/sh "$@"')
    before = resources()

    def writes() -> bool:
        return any("umask" in str(each.command) for each in local.execs)

    assert eventually(lambda: not writes(), 20)  # one of another test, just killed

    def interrupt() -> None:
        assert eventually(writes, 20)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        pod.open("f", "w")
    interrupting.result()
    assert eventually(lambda: resources() == before)
    assert caught.value.__traceback__ is not None  # which holds all that is not closed
