"""Fetch a page from a web server in a pod, through the API server: no port-forward, no address of the pod."""

from __future__ import annotations

import argparse
import shutil
import sys

import kubews

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("target", help="such as web-0, deploy/web or svc/web")
parser.add_argument("path", nargs="?", default="/")
parser.add_argument("--port", help="number or name; by default the first that the pod declares")
arguments = parser.parse_args()

with kubews.Client() as client:
    pod = client.pod(arguments.target)
    with pod.request("GET", arguments.path, port=arguments.port, timeout=30) as answer:
        print(answer.status, answer.reason, answer.headers["content-type"], file=sys.stderr)
        shutil.copyfileobj(answer, sys.stdout.buffer)
sys.exit(0 if answer.status < 400 else 1)
