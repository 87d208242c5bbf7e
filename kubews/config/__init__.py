"""What a kubeconfig or a pod's service account says: where the cluster is and who is asking.

``Config.load()`` and ``Config.in_cluster()`` give frozen values; ``Credentials`` turns the user of such
a value into headers and certificates, anew for every connection. Nothing here opens a socket.

Threads: values are immutable; ``Credentials`` may be shared by any number of threads.
"""

from __future__ import annotations

from kubews.config.cluster import Cluster, Config, User
from kubews.config.credentials import ClientCertificate, Credentials

__all__ = ["ClientCertificate", "Cluster", "Config", "Credentials", "User"]
