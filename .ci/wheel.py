"""Use the installed wheel, in an environment that has nothing else, against a LocalCluster of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from kubews.testing import LocalCluster

SCRIPT = """
import importlib.metadata, sys
import kubews
assert "site-packages" in kubews.__file__, kubews.__file__
installed = {dist.name.lower() for dist in importlib.metadata.distributions()}
extra = installed - {"kubews", "websocket-client", "pyyaml", "certifi", "pip", "setuptools", "wheel"}
assert not extra, extra
done = kubews.run(["sort"], pod="web-0", input="b\\na\\n", text=True, capture_output=True)
assert (done.returncode, done.stdout) == (0, "a\\nb\\n"), done
assert kubews.call("exit 3", shell=True, pod="web-0") == 3
try:
    import kubews.testing
    kubews.testing.LocalCluster
except ImportError as exc:
    assert "kubews[testing]" in str(exc), exc
else:
    sys.exit("kubews.testing works without its packages?")
print("the wheel", kubews.__version__, "runs commands with", ", ".join(sorted(installed)))
"""

with LocalCluster() as cluster, tempfile.TemporaryDirectory() as elsewhere:
    cluster.add_pod("web-0")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": ""}
    subprocess.run(
        [sys.argv[1], "-X", "dev", "-W", "error", "-c", SCRIPT],
        check=True,
        timeout=60,
        cwd=elsewhere,
        env=environment,
    )
