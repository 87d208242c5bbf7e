"""What may be done to the containers of a LocalCluster: the part of its face that is about them.

Threads: a ``Controls`` may be used by any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Union

from kubews.testing.containerlog import STREAMS

if TYPE_CHECKING:
    from kubews.testing.host import Host
    from kubews.testing.remote import RemoteHost


class Controls:
    """The containers of a LocalCluster, which inherits this.

    Threads: safe.
    """

    _host: Union[Host, RemoteHost]

    def write_log(
        self,
        name: str,
        data: Union[str, bytes],
        *,
        container: Optional[str] = None,
        stream: str = "stdout",
        namespace: str = "default",
    ) -> None:
        """Write into the log of a container, as if its own process had said it.

        What that process really writes to stdout and stderr is there by itself.

        Args:
            name: the pod's name.
            data: what it says; it is seen up to the last newline, or at the container's end.
            container: its name; by default the first.
            stream: ``"stdout"`` or ``"stderr"``.
            namespace: the pod's.

        Raises:
            TypeError, ValueError: an argument cannot be.
            KeyError: there is no such pod.

        Threads: safe.
        """
        if not isinstance(data, (str, bytes)):
            raise TypeError(f'data must be str or bytes, such as "ready\\n", not {data!r}')
        if stream not in STREAMS:
            raise ValueError(f'stream must be "stdout" or "stderr", not {stream!r}')
        raw = data.encode() if isinstance(data, str) else data
        self._host.write_log(name, namespace, container, stream, raw)

    def rotate_log(
        self, name: str, *, container: Optional[str] = None, namespace: str = "default"
    ) -> None:
        """Begin a new file for the log of a container, as a kubelet does when it has become large.

        Who follows goes on with the new file; who asks from now on gets nothing of the old one.

        Args:
            name: the pod's name.
            container: its name; by default the first.
            namespace: the pod's.

        Raises:
            KeyError, ValueError: there is no such pod or container.

        Threads: safe.
        """
        self._host.rotate_log(name, namespace, container)

    def restart_container(
        self, name: str, *, container: Optional[str] = None, namespace: str = "default"
    ) -> None:
        """Start a container's command again, having killed it if it runs (exit code 137).

        The log begins anew; that of the run before is the one of ``previous``.

        Args:
            name: the pod's name.
            container: its name; by default the first.
            namespace: the pod's.

        Raises:
            KeyError: there is no such pod.
            ValueError: it has no such container, or that has never run.
            OSError: the command could not be started.

        Threads: safe; blocks until the old processes have ended.
        """
        self._host.restart_container(name, namespace, container)
