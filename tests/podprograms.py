"""Pods of a LocalCluster whose programs are chosen: those of this machine, and scripts in place of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kubews import Pod

#: Makes a pod of programs by name, and of scripts in place of programs.
Programs = Callable[..., Pod]

#: What a small image may have, without tar.
PROGRAMS = [
    *(
        "sh",
        "cat",
        "chmod",
        "cksum",
        "dd",
        "env",
        "head",
        "ln",
        "ls",
        "mkdir",
        "mv",
        "readlink",
        "rm",
    ),
    *("sha256sum", "sleep", "stat", "tail", "touch", "wc"),
]


def links_to(directory: Path, names: list[str], **others: str) -> Path:
    """Return a directory of programs: those of this machine, and scripts of one's own."""
    directory.mkdir(exist_ok=True)
    for name in names:
        found = shutil.which(name)
        assert found, name
        (directory / name).symlink_to(found)
    for name, text in others.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return directory


def nothing_unfinished(*folders: Path) -> bool:
    return not [name for folder in folders for name in os.listdir(folder) if ".kubews" in name]


def directory_of(pod: Pod) -> Path:
    """Return the directory that the pod's commands start in, which is one of this machine."""
    return Path(pod.check_output("pwd", shell=True, text=True).strip())
