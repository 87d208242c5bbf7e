"""What a type checker says of a user's code: mypy in strict mode over small programs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support import seconds

GOOD = """
import subprocess
import kubews
from kubews import PIPE

pod = kubews.Client().pod("web-0")
reveal_type(pod.run(["ls"], capture_output=True))
reveal_type(pod.run("ls", shell=True, text=True, check=True))
reveal_type(pod.check_output(["sort"], input=b"b"))
reveal_type(pod.check_output(["sort"], input="b", encoding="latin-1"))
reveal_type(kubews.run(["ls"], pod="web-0", namespace="shop", text=True, stdout=PIPE))
reveal_type(kubews.check_output(["ls"], pod=pod, timeout=3))
maybe: bool = pod.name == "web-0"
reveal_type(pod.run(["ls"], text=maybe))
reveal_type(pod.call(["ls"]))
with pod.popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
    process.stdin.write(b"x")
    reveal_type(process.wait())
reveal_type(pod.logs(tail=3).read())
reveal_type(pod.logs(follow=True, text=True).readline(timeout=3))
for line in pod.logs(encoding="latin-1"):
    reveal_type(line)
"""

REVEALED = [
    "subprocess.CompletedProcess[bytes]",
    "subprocess.CompletedProcess[str]",
    "bytes",
    "str",
    "subprocess.CompletedProcess[str]",
    "bytes",
    "subprocess.CompletedProcess[Any]",
    "int",
    "int",
    "bytes",
    "str",
    "str",
]

BAD = """
import kubews

pod = kubews.Client().pod("web-0")
pod.run(["ls"], pod="other")
pod.run(["ls"], preexec_fn=print)
kubews.run(["ls"])
kubews.call(["ls"], pod=3)
pod.logs(lines=3)
"""


def test_mypy_knows_the_types_of_results_and_finds_mistakes(tmp_path: Path) -> None:
    """Types are text or bytes as asked; mistakes are found before the program runs."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    root = Path(__file__).parent.parent
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--no-color-output"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "good.py", "bad.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(root), "PATH": ""},
        timeout=seconds(120),
    )
    assert not done.stderr
    types = [name.replace("builtins.", "") for name in re.findall(r'type is "(.*)"', done.stdout)]
    assert types == REVEALED, done.stdout
    found = re.findall(r"^(\w+)\.py:(\d+): error:", done.stdout, re.MULTILINE)
    assert sorted(set(found)) == [("bad", str(line)) for line in (5, 6, 7, 8, 9)], done.stdout
