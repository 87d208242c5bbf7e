"""pod.open: files of pods for everything that takes a file object."""

from __future__ import annotations

import codecs
import csv
import errno
import functools
import gc
import io
import json
import os
import random
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import pytest
from children import run
from clusters import AnyCluster
from podprograms import PROGRAMS, Programs, directory_of, nothing_unfinished
from support import eventually, seconds

import kubews
from kubews import Pod
from kubews.errors import CopyError, HalfCloseUnsupported, NoSuchFile, TruncatedTransfer
from kubews.testing import Faults, LocalCluster

pytestmark = pytest.mark.half_close


def test_text_is_written_read_and_appended(each: Pod, place: str) -> None:
    with each.open(place, "w") as file:
        assert file.write("größe\n") == 6
        file.writelines(["a\n", "b\n"])
    assert each.check_output(["cat", place]) == "größe\na\nb\n".encode()
    with each.open(place, "a", encoding="latin-1") as file:
        file.write("é\n")
    with each.open(place, errors="replace") as file:
        assert list(file) == ["größe\n", "a\n", "b\n", "\ufffd\n"]
        assert file.readable()
        assert not file.writable()
    with each.open(place, encoding="latin-1", newline="") as file:
        assert (file.mode, file.name, file.encoding) == ("r", f"./{place}", "latin-1")
        assert file.readlines()[-1] == "é\n"
    with each.open(f"{place}-empty", "w"):
        pass
    assert each.check_output(["stat", "-c", "%s", f"{place}-empty"]) == b"0\n"
    with each.open(f"{place}-new", "at") as file:
        file.write("new")
    assert each.check_output(["cat", f"{place}-new"]) == b"new"


def test_what_a_text_file_refuses_changes_nothing(pod: Pod, place: str) -> None:
    """As of files here."""

    def fail(exc: UnicodeError) -> tuple[str, int]:
        raise KeyError(exc)

    codecs.register_error("kubews.test", fail)
    with pod.open(place, "w", encoding="cp1252", errors="kubews.test") as file:
        file.write("a")
        for refused, error in (("\u03b1", LookupError), (b"b", TypeError)):
            with pytest.raises(error):
                file.write(refused)
        file.reconfigure(errors="strict")
        with pytest.raises(UnicodeEncodeError):
            file.write("b\u03b1")
        assert file.tell() == 1
        file.write("b")
    assert pod.check_output(["cat", place]) == b"ab"
    for call in (file.flush, lambda: file.write("c")):
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_what_is_under_a_text_file_can_be_had_alone(pod: Pod, place: str) -> None:
    text = pod.open(place, "w")
    text.write("a")
    buffered = text.detach()
    for name, arguments in (("flush", ()), ("close", ()), ("write", ("c",))):
        with pytest.raises(ValueError, match="detached"):
            getattr(text, name)(*arguments)
    del text
    gc.collect()
    buffered.write(b"b")
    buffered.close()
    assert pod.check_output(["cat", place]) == b"ab"


def test_what_others_append_meanwhile_stays_r46(each: Pod, place: str) -> None:
    for meanwhile in (f"echo other >>{place}", f"rm {place}"):
        with each.open(place, "a") as file:
            file.write("ours\n")
            each.run(meanwhile, shell=True, check=True)
        expected = b"other\nours\n" if "other" in meanwhile else b"ours\n"
        assert each.check_output(["cat", place]) == expected


def test_a_file_that_is_replaced_keeps_its_mode(each: Pod, place: str) -> None:
    each.run(f"echo x >{place}; chmod 641 {place}", shell=True, check=True)
    for mode in ("wb", "ab"):
        with each.open(place, mode) as file:
            file.write(b"y")
        assert each.check_output(["stat", "-c", "%a", place]) == b"641\n"


