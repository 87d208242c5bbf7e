"""Every example and every block of the README runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import seconds

import kubews

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

SAYS = {
    "quickstart.py": r"returncode 3, stdout 'hello\\n', stderr 'oops\\n'.*"
    r"\['apple', 'fig', 'pear'\].*100,000,000 bytes.*ExecError.*All of it worked\.",
    "streaming.py": r"line 1\nline 2\nline 3\nexit code None\n",
    "backup.py": r"\['data', 'data/table'\]",
    "errors.py": r"exit code 7\ncould not start: InternalError\nrefused: 403\nlost after ",
}


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *args],
        capture_output=True,
        text=True,
        timeout=seconds(60),
        cwd=env.pop("CWD", ROOT),
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_do_what_they_say(path: Path) -> None:
    done = python(str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(SAYS[path.name], done.stdout, re.DOTALL), done.stdout


@pytest.mark.half_close
def test_the_quickstart_works_on_a_cluster_of_ones_own(cluster) -> None:
    path = str(ROOT / "examples" / "quickstart.py")
    config = str(cluster.kubeconfig)
    for arguments in (("--kubeconfig", config), ("--context", "kubews")):
        assert python(path, *arguments).returncode == 2
    loaded = kubews.Config.load(config)
    done = python(path, "--context", str(loaded.context), "--pod", "web-0", KUBECONFIG=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Pod web-0 at {loaded.cluster.server}" in done.stdout
    assert done.stdout.endswith("All of it worked.\n")
    done = python(path, "--pod", "nope", "--kubeconfig", config)
    assert done.returncode == 1
    assert 'pods "nope" not found' in done.stderr


@pytest.mark.half_close
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_of_the_readme_run(number: int, cluster, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    test_file = "def test_" in BLOCKS[number]
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "CWD": str(tmp_path)}
    done = python(*(arguments if test_file else [str(script)]), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in re.findall(r"# -> (.*)", BLOCKS[number]):
        assert line in done.stdout
