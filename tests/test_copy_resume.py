"""resume=True: a later call goes on with what an earlier one has left (R-47)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from podprograms import PROGRAMS, Programs, directory_of, nothing_unfinished
from support import eventually

from kubews import Pod
from kubews.errors import CopyError, TruncatedTransfer
from kubews.files.newfile import Arriving
from kubews.files.parts import part_of
from kubews.files.places import Place
from kubews.testing import Faults, LocalCluster

SIZE = 1_000_000
CHECKSUMS = {"web-0": "cksum", "busybox": "sha256"}  # the quickest that each has


def interrupt_after(size: int) -> Callable[[int, int | None], None]:
    def interrupt(done: int, total: int | None) -> None:
        if done >= size:
            raise KeyboardInterrupt

    return interrupt


def unfinished(folder: Path, size: int) -> bool:
    """Tell whether there is one part, of at least so many bytes."""
    found = list(folder.glob(".kubews-*"))
    return len(found) == 1 and found[0].stat().st_size >= size


@pytest.fixture
def seen() -> list[int]:
    """The numbers of bytes that progress was told."""
    return []


@pytest.fixture
def note(seen: list[int]) -> Callable[[int, int | None], None]:
    return lambda done, total: seen.append(done)


def test_what_was_cut_on_its_way_here_is_gone_on_with_by_the_next_call_r47(
    each: Pod,
    place: str,
    tmp_path: Path,
    seen: list[int],
    note: Callable[[int, int | None], None],
) -> None:
    data = os.urandom(SIZE // 2) + bytes(300_000) + os.urandom(SIZE)
    (tmp_path / "source").write_bytes(data)
    each.copy_to(tmp_path / "source", place)
    (tmp_path / "here").mkdir()
    target = tmp_path / "here" / "f"
    target.write_text("as before")
    for size in (SIZE // 2, SIZE * 3 // 4, SIZE):  # once within zeros, which are a hole at first
        with pytest.raises(KeyboardInterrupt):
            each.copy_from(place, target, resume=True, progress=interrupt_after(size))
        assert unfinished(target.parent, size - 70_000)
        assert target.read_text() == "as before"
    copied = each.copy_from(place, target, resume=True, progress=note)
    assert seen[0] > SIZE
    assert (copied.size, copied.verified) == (len(data), CHECKSUMS[each.name])
    assert target.read_bytes() == data
    assert os.listdir(target.parent) == ["f"]


def test_what_was_cut_on_its_way_there_is_gone_on_with_by_the_next_call_r47(
    local: LocalCluster,
    each: Pod,
    place: str,
    tmp_path: Path,
    seen: list[int],
    note: Callable[[int, int | None], None],
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    source.chmod(0o640)
    there = directory_of(each)
    (there / place).write_text("as before")
    for size in (200_000, 400_000):
        local.next_faults(Faults(match="umask%20077", drop_after_stdin=size))
        with pytest.raises(TruncatedTransfer):
            each.copy_to(source, place, resume=True, retries=0)
        assert eventually(lambda size=size: unfinished(there, size - 100_000))
        assert (there / place).read_text() == "as before"
    copied = each.copy_to(source, place, resume=True, progress=note)
    assert seen[0] > 300_000
    assert (copied.size, copied.verified) == (SIZE, CHECKSUMS[each.name])
    assert (there / place).read_bytes() == source.read_bytes()
    assert (there / place).stat().st_mode & 0o777 == 0o640
    assert nothing_unfinished(there)


def test_servers_that_cannot_end_an_input_go_on_too_r47(
    old_pod: Pod, place: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(os.urandom(SIZE))

    def there() -> set[bytes]:
        return set(old_pod.check_output(["ls", "-A"]).splitlines())

    before = there()
    with pytest.raises(KeyboardInterrupt):
        old_pod.copy_to(tmp_path / "f", place, resume=True, progress=interrupt_after(600_000))
    assert there() - before
    old_pod.copy_to(tmp_path / "f", place, resume=True)
    assert old_pod.check_output(["cat", place]) == (tmp_path / "f").read_bytes()
    assert there() - before == {place.encode()}


def both_ways(
    pod: Pod, place: str, tmp_path: Path
) -> Iterator[tuple[Callable[..., object], Path, Path]]:
    """Yield a copy each way, with its source, and the directory where its target is."""
    there, here = directory_of(pod), tmp_path / "here"
    here.mkdir()
    source = tmp_path / "source"
    yield (
        lambda **wishes: pod.copy_to(source, f"{place}-to", **wishes),
        source,
        there / f"{place}-to",
    )
    source = there / place
    yield lambda **wishes: pod.copy_from(place, here / "f", **wishes), source, here / "f"


def test_a_source_that_has_changed_is_copied_from_the_beginning_r46(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    for copy, source, target in both_ways(pod, place, tmp_path):
        for data in (os.urandom(SIZE), os.urandom(SIZE - 1)):
            source.write_bytes(data)
            with pytest.raises(KeyboardInterrupt):
                copy(resume=True, progress=interrupt_after(600_000))
            assert eventually(lambda folder=target.parent: unfinished(folder, 500_000))
        source.write_bytes(b"short")
        copy(resume=True)
        assert target.read_bytes() == b"short"
        assert nothing_unfinished(target.parent)


def test_a_part_that_is_damaged_is_refused_and_forgotten_r46(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    for copy, source, target in both_ways(pod, place, tmp_path):
        source.write_bytes(os.urandom(SIZE))
        with pytest.raises(KeyboardInterrupt):
            copy(resume=True, progress=interrupt_after(600_000))
        assert eventually(lambda folder=target.parent: unfinished(folder, 500_000))
        [part] = target.parent.glob(".kubews-*")
        with part.open("r+b") as file:
            file.write(b"damaged")
        with pytest.raises(CopyError, match="another cksum"):
            copy(resume=True)
        assert not target.exists()
        assert nothing_unfinished(target.parent)
        copy(resume=True)
        assert target.read_bytes() == source.read_bytes()


def test_only_what_can_be_right_is_left_r46(programs: Programs, tmp_path: Path) -> None:
    pod = programs(PROGRAMS, cat='head -c 300000; echo "cat: No space left on device" >&2; exit 1')
    (tmp_path / "f").write_bytes(os.urandom(SIZE))
    (directory_of(pod) / "g").write_bytes(os.urandom(SIZE))
    (tmp_path / "here").mkdir()
    with pytest.raises(CopyError, match="No space left"):
        pod.copy_to(tmp_path / "f", "f", resume=True)
    with pytest.raises(CopyError, match="No space left"):
        pod.copy_from("g", tmp_path / "here" / "g", resume=True)
    with pytest.raises(CopyError, match="max_bytes"):
        pod.copy_from("g", tmp_path / "here" / "g", resume=True, max_bytes=100)
    assert nothing_unfinished(directory_of(pod), tmp_path / "here")
    with pytest.raises(ValueError, match="files that have a path"):
        pod.copy_from("g", io.BytesIO(), resume=True)
    with pytest.raises(ValueError, match="files that have a path"):
        pod.copy_to(io.BytesIO(), "g", resume=True)


def test_two_copies_at_once_do_not_share_a_part_r22(
    local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    data = os.urandom(SIZE)
    (directory_of(pod) / place).write_bytes(data)
    others: list[object] = []

    def meanwhile(done: int, total: int | None) -> None:
        if not others:
            others.append(pod.copy_from(place, tmp_path / "f", resume=True))

    pod.copy_from(place, tmp_path / "f", resume=True, progress=meanwhile)
    assert others
    assert (tmp_path / "f").read_bytes() == data
    assert nothing_unfinished(tmp_path)


@pytest.mark.parametrize("kind", ["link", "hard link", "directory"])
def test_what_only_looks_like_a_part_is_not_written_to_r45(
    kind: str, local: LocalCluster, pod: Pod, place: str, tmp_path: Path
) -> None:
    (directory_of(pod) / place).write_bytes(os.urandom(SIZE))
    here = tmp_path / "here"
    here.mkdir()
    with pytest.raises(KeyboardInterrupt):
        pod.copy_from(place, here / "f", resume=True, progress=interrupt_after(600_000))
    [part] = here.glob(".kubews-*")
    part.unlink()
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    if kind == "link":
        part.symlink_to(precious)
    elif kind == "hard link":
        part.hardlink_to(precious)
    else:
        part.mkdir()
    pod.copy_from(place, here / "f", resume=True)
    assert (here / "f").stat().st_size == SIZE
    assert precious.read_bytes() == b"precious"


class Interrupting(bytearray):
    """Data behind whose last look, before it is written, the user presses Ctrl-C."""

    def count(self, *args: object) -> int:
        super().count(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt


def test_what_ctrl_c_kept_from_being_written_is_not_in_the_part_r46(tmp_path: Path) -> None:
    """Nor zeros in its place, where a hole was before."""
    block = 32 << 10
    whole = bytes(block) + b"\0" + b"x" * (block - 2) + b"\0"
    place, part = Place(str(tmp_path)), part_of("f", "src", 1)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            Arriving(place, "f", 0o600, None, part=part) as arriving,
        ):
            arriving.write(whole[:block])
            arriving.write(Interrupting(whole[block:]))
        with Arriving(place, "f", 0o600, None, part=part) as arriving:
            assert b"".join(arriving.so_far()) == whole[: arriving.size]
            assert arriving.size == block
            arriving.write(whole[block:])
            arriving.finish()
    finally:
        place.close()
    assert (tmp_path / "f").read_bytes() == whole