def test_seeking_reads_ranges_r47(each: Pod, place: str) -> None:
    data = os.urandom(1_000_000)
    with each.open(place, "wb") as file:
        file.write(data)
    with each.open(place, "rb") as file:
        assert file.seekable()
        assert file.read(10) == data[:10]
        for offset in (999_000, 0, 500_000, 600_000, 599_999, 700_000, 3):
            assert file.seek(offset) == file.tell() == offset
            assert file.read(1000) == data[offset : offset + 1000]
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read() == b""
        assert file.seek(2_000_000) == 2_000_000
        assert file.read(1) == b""
        file.seek(0)
        assert file.read() == data
        with pytest.raises(ValueError, match="negative"):
            file.raw.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.raw.seek(0, 9)


def test_json_csv_and_zipfile_take_it(each: Pod, place: str) -> None:
    document = {"key": ["value", 1, None]}
    with each.open(place, "w") as file:
        json.dump(document, file)
    with each.open(place) as file:
        assert json.load(file) == document
    rows = [["a b", "c,d"], ["1", "new\nline"]]
    with each.open(place, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with each.open(place, newline="") as file:
        assert list(csv.reader(file)) == rows
    contents = os.urandom(400_000)
    with each.open(place, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", contents)
        archive.writestr("two", b"2")
    with each.open(place, "rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["one", "two"]
        assert archive.read("two") == b"2"
        assert archive.read("one") == contents


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_stands_where_a_file_here_has_it(
    encoding: str, pod: Pod, place: str, tmp_path: Path
) -> None:
    for opened in (functools.partial(pod.open, place), (tmp_path / "f").open):
        for mode in ("w", "a"):
            with opened(mode=mode, encoding=encoding, newline="") as file:  # type: ignore[operator]
                file.write("a")
                file.write("b")
    assert pod.check_output(["cat", place]) == (tmp_path / "f").read_bytes()


def test_an_exception_in_the_block_writes_nothing_r46(pod: Pod, place: str) -> None:
    pod.run(f"echo before >{place}", shell=True, check=True)
    for mode in ("w", "wb", "a", "ab"):
        with pytest.raises(ZeroDivisionError), pod.open(place, mode) as file:
            file.write(b"x" * 1000 if "b" in mode else "x" * 1000)
            1 / 0  # noqa: B018
    assert pod.check_output(["cat", place]) == b"before\n"
    assert b".kubews-" not in pod.check_output(["ls", "-a"])


def test_modes_and_paths_that_cannot_be(each: Pod, place: str) -> None:
    with pytest.raises(CopyError, match="/ is a directory") as caught:
        each.open("/")
    assert caught.value.errno == errno.EISDIR
    for mode in ("", "x", "rw", "r+", "b", "rbt", "U"):
        with pytest.raises(ValueError, match="invalid mode"):
            each.open(place, mode)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="binary mode"):
        each.open(place, "rb", encoding="utf-8")  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError, match="no such file"):
        each.open(place)
    with pytest.raises(NoSuchFile, match="no such file"):
        each.open(f"{place}/x", "w")
    for mode in ("r", "w"):
        with pytest.raises(CopyError, match="is a directory"):
            each.open("/tmp", mode)
        with pytest.raises(NoSuchFile, match="/etc/hosts/: no such directory"):
            each.open("/etc/hosts/", mode)
    with pytest.raises(CopyError, match="/etc/hosts is no directory") as caught:
        each.open("/etc/hosts/x", "w")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOTDIR, "/etc/hosts")
    with pytest.raises(CopyError, match="is no file"):
        each.open("/dev/null", "w")
    with pytest.raises(LookupError, match="no-such-encoding"):
        each.open(place, "w", encoding="no-such-encoding")
    with each.open("/dev/null", "rb") as file:
        assert not file.seekable()
        assert file.read() == b""
        with pytest.raises(io.UnsupportedOperation):
            file.raw.seek(0)
    with pytest.raises(ValueError, match="closed"):
        file.raw.readinto(bytearray(1))
    with each.open("/proc/self/status") as file:
        assert "Name:" in file.read()


