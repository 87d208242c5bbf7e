"""Use redis in a pod with redis-py, without a local port.

python examples/redis_in_pod.py --pod redis-0 --port 6379 [--context CONTEXT]
"""

import argparse

import redis

import kubews

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--pod", required=True)
parser.add_argument("--port", type=int, default=6379)
parser.add_argument("--context")
options = parser.parse_args()

with kubews.Client(kubews.Config.load(context=options.context)) as client:
    pod = client.pod(options.pod)

    class PodConnection(redis.Connection):
        """A connection of redis-py that goes into the pod."""

        def _connect(self):
            return pod.connect(options.port, timeout=10)

    with redis.Redis(connection_pool=redis.ConnectionPool(connection_class=PodConnection)) as db:
        db.set("greeting", "hello")
        print(db.get("greeting").decode(), "from", options.pod)
        db.connection_pool.disconnect()
