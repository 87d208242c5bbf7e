"""kubews cp, and kubectl cp beside it: each reads what the other has copied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from clusters import AnyCluster
from programs import KUBECTL, KUBEWS, PROGRAMS, Commands

from kubews import Client
from kubews.cli.cp import Spec, parse_spec
from kubews.errors import ConfigError
from kubews.testing import Faults, LocalCluster

pytestmark = pytest.mark.half_close


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("file", Spec("", "", "file")),
        ("/dir/file", Spec("", "", "/dir/file")),
        ("pod:file", Spec("", "pod", "file")),
        ("pod:/dir/a:b", Spec("", "pod", "/dir/a:b")),
        ("ns/pod:/file", Spec("ns", "pod", "/file")),
        ("pod:dir\\file", Spec("", "pod", "dir/file")),
        ("pod:", Spec("", "pod", "")),
    ],
)
def test_what_names_a_file(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize("text", [":file", "a/b/c:file", "/a/b/c:d"])
def test_what_names_none(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"must match the canonical format: \[\[namespace/\]pod:\]"
    ):
        parse_spec(text)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub dir" / "empty").mkdir(parents=True)
    (root / "sub dir" / "file").write_bytes(os.urandom(70_000))
    (root / "-x \u20ac").write_bytes(b"")
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o755)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    ("up", "down"), [("kubews", "kubews"), ("kubews", "kubectl"), ("kubectl", "kubews")]
)
def test_each_reads_the_copies_of_the_other_r44(
    up: str, down: str, commands: Commands, client: Client, source: Path, tmp_path: Path
) -> None:
    named = f"{client.pod('web-0').namespace}/web-0"
    place = f"/tmp/kubews-{os.getpid()}-{up}-{down}"
    try:
        for program, names in (
            (up, (str(source), f"{named}:{place}")),
            (down, (f"{named}:{place}", str(tmp_path / "back"))),
            (up, (str(source / "run"), f"web-0:{place}")),  # into it
            (down, (f"web-0:{place}/run", str(tmp_path / "one"), "-c", "app", "--retries=2")),
            (up, ("--no-preserve", str(source / "sub dir"), f"web-0:{place}/sub dir")),
            (down, (f"web-0:{place}/sub dir", str(tmp_path / "two"))),
        ):
            done = commands.run("cp", *names, program=PROGRAMS[program])
            # kubectl prints what tar has to say of names that begin with a slash.
            assert (done.out, done.err, done.code) == (done.out * (program == "kubectl"), [], 0), (
                names
            )
        assert contents(tmp_path / "back") == contents(source)
        assert (tmp_path / "one").read_bytes() == b"#!/bin/sh\n"
        assert (tmp_path / "two" / "sub dir" / "file").exists()
    finally:
        commands.run("exec", "web-0", "--", "rm", "-rf", place)


@pytest.mark.parametrize(
    "line",
    [
        "cp",
        "cp one",
        "cp one two",
        "cp a:b c:d",
        "cp web-0: here",
        "cp :x here",
        "cp a/b/c:x here",
        "cp /no/such/file web-0:/tmp/x",
        "cp no-such-pod:/etc/hosts x",
    ],
)
def test_what_kubectl_refuses_is_refused(line: str, commands: Commands) -> None:
    assert KUBECTL
    theirs, ours = (commands.run(*line.split(), program=each) for each in ([KUBECTL], KUBEWS))
    assert (ours.out, ours.err[:1], ours.code) == (b"", ["error"], 1)
    assert theirs.code == 1


def test_warnings_and_errors_are_said(
    cluster: AnyCluster, commands: Commands, tmp_path: Path
) -> None:
    place = f"/tmp/kubews-{os.getpid()}-said"
    script = f"mkdir {place} && ln -s /etc/passwd {place}/link && echo x >{place}/f"
    commands.run("exec", "web-0", "--", "sh", "-c", script)
    try:
        done = commands.run("cp", f"web-0:{place}", str(tmp_path / "d"))
        assert done.code == 0
        assert done.err == ["warning: ./link: left out, because it is a symbolic link"]
        assert commands.run("cp", f"web-0:{place}/none", str(tmp_path / "d")).err == ["error"]
    finally:
        commands.run("exec", "web-0", "--", "rm", "-rf", place)


@pytest.mark.parametrize("program", [KUBEWS, [KUBECTL]], ids=["kubews", "kubectl"])
@pytest.mark.parametrize("dot", [".", "sub/."])
def test_what_is_in_dot_goes_into_the_directory(
    dot: str,
    program: Sequence[str],
    commands: Commands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"/tmp/kubews-{os.getpid()}-dot"
    (tmp_path / "sub").mkdir()
    (tmp_path / dot / "f").write_text("f")
    (tmp_path / dot / "to nothing").symlink_to("nothing")
    monkeypatch.chdir(tmp_path)
    commands.run("exec", "web-0", "--", "mkdir", place)
    try:
        assert commands.run("cp", dot, f"web-0:{place}", program=program).code == 0
        assert commands.run("exec", "web-0", "--", "cat", f"{place}/f").out == b"f"
        link = commands.run("exec", "web-0", "--", "readlink", f"{place}/to nothing")
        assert link.out == b"nothing\n"
    finally:
        commands.run("exec", "web-0", "--", "rm", "-rf", place)


def test_resume_goes_on_where_the_last_command_was_cut_r47(
    local: LocalCluster, commands: Commands, tmp_path: Path
) -> None:
    place = f"/tmp/kubews-{os.getpid()}-resume"
    (tmp_path / "source").write_bytes(os.urandom(500_000))
    names = ("cp", "--resume", "--retries=0", f"web-0:{place}", str(tmp_path / "f"))
    try:
        commands.run("cp", str(tmp_path / "source"), f"web-0:{place}")
        local.next_faults(Faults(match="command=500000", drop_after=300_000))
        assert commands.run(*names).err == ["error"]
        assert len(list(tmp_path.glob(".kubews-*"))) == 1
        assert (commands.run(*names).code, list(tmp_path.glob(".kubews-*"))) == (0, [])
        assert (tmp_path / "f").read_bytes() == (tmp_path / "source").read_bytes()
    finally:
        commands.run("exec", "web-0", "--", "rm", "-f", place)