def test_reading_goes_on_after_cuts_r47(local: LocalCluster, pod: Pod, place: str) -> None:
    data = os.urandom(400_000)
    (directory_of(pod) / place).write_bytes(data)
    for size in (0, 1, 399_999, *(random.randrange(len(data)) for _ in range(3))):
        local.next_faults(Faults(match="tail%20-c", drop_after=size + 3))
        with pod.open(place, "rb") as file:
            assert file.read() == data
    local.faults = Faults(match="tail%20-c", drop_after=1000)
    try:
        with pod.open(place, "rb") as file, pytest.raises(TruncatedTransfer, match="was cut after"):
            file.read()
    finally:
        local.faults = Faults()


def test_a_file_that_changes_while_it_is_read_is_not_pieced_together_r46(
    local: LocalCluster, pod: Pod, place: str
) -> None:
    path = directory_of(pod) / place
    path.write_bytes(os.urandom(400_000))
    local.next_faults(Faults(match="tail%20-c", drop_after=200_000))
    with pod.open(place, "rb") as file:
        file.read(10)
        path.write_bytes(b"other")
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.read()


def test_a_file_that_grows_is_read_on_after_a_cut_r46(
    local: LocalCluster, pod: Pod, place: str
) -> None:
    path = directory_of(pod) / place
    path.write_bytes(data := os.urandom(400_000))
    local.next_faults(Faults(match="tail%20-c", drop_after=200_000))
    with pod.open(place, "rb") as file:
        assert file.read(10) == data[:10]
        with path.open("ab") as log:
            log.write(b"more")
        assert file.read() == data[10:] + b"more"


def test_reading_goes_on_after_any_number_of_cuts_that_are_far_apart_r46(
    local: LocalCluster, pod: Pod, place: str
) -> None:
    (directory_of(pod) / place).write_bytes(data := os.urandom(3_000_000))
    local.faults = Faults(match="tail%20-c", drop_after=600_000)
    try:
        with pod.open(place, "rb") as file:
            assert file.read() == data
    finally:
        local.faults = Faults()


def test_a_log_that_was_emptied_is_not_read_on_r46(each: Pod, place: str) -> None:
    """As logrotate does with ``copytruncate``."""
    each.run(["sh", "-c", f"seq 10 >{place}"], check=True)
    with each.open(place) as file:
        assert file.read().endswith("10\n")
        each.run(["sh", "-c", f"seq 100 >>{place}"], check=True)
        assert file.read().endswith("100\n")
        each.run(["sh", "-c", f"seq 50 >{place}"], check=True)
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.read()


def test_a_file_is_read_behind_4_gib(each: Pod, place: str) -> None:
    """The ``tail`` of busybox counts to there only."""
    each.run(["truncate", "-s", "5000000000", place], check=True)
    each.run(["sh", "-c", f"echo end >>{place}"], check=True)
    try:
        with each.open(place, "rb") as file:
            for position in (4_999_999_995, (1 << 32) - 1, 1 << 32, 5_000_000_004, 6_000_000_000):
                file.seek(position)
                zeros = min(10, max(0, 5_000_000_000 - position))
                left = max(0, 5_000_000_004 - position)
                assert file.read(10) == (bytes(zeros) + b"end\n"[-left:] * (left > 0))[:10]
    finally:
        each.run(["rm", place], check=True)


def test_another_file_that_has_the_name_by_now_is_not_read_on_r46(each: Pod, place: str) -> None:
    """As a log is after its rotation; one that only grows is the same."""
    each.run(["sh", "-c", f"seq 1000 >{place}"], check=True)
    with each.open(place) as file:
        assert file.readline() == "1\n"
        each.run(["sh", "-c", f"echo more >>{place}"], check=True)
        file.seek(0)
        assert file.readline() == "1\n"
        each.run(["sh", "-c", f"seq 1001 2000 >{place}-b && mv {place}-b {place}"], check=True)
        file.seek(0)
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.readline()


