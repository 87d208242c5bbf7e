"""Copies of one large file and of many small ones to and from a pod of LocalCluster, against ``kubectl cp``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from measure import Benchmark, Row, Sample, Subject, per_second, rate, timed
from ways import Ways, kubectl_program

_SMALL = 1000  # bytes of a small file
_FLOOR = "kubectl cp"


def file(ways: Ways, size: int, scratch: str) -> Benchmark:
    """Copy one file of so many bytes, in both directions."""
    source = Path(scratch, "large")
    block = os.urandom(1 << 20)
    with open(source, "wb") as written:
        for _ in range(size >> 20):
            written.write(block)
    return _both(ways, "copy-file", f"a file of {size >> 20} MiB", source, rate(size))


def files(ways: Ways, count: int, scratch: str) -> Benchmark:
    """Copy a directory of so many small files, in both directions."""
    source = Path(scratch, "small")
    source.mkdir()
    for number in range(count):
        (source / str(number)).write_bytes(os.urandom(_SMALL))
    return _both(ways, "copy-files", f"{count} files", source, per_second(count))


def _both(
    ways: Ways, name: str, what: str, source: Path, show: Callable[[float], str]
) -> Benchmark:
    pod, number = ways.pod, 0
    environment = {**os.environ, "KUBECONFIG": ways.kubeconfig, "HOME": str(source.parent)}
    there = f"{name}-source"

    def kubectl(one: str, other: str) -> None:
        command = [kubectl_program(), "cp", one, other]
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def new() -> str:
        nonlocal number
        number += 1
        return f"{name}-{number}"

    def there_by(copy: Callable[[str], object]) -> Subject:
        def subject() -> Sample:
            target = new()
            with timed() as sample:
                copy(target)
            pod.run(["rm", "-rf", target], check=True)
            return sample

        return subject

    def here_by(copy: Callable[[Path], object]) -> Subject:
        def subject() -> Sample:
            target = source.parent / new()
            with timed() as sample:
                copy(target)
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()
            return sample

        return subject

    pod.copy_to(source, there)
    return Benchmark(
        name,
        {
            "to": there_by(lambda target: pod.copy_to(source, target)),
            f"{_FLOOR} to": there_by(lambda target: kubectl(str(source), f"web-0:{target}")),
            "from": here_by(lambda target: pod.copy_from(there, target)),
            f"{_FLOOR} from": here_by(lambda target: kubectl(f"web-0:{there}", str(target))),
        },
        [
            Row(f"copy {what} {way} a pod", way, f"{_FLOOR} {way}", "wall", show)
            for way in ("to", "from")
        ],
    )
