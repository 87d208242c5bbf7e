"""What hostile archives do: nothing outside of the destination, whatever they try (R-45, R-8)."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kubews.errors import CopyError, TruncatedTransfer, UnsafeArchive
from kubews.files.archives import TarReader
from kubews.files.arrival import Arrival, Limits, stays_below
from kubews.files.landing import Landing

BLOCK = 512
END = bytes(2 * BLOCK)
OUTSIDE = "precious"
UNLIMITED = Limits()


def member(
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    size: int | None = None,
    form: int = tarfile.GNU_FORMAT,
    mtime: float = 1_700_000_000,
    pax: dict[str, str] | None = None,
) -> bytes:
    """Return the headers and the contents of one member, with a size that may be a lie."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, mtime
    info.size = len(data) if size is None else size
    info.pax_headers = pax or {}
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)


def directory(name: str, mode: int = 0o755) -> bytes:
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> bytes:
    return member(name, kind=tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> bytes:
    return member(name, kind=tarfile.LNKTYPE, link=target)


def shared(key: str, size: int) -> bytes:
    """Return a global pax header with one value of so many bytes."""
    return member("g", record(key, b"v" * size), kind=tarfile.XGLTYPE)


def record(keyword: str, value: bytes) -> bytes:
    """Return a record of a pax header: its length counts its own digits."""
    rest = b" " + keyword.encode() + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


def overlapping(size: int) -> bytes:
    """Return a pax header of so many bytes whose records have no keyword within them, until the last."""
    return b"5 01\n" * (size // 5) + b"9 z=\n" + b"\n" * 4


def field(block: bytes, start: int, value: bytes) -> bytes:
    """Change a field of a header, and make its checksum right again."""
    block = block[:start] + value + block[start + len(value) :]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:BLOCK])
    return block[:148] + b"%06o\0 " % total + block[156:]


def old_sparse(name: str, offset: int, size: int, real: int) -> bytes:
    """Return a sparse member of GNU's old format: ``size`` bytes of x at ``offset`` in a file of ``real``."""

    def number(value: int) -> bytes:
        return (
            b"\x80" + value.to_bytes(11, "big")
            if value >= 0
            else b"\xff" * 4 + value.to_bytes(8, "big", signed=True)
        )

    block = member(name, kind=tarfile.GNUTYPE_SPARSE, size=size)[:BLOCK]
    block = field(block, 386, number(offset) + number(size))
    block = field(block, 483, number(real))
    return block + b"x" * size + bytes(-size % BLOCK)


class Case(NamedTuple):
    """An archive, and what comes of it: an error, or the files that are there afterwards."""

    data: bytes
    error: type[Exception] | None = None
    says: str = ""
    files: dict[str, object] = {}
    warns: str = ""
    symlinks: bool = True
    limits: Limits = UNLIMITED