@pytest.mark.parametrize("grown", [False, True])
def test_another_file_with_the_number_of_the_first_is_not_read_on_r46(
    each: Pod, place: str, grown: bool
) -> None:
    """Numbers are given anew, and many programs do not know when a file was made."""
    each.run(["sh", "-c", f"yes old | head -n 1000 >{place}; touch -d @1 {place}"], check=True)
    with each.open(place) as file:
        assert file.readline() == "old\n"
        each.run(["chmod", "600", place], check=True)
        file.seek(0)
        assert file.readline() == "old\n"
        text = "yes old | head -n 1001" if grown else "yes new | head -n 1000"
        each.run(["sh", "-c", f"{text} >{place}"], check=True)
        file.seek(8)
        if grown:
            assert file.read().count("old\n") == 999
            return
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.readline()


def test_an_empty_file_that_was_replaced_is_not_read_on_r46(each: Pod, place: str) -> None:
    each.run(["touch", place], check=True)
    with each.open(place) as file:
        assert file.read() == ""
        each.run(["sh", "-c", f"echo old >>{place}"], check=True)
        assert file.read() == "old\n"
        each.run(["sh", "-c", f"mv {place} {place}-1; seq 100 >{place}"], check=True)
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.read()


@pytest.mark.parametrize("rounds", [1, 10])
def test_a_file_that_is_written_before_anything_is_read_is_read(
    each: Pod, place: str, rounds: int
) -> None:
    """Such as a counter, which is written all the time."""
    each.run(["sh", "-c", f"seq 1000 >{place}; touch -d @1 {place}"], check=True)
    with each.open(place) as file:
        file.buffer.raw._rounds = rounds  # type: ignore[attr-defined]
        each.run(["touch", place], check=True)
        assert file.readline() == "1\n"
        if rounds == 1:
            return  # it is taken as it comes
        file.seek(3893 - 5)
        assert file.read() == "1000\n"


@pytest.mark.parametrize("path", ["/proc/self/comm", "//proc/self/comm", "/./proc/self/comm"])
def test_a_file_that_is_made_up_is_read_by_any_name(each: Pod, path: str) -> None:
    """It has no size, and is another one for each who asks."""
    with each.open(path) as file:
        assert file.read() == "cat\n"


def test_a_file_that_is_replaced_before_anything_is_read_is_read_whole(
    each: Pod, place: str
) -> None:
    """Nothing of its predecessor was given to anybody."""
    each.run(["sh", "-c", f"seq 10 >{place}"], check=True)
    with each.open(place) as file:
        each.run(["sh", "-c", f"seq 1001 2000 >{place}-b && mv {place}-b {place}"], check=True)
        assert file.read().split()[-1] == "2000"
    with each.open(place, "rb") as file:
        file.seek(0, os.SEEK_END)
        each.run(["sh", "-c", f"seq 10 >{place}-b && mv {place}-b {place}"], check=True)
        file.seek(0)
        with pytest.raises(CopyError, match="was changed while it was read"):
            file.read()


def test_a_number_that_a_file_system_makes_up_anew_is_no_change(programs: Programs) -> None:
    edit = r"s/\(^\| \)[0-9]\{4,\}:[0-9]*:/\11:$$:/"
    made_up = f'{shutil.which("stat")} "$@" | {shutil.which("sed")} "{edit}"'
    pod = programs([each for each in PROGRAMS if each != "stat"], stat=made_up)
    pod.run(["sh", "-c", "echo text >f"], check=True)
    with pod.open("f") as file:
        for _ in range(2):
            assert file.read() == "text\n"
            file.seek(0)


def test_closing_tells_of_what_has_not_arrived_r46(
    local: LocalCluster, pod: Pod, place: str
) -> None:
    there = directory_of(pod)
    (there / place).write_text("before")
    for mode, size in (("wb", 0), ("wb", 100_000), ("ab", 600_000)):
        local.next_faults(Faults(match="umask%20077", drop_after_stdin=size))
        file = pod.open(place, mode)
        with pytest.raises(TruncatedTransfer, match="was cut after"):
            for _ in range(1000):  # more than fits on the way
                file.write(bytes(70_000))
        with pytest.raises(TruncatedTransfer, match="was cut after"):
            file.close()
        assert file.closed
        assert (there / place).read_text() == "before"
        assert eventually(lambda: nothing_unfinished(there), seconds(5))


