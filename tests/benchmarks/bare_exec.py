"""What ``kubews exec`` does, with nothing around the libraries: a kubeconfig, TLS, one WebSocket, no checks.

What it takes is what no command line in Python over websocket-client can do without.
"""

import argparse
import base64
import os
import ssl
import sys
import tempfile
from urllib.parse import urlencode

import websocket
import yaml

parser = argparse.ArgumentParser()
parser.add_argument("pod")
parser.add_argument("command", nargs="+")
arguments = parser.parse_args()
with open(os.environ["KUBECONFIG"], encoding="utf-8") as file:
    document = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
context = ssl.create_default_context(cadata=authority)
header = {}
if "token" in user:
    header["Authorization"] = f"Bearer {user['token']}"
else:
    with tempfile.NamedTemporaryFile() as pem:
        for name in ("client-certificate-data", "client-key-data"):
            pem.write(base64.b64decode(user[name]))
        pem.flush()
        context.load_cert_chain(pem.name)
query = [*(("command", one) for one in arguments.command), ("stdout", "true"), ("stderr", "true")]
connection = websocket.create_connection(
    f"{cluster['server'].replace('https', 'wss', 1)}/api/v1/namespaces/default/pods/{arguments.pod}/exec"
    f"?{urlencode(query)}",
    header=header,
    subprotocols=["v5.channel.k8s.io"],
    sslopt={"context": context},
)
while True:
    opcode, payload = connection.recv_data()
    if opcode == websocket.ABNF.OPCODE_CLOSE or payload[:1] == b"\3":
        break
    if payload[:1] == b"\1":
        sys.stdout.buffer.write(payload[1:])
connection.close()