HOSTILE: dict[str, Case] = {
    "absolute name": Case(member("/etc/x", b"1") + END, UnsafeArchive, "leads out"),
    "absolute name with two slashes": Case(member("//x", b"1") + END, UnsafeArchive, "leads out"),
    "dots in front": Case(member("../outside/x", b"1") + END, UnsafeArchive, "leads out"),
    "dots in the middle": Case(member("a/../../outside/x", b"1") + END, UnsafeArchive, "leads out"),
    "dots that stay inside": Case(member("a/../b", b"1") + END, UnsafeArchive, "leads out"),
    "dots alone": Case(directory("..") + END, UnsafeArchive, "leads out"),
    "a long name with dots": Case(
        member("a/" * 80 + "../" * 90 + "outside/x", b"1") + END, UnsafeArchive, "leads out"
    ),
    "dots in a pax path": Case(
        member("harmless", b"1", form=tarfile.PAX_FORMAT, pax={"path": "../outside/x"}) + END,
        UnsafeArchive,
        "leads out",
    ),
    "no name": Case(member("", b"1") + END, UnsafeArchive, "leads out"),
    "a file in place of the whole": Case(
        field(member("./", b"1"), 156, b"0") + END, UnsafeArchive, "in place of the whole"
    ),
    "a hard link in place of the whole": Case(
        member("x", b"1") + hard_link("./", "x") + END, UnsafeArchive, "in place of the whole"
    ),
    "symlink to a name that cannot be one": Case(
        member("a", kind=tarfile.SYMTYPE, link="x", form=tarfile.PAX_FORMAT, pax={"linkpath": "a\0b"})
        + member("b", b"1")
        + END,
        files={"b": b"1"},
        warns="a: left out",
        symlinks=True,
    ),
    "symlink to outside, then a file through it": Case(
        symlink("a", "../outside") + member("a/x", b"1") + END, files={"a": None, "a/x": b"1"}, warns="a: left out"
    ),
    "absolute symlink, then a file through it": Case(
        symlink("a", "/tmp") + member("a/x", b"1") + END, files={"a": None, "a/x": b"1"}, warns="a: left out"
    ),
    "symlink inside, then a file through it": Case(
        directory("b") + symlink("a", "b") + member("a/x", b"1") + END, CopyError, "/a' cannot be written"
    ),
    "symlink, then a file of its name": Case(
        symlink("a", "b") + member("a", b"1") + END, files={"a": b"1"}
    ),
    "symlinks that climb together": Case(
        directory("x") + directory("x/y") + symlink("x/y/l", ".") + symlink("m", "x/y/l/../../..") + END,
        files={"x": None, "x/y": None, "x/y/l": "."},
        warns="m: left out, because it is a link out",
    ),
    "symlink to a symlink out of it": Case(
        symlink("a", ".") + symlink("b", "a/../..") + END, files={"a": "."}, warns="b: left out"
    ),
    "symlinks when none are wanted": Case(
        symlink("a", "b") + member("b", b"1") + END, files={"b": b"1"}, warns="a: left out", symlinks=False
    ),
    "symlink in place of a directory with files": Case(
        directory("a") + member("a/x", b"1") + symlink("a", "b") + END, CopyError, "/a' cannot be written"
    ),
    "hard link to outside": Case(hard_link("a", "../outside/precious") + END, UnsafeArchive, "leads out"),
    "hard link to an absolute name": Case(hard_link("a", "/etc/passwd") + END, UnsafeArchive, "leads out"),
    "hard link to a file that was here before": Case(
        hard_link("a", "mine") + member("a", b"overwritten") + END, UnsafeArchive, "no file of this copy"
    ),
    "hard link through a symlink that was here before": Case(
        hard_link("a", "way/precious") + END, UnsafeArchive, "is a symbolic link"
    ),
    "hard link to a symlink": Case(
        symlink("s", "../outside/precious") + hard_link("a", "s") + END, warns="a: left out, because s is no file"
    ),
    "two names of a symlink": Case(
        member("f", b"1") + symlink("s", "f") + hard_link("a", "s") + END, files={"f": b"1", "s": "f", "a": "f"}
    ),
    "two names of a symlink, of which one leads out": Case(
        symlink("x/y/s", "../f") + hard_link("a", "x/y/s") + END,
        files={"x": None, "x/y": None, "x/y/s": "../f"},
        warns="a: left out, because it is a link out",
    ),
    "two names of a symlink when none are wanted": Case(
        symlink("s", "f") + hard_link("a", "s") + END, warns="a: left out", symlinks=False
    ),
    "two names of a FIFO": Case(
        member("p", kind=tarfile.FIFOTYPE) + hard_link("a", "p") + END, warns="a: left out, because p is no file"
    ),
    "hard link to a directory": Case(
        directory("d") + hard_link("a", "d") + END, files={"d": None}, warns="a: left out"
    ),
    "hard link to nothing": Case(hard_link("a", "b") + END, warns="a: left out, because b is no file of this copy"),
    "hard link to itself": Case(
        member("a", b"1") + hard_link("a", "a") + END, files={"a": b"1"}
    ),
    "hard link, then written through": Case(
        member("a", b"1") + hard_link("b", "a") + member("b", b"2") + END, files={"a": b"1", "b": b"2"}
    ),
    "a file through a symlink that was here before": Case(
        member("way/x", b"1") + END, UnsafeArchive, "is a symbolic link"
    ),
    "a file in place of a symlink that was here before": Case(
        member("way", b"1") + END, files={"way": b"1"}
    ),
    "a directory in place of a symlink that was here before": Case(
        directory("way") + END, UnsafeArchive, "is a symbolic link"
    ),
    "devices and a FIFO": Case(
        member("null", kind=tarfile.CHRTYPE) + member("disk", kind=tarfile.BLKTYPE)
        + member("fifo", kind=tarfile.FIFOTYPE) + member("b", b"1") + END,
        files={"b": b"1"},
        warns="null: left out, because it is a character device",
    ),
    "an unknown type with contents": Case(
        member("odd", b"x" * 5000, kind=b"Z") + member("b", b"1") + END, files={"b": b"1"}, warns="unknown type"
    ),
    "setuid, setgid and sticky": Case(member("a", b"1", mode=0o7777) + END, files={"a": b"1"}),
    "repeated entries": Case(
        member("a", b"1") + member("a", b"22") + END, files={"a": b"22"}
    ),
    "a file, then a directory of its name": Case(
        member("a", b"1") + directory("a") + END, CopyError, "/a' cannot be written"
    ),
    "a file, then a file below it": Case(
        member("a", b"1") + member("a/b", b"1") + END, CopyError, "/a/b' cannot be written"
    ),
    "a directory, then a file of its name": Case(
        directory("a") + member("a", b"1") + END, CopyError, "/a' cannot be written"
    ),
    "a name that is too long here": Case(
        member("n" * 300, b"1") + END, CopyError, "cannot be written here"
    ),
    "a very deep tree": Case(member("d/" * 400 + "x", b"1") + END, files={"d": ...}),
    "a path that is too long for the system": Case(member(f"d/{'p' * 99}/" * 99 + "x", b"1") + END, files={"d": ...}),
    "too many members": Case(
        b"".join(member(str(n)) for n in range(11)) + END, UnsafeArchive, "max_files=", limits=Limits(10, 1 << 40)
    ),
    "more bytes than allowed": Case(
        member("a", b"x" * 600) + member("b", b"x" * 600) + END, UnsafeArchive, "max_bytes=", limits=Limits(10, 1000)
    ),
    "a sparse bomb": Case(old_sparse("a", 0, 1, 1 << 50) + END, UnsafeArchive, "max_bytes="),
    "a sparse file that runs backwards": Case(
        old_sparse("a", -4096, 10, 100) + END, files={"a": bytes(100)}
    ),
    "a size below zero": Case(
        field(member("a"), 124, b"\xff" * 11 + b"\0") + END, CopyError
    ),
    "a pax size below zero": Case(
        member("a", b"1", form=tarfile.PAX_FORMAT, pax={"size": "-1024"}) + END, CopyError
    ),
    "a pax header that never ends": Case(
        member("a", kind=tarfile.XHDTYPE, size=1 << 40) + b"9" * (3 << 20), UnsafeArchive, "headers without end"
    ),
    "digits that old tarfiles search for hours": Case(
        member("a", b"1" * 900_000, kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "digits in a row"
    ),
    "pax records that overlap": Case(
        member("a", overlapping(600), kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "pax records that overlap, for all that follows": Case(
        member("a", overlapping(5000), kind=tarfile.XGLTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "pax records that overlap, of Solaris": Case(
        member("a", overlapping(20), kind=b"X") + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "a pax record that goes on behind the header": Case(
        member("a", b"9999 a=b\n", kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "a pax record that is too short": Case(
        member("a", b"4 a=\n", kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "a pax record without a keyword": Case(
        member("a", b"6 ==a\n", kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "a pax record without its length": Case(
        member("a", b"path=b\n", kind=tarfile.XHDTYPE) + member("a", b"1") + END, UnsafeArchive, "no list of"
    ),
    "pax records that look like others": Case(
        member(
            "a",
            record("comment", b"5 01\n9 z=\n\n= =\0\xff\n12 path=evil\n")
            + record("hdrcharset", b"BINARY")
            + record("path", b"\xff=\n9 z=\n")
            + record("comment", b""),
            kind=tarfile.XHDTYPE,
        )
        + member("a", b"1") + END,
        files={"\udcff=\n9 z=\n": b"1"},
    ),
    "a long name behind a pax header": Case(
        member("a", record("comment", b"x" * 600), kind=tarfile.XHDTYPE) + member("x" * 200, b"1") + END,
        files={"x" * 200: b"1"},
    ),
    "a pax header of nothing": Case(
        member("a", kind=tarfile.XHDTYPE) + member("x" * 200, b"1") + END, files={"x" * 200: b"1"}
    ),
    "headers for all that follows without end": Case(
        b"".join(shared(f"key{n}", 400_000) + member(str(n), b"1") for n in range(9)) + END,
        UnsafeArchive,
        "headers without end",
    ),
    "pax headers upon pax headers": Case(
        member("a", b"6 a=b\n", kind=tarfile.XHDTYPE) * 17 + member("a", b"1") + END,
        UnsafeArchive,
        "more than 16 pax headers",
    ),
    "a long name that never ends": Case(
        member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=1 << 40) + b"a" * (3 << 20),
        UnsafeArchive,
        "headers without end",
    ),
    "long names upon long names": Case(
        member("././@LongLink", b"a" * 512, kind=tarfile.GNUTYPE_LONGNAME) * 900 + member("a", b"1") + END, CopyError
    ),
    "a sparse map that never ends": Case(
        field(old_sparse("a", 0, 0, 10), 482, b"\x01") + (b"\x01" * BLOCK) * 6000, CopyError
    ),
    "a sparse map that begins below zero": Case(
        old_sparse("a", 10 - (3 << 20), 3 << 20, 10) + END, UnsafeArchive, "sparse file without end"
    ),
    "an unknown type with more than may come": Case(
        member("a", b"x" * 6000, kind=b"Z") + END, UnsafeArchive, "max_bytes=", limits=Limits(10, 1000)
    ),
    "a name that could not be removed again": Case(
        member("a/" * 501 + "a", b"1") + END, UnsafeArchive, "more than 500 parts"
    ),
    "zeros that never end": Case(bytes(8 << 20), UnsafeArchive, "goes on behind its end"),
    "something behind the end": Case(
        member("a", b"1") + END + member("b", b"1") + END, CopyError, "no whole archive"
    ),
    "a wrong checksum": Case(
        member("a", b"1") + member("b", b"1")[:100] + b"junk" + member("b", b"1")[104:] + END,
        CopyError,
        "no whole archive",
    ),
    "no archive": Case(b"tar: command not found\n" * 100, CopyError, "is no archive"),
    "a time that nobody knows": Case(
        member("a", b"1", form=tarfile.PAX_FORMAT, pax={"mtime": "1e300"})
        + member("b", b"1", form=tarfile.PAX_FORMAT, pax={"mtime": "nan"}) + END,
        files={"a": b"1", "b": b"1"},
    ),
    "newlines and bytes that are no text": Case(
        member("a\nb\udcff\udcfe", b"1") + END, files={"a\nb\udcff\udcfe": b"1"}
    ),
    "control characters of a terminal": Case(
        member("\x1b[2Ja", b"1") + END, files={"\x1b[2Ja": b"1"}
    ),
}  # fmt: skip


def reader(data: bytes) -> Callable[[int], bytes]:
    """Return the bytes as a connection would: some of them."""
    stream = io.BytesIO(data)
    return lambda size: stream.read(min(size, 7000))


def tree(root: Path) -> dict[str, object]:
    """Return what is below a directory: contents, targets of links, None for directories."""
    found: dict[str, object] = {}
    for base, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(base, name)
            key = os.path.relpath(path, root)
            if len(path) > 4000:
                continue  # only step by step
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                found[key] = os.readlink(path)
            elif stat.S_ISDIR(info.st_mode):
                found[key] = None
            else:
                assert stat.S_ISREG(info.st_mode)
                assert not info.st_mode & 0o7000
                found[key] = Path(path).read_bytes()
    return found


class Ground(NamedTuple):
    """A destination that has things in it already, and what is beside it."""

    inside: Path
    outside: Path

    def around(self) -> dict[str, object]:
        everything = tree(self.inside.parent)
        return {key: value for key, value in everything.items() if not key.startswith("in/")}


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    inside, outside = tmp_path / "in", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / OUTSIDE).write_text("do not touch")
    (inside / "mine").write_text("mine")
    (inside / "way").symlink_to("../outside")
    yield Ground(inside, outside)
    # Python's own removal is no match for a tree that is so deep.
    subprocess.run(["rm", "-rf", str(inside)], check=True)


def land(root: Path, data: bytes, *, limits: Limits = UNLIMITED, symlinks: bool = False) -> Arrival:
    with Landing(str(root)) as landing:
        arrival = Arrival(landing, limits=limits, symlinks=symlinks)
        arrival.take(TarReader(reader(data)).entries())
    return arrival


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_write_nothing_outside_r45(name: str, ground: Ground) -> None:
    case, around, before = HOSTILE[name], ground.around(), tree(ground.inside)
    if case.error is not None:
        with pytest.raises(case.error, match=case.says or None) as caught:
            land(ground.inside, case.data, limits=case.limits, symlinks=case.symlinks)
        assert isinstance(caught.value, CopyError)
        left = [key for key in tree(ground.inside) if ".kubews-" in key]
        assert left == []
    else:
        arrival = land(ground.inside, case.data, limits=case.limits, symlinks=case.symlinks)
        assert case.warns in "\n".join(arrival.warnings)
        if case.files == {"d": ...}:
            assert (ground.inside / "d").is_dir()
        else:
            assert tree(ground.inside) == {**before, **case.files}
    assert ground.around() == around


# Without what was here before; and in place of the whole a file is one that has its name.
NEW = [name for name in HOSTILE if "here before" not in name and "of the whole" not in name]


@pytest.mark.parametrize("name", NEW)
def test_nor_do_they_where_nothing_is_yet_r45(name: str, ground: Ground) -> None:
    """A directory that is new here has a temporary name at first, and its files have their own at once."""
    case, around, before = HOSTILE[name], ground.around(), tree(ground.inside)

    def receive() -> None:
        with Landing(str(ground.inside), called="new") as landing:
            arrival = Arrival(
                landing, replaced_by=("new",), limits=case.limits, symlinks=case.symlinks
            )
            arrival.take(TarReader(reader(case.data)).entries())

    if case.error is not None:
        with pytest.raises(case.error, match=case.says.replace("'a", "'new/a") or None):
            receive()
    else:
        receive()
    now = tree(ground.inside)
    if case.error is None and case.files != {"d": ...}:
        brought = {os.path.join("new", path): it for path, it in case.files.items()}
        assert now == {**before, "new": None, **brought}
    assert {path: it for path, it in now.items() if not path.startswith("new")} == before
    assert not [path for path in now if ".kubews-" in path]
    assert ground.around() == around


def test_the_corpus_has_at_least_twenty_r45() -> None:
    assert len(HOSTILE) >= 50


@pytest.mark.parametrize("whole", [True, False])
def test_overlapping_records_take_no_memory_r45(whole: bool) -> None:
    """Each would have the rest for its keyword: older tarfiles took 1.9 GB for a header of 140 KB."""
    data = member("a", overlapping(20_000), kind=tarfile.XHDTYPE)
    data = data + member("a") + END if whole else data[:-1]
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeArchive if whole else TruncatedTransfer):
            list(TarReader(reader(data)).entries())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


HONEST = (
    directory("./")
    + directory("./sub", 0o500)
    + member("./sub/a", b"one\n", mode=0o751)
    + member("./empty", mode=0o600)
    + member("./zeros", bytes(100_000))
    + hard_link("./again", "./sub/a")
    + symlink("./sub/link", "../empty")
    + member("./" + "long" * 60, b"x" * 70_000)
)


def test_an_honest_archive_arrives_with_modes_times_and_links_r45(tmp_path: Path) -> None:
    land(tmp_path, HONEST + END + bytes(8192), symlinks=True)
    sub = tmp_path / "sub"
    assert (sub / "a").read_bytes() == (tmp_path / "again").read_bytes() == b"one\n"
    assert (sub / "a").stat().st_ino == (tmp_path / "again").stat().st_ino
    assert stat.S_IMODE((sub / "a").stat().st_mode) == 0o751
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o600
    assert stat.S_IMODE(sub.stat().st_mode) == 0o500
    assert {path.stat().st_mtime for path in (sub, sub / "a")} == {1_700_000_000}
    assert os.readlink(sub / "link") == "../empty"
    zeros = (tmp_path / "zeros").stat()
    assert (zeros.st_size, zeros.st_blocks) == (100_000, 0)
    assert (tmp_path / ("long" * 60)).read_bytes() == b"x" * 70_000
    sub.chmod(0o700)


def test_a_cut_is_noticed_at_every_byte_r8_r46(ground: Ground) -> None:
    """Whatever is missing, the end-of-archive blocks included, is noticed; and no file is there by half."""
    data = member("a", b"one") + member("b", b"x" * 1500) + member("zeros", bytes(2048))
    data += member("c", b"two", form=tarfile.PAX_FORMAT, pax={"comment": "none " * 200})
    whole = {"a": b"one", "b": b"x" * 1500, "zeros": bytes(2048), "c": b"two"}
    before = tree(ground.inside)
    archive = data + END
    for size in [*range(0, len(archive), 97), *range(0, len(archive), BLOCK), len(archive) - 1]:
        with pytest.raises(TruncatedTransfer):
            land(ground.inside, archive[:size])
        now = tree(ground.inside)
        assert now.items() <= {**before, **whole}.items()
        for name in whole:
            (ground.inside / name).unlink(missing_ok=True)
    land(ground.inside, archive)
    assert tree(ground.inside) == {**before, **whole}


def test_only_what_was_asked_for_may_come_r45(tmp_path: Path) -> None:
    data = directory("./src") + member("./src/a", b"1") + END
    with Landing(str(tmp_path)) as landing:
        arrival = Arrival(landing, prefix=("src",), replaced_by=("dst",))
        arrival.take(TarReader(reader(data)).entries())
        assert tree(tmp_path) == {"dst": None, "dst/a": b"1"}
        with pytest.raises(UnsafeArchive, match="not below 'other'"):
            Arrival(landing, prefix=("other",)).take(TarReader(reader(data)).entries())
        with pytest.raises(UnsafeArchive, match="in place of the whole"):
            Arrival(landing, prefix=("src",)).take(
                TarReader(reader(member("src", b"1") + END)).entries()
            )


@pytest.mark.parametrize(
    ("target", "depth", "stays"),
    [
        ("a", 0, True),
        ("../a", 1, True),
        ("../../a", 1, False),
        ("..", 0, False),
        ("a/..", 5, False),
        ("./.././a", 1, True),
        ("/a", 9, False),
        ("", 0, False),
        ("a", -1, False),
    ],
)
def test_which_links_stay_within_the_copy_r45(target: str, depth: int, stays: bool) -> None:
    assert stays_below(target, depth) is stays


@pytest.mark.parametrize(
    "program",
    [
        ["tar", "--format=gnu"],
        ["tar", "--format=posix"],
        ["tar", "--format=gnu", "-S"],
        ["busybox", "tar"],
    ],
    ids=" ".join,
)
def test_archives_of_real_tars_r44(program: list[str], tmp_path: Path) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"there is no {program[0]} on this machine")
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a b\nc").mkdir(parents=True)
    target.mkdir()
    (source / "a b\nc" / ("n" * 200)).write_bytes(b"long")
    with open(source / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"x" * 5000)
        file.truncate(6 << 20)
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_bytes(b"odd")
    os.link(source / "sparse", source / "twice")
    done = subprocess.run(
        [*program, "-c", "-f", "-", "-C", str(source), "."], capture_output=True, check=True
    )
    arrival = land(target, done.stdout)
    assert tree(target) == tree(source)
    assert arrival.warnings == []
    assert (target / "sparse").stat().st_blocks < 1000


ODD = [
    "a=b",
    "=",
    "12 path=a\n",
    "5 01\n9 z=\n",
    "a\n\n",
    "\udcff\udcfe=\n",
    "\u00fc" * 100,
    "x" * 250,
    "9" * 250,
]


@pytest.mark.parametrize("sparse", ["0.0", "0.1", "1.0"])
def test_pax_headers_of_gnu_tar_with_odd_names_r44(sparse: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    for name in ODD:
        (source / name).mkdir(parents=True)
        (source / name / ODD[-2]).write_text(name, errors="surrogateescape")
        (source / name / "link").symlink_to(name)
        with open(source / name / "sparse", "wb") as file:
            for n in range(9):
                file.seek(n << 16)
                file.write(name.encode(errors="surrogateescape"))
    program = [
        "tar",
        "--format=pax",
        "-S",
        f"--sparse-version={sparse}",
        "--pax-option=comment:=a=b",
        "-cf-",
    ]
    done = subprocess.run([*program, "-C", str(source), "."], capture_output=True)
    if b"unrecognized" in done.stderr:
        pytest.skip("the tar of this machine is not GNU's")
    assert done.returncode == 0, done.stderr
    arrival = land(target, done.stdout, symlinks=True)
    assert tree(target) == tree(source)
    assert arrival.warnings == []