def test_a_file_that_is_open_at_the_exit_is_told_r46(
    cluster: AnyCluster, pod: Pod, place: str
) -> None:
    """The builtin ``open`` would write it."""
    program = f"""
        with pod.open("{place}-1", "w") as closed:
            closed.write("text")
        file = pod.open("{place}", "w")
        file.write("text")
        if not os.fork():  # it is its parent's
            sys.exit()
        os.wait()
    """
    ended = run(program, cluster.kubeconfig, "-W", "always::ResourceWarning")
    told = f"PodWriter './{place}' of pod {pod.namespace}/{pod.name}> is open when the interpreter exits, and nothing"
    assert (ended.code, ended.err.count("is open when")) == (0, 1)
    assert told in ended.err
    assert pod.check_output(["sh", "-c", f"echo {place}*"], text=True) == f"{place}-1\n"


def test_a_file_that_could_not_be_opened_leaves_nothing_r46(
    local: LocalCluster, pod: Pod, place: str
) -> None:
    there = directory_of(pod)
    for size in (0, 3):  # before it says that it is open, and while it does
        local.next_faults(Faults(match="umask%20077", drop_after=size))
        with pytest.raises(kubews.ConnectionLost):
            pod.open(place, "w")
    assert eventually(lambda: nothing_unfinished(there), seconds(10))
    with pod.open(place, "w"):
        pass
    assert (there / place).read_bytes() == b""
    assert eventually(lambda: nothing_unfinished(there), seconds(10))


@pytest.mark.parametrize("known", [False, True])
def test_a_full_disk_is_told_r46(programs: Programs, known: bool) -> None:
    """By closing, too, if writing has told it: that may be the last flush of a wrapper."""
    pod = programs(PROGRAMS, cat='head -c 1000; echo "cat: No space left on device" >&2; exit 1')
    file = pod.open("f", "wb")
    file.write(bytes(2000))
    if known:  # then writing fails, not only closing
        file.flush()
        file.raw._process.wait(seconds(20))
        file.write(b"more")
        with pytest.raises(CopyError, match="No space left"):
            file.flush()
    with pytest.raises(CopyError, match="No space left"):
        file.close()
    assert list(directory_of(pod).iterdir()) == []


def test_a_command_that_ends_too_early_is_told_r46(programs: Programs) -> None:
    """By all that follows, though it says that all is well."""
    file = programs(PROGRAMS, cat="head -c 1000").open("f", "wb")
    file.write(bytes(2000))
    file.flush()
    file.raw._process.wait(seconds(20))
    file.write(b"more")
    for call in (file.flush, file.flush, file.close):
        with pytest.raises(CopyError, match="ended before all was written"):
            call()


def test_a_writer_that_is_forgotten_writes_nothing(pod: Pod, place: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        file = pod.open(place, "wb")
        file.write(b"x")
        del file
        gc.collect()
        reading = pod.open("/dev/zero", "rb")
        reading.read(1)
        del reading
        gc.collect()
        assert eventually(lambda: len(said) == 2, 10)  # a thread may hold one for a moment still
    writer, reader = (str(each.message) for each in said if each.category is ResourceWarning)
    assert re.match(rf"<kubews.PodWriter './{place}' .*nothing of it is written", writer)
    assert re.match("<kubews.PodReader '/dev/zero' .*was forgotten: close it", reader)
    assert pod.run(["test", "-e", place]).returncode == 1
    assert eventually(lambda: b".kubews-" not in pod.check_output(["ls", "-A"]), 10)


def test_servers_that_cannot_end_an_input_refuse_to_write(old_pod: Pod) -> None:
    with pytest.raises(HalfCloseUnsupported, match="copy a file instead"):
        old_pod.open("f", "w")
    with old_pod.open("/etc/hosts") as file:
        assert "localhost" in file.read()
