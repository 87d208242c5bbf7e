"""What a kubeconfig or a pod's service account says: where the cluster is and who is asking.

``Config.load()``, ``Config.in_cluster()`` and ``Config.from_dict()`` give frozen values; ``Credentials``
turns the user of such a value into headers and certificates, anew for every connection; ``execplugin``
and ``oidc`` get what is issued for a time. Nothing here opens a socket.

Threads: values are immutable; ``Credentials`` may be shared by any number of threads.
"""

from __future__ import annotations

from kubews.config.certificates import ClientCertificate
from kubews.config.cluster import Cluster, Config
from kubews.config.credentials import Credentials
from kubews.config.issued import Issued
from kubews.config.user import ExecPlugin, Impersonation, Oidc, User

__all__ = [
    "ClientCertificate",
    "Cluster",
    "Config",
    "Credentials",
    "ExecPlugin",
    "Impersonation",
    "Issued",
    "Oidc",
    "User",
]
