"""subprocess, sockets and files for Kubernetes pods, in plain synchronous Python."""

from __future__ import annotations

# Type checkers know this name, and importing typing would cost more than everything else here.
TYPE_CHECKING = False

__version__ = "0.1.0"

# Each public name and the module that has it, loaded on first use: `import kubews` costs next to nothing.
_PLACES = {
    "Attached": "attach",
    "Client": "client",
    "Config": "config",
    "Copied": "files.copying",
    "Pod": "pod",
    "PodSocket": "podsocket",
    "PortForward": "portforward",
    "ForwardEvent": "forwarder",
    "Logs": "logstream",
    "Stream": "streams",
    **dict.fromkeys(
        [
            "CalledProcessError",
            "CompletedProcess",
            "DEVNULL",
            "PIPE",
            "STDOUT",
            "SubprocessError",
            "Popen",
        ],
        "popen",
    ),
    **dict.fromkeys(
        [
            "call",
            "check_call",
            "check_output",
            "getoutput",
            "getstatusoutput",
            "run",
        ],
        "process",
    ),
    **dict.fromkeys(
        [
            "ApiError",
            "AuthPluginError",
            "BadRequest",
            "BufferFull",
            "ConfigError",
            "ConnectFailed",
            "ConnectTimeout",
            "ConnectionLost",
            "CopyError",
            "CredentialsError",
            "ExecError",
            "Forbidden",
            "HalfCloseUnsupported",
            "KubewsError",
            "LocalProtocolError",
            "NoSuchFile",
            "NotFound",
            "NotReady",
            "PortRefused",
            "ProcessError",
            "ProtocolError",
            "ReadTimeout",
            "RemoteProtocolError",
            "ServerError",
            "SignalRefused",
            "StreamBroken",
            "TerminalError",
            "TimeoutExpired",
            "TooManyRequests",
            "TruncatedTransfer",
            "Unauthorized",
            "UnsafeArchive",
        ],
        "errors",
    ),
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from kubews.attach import Attached as Attached
    from kubews.client import Client as Client
    from kubews.config import Config as Config
    from kubews.errors import (
        ApiError as ApiError,
    )
    from kubews.errors import (
        AuthPluginError as AuthPluginError,
    )
    from kubews.errors import (
        BadRequest as BadRequest,
    )
    from kubews.errors import (
        BufferFull as BufferFull,
    )
    from kubews.errors import (
        ConfigError as ConfigError,
    )
    from kubews.errors import (
        ConnectFailed as ConnectFailed,
    )
    from kubews.errors import (
        ConnectionLost as ConnectionLost,
    )
    from kubews.errors import (
        ConnectTimeout as ConnectTimeout,
    )
    from kubews.errors import (
        CopyError as CopyError,
    )
    from kubews.errors import (
        CredentialsError as CredentialsError,
    )
    from kubews.errors import (
        ExecError as ExecError,
    )
    from kubews.errors import (
        Forbidden as Forbidden,
    )
    from kubews.errors import (
        HalfCloseUnsupported as HalfCloseUnsupported,
    )
    from kubews.errors import (
        KubewsError as KubewsError,
    )
    from kubews.errors import (
        LocalProtocolError as LocalProtocolError,
    )
    from kubews.errors import (
        NoSuchFile as NoSuchFile,
    )
    from kubews.errors import (
        NotFound as NotFound,
    )
    from kubews.errors import (
        NotReady as NotReady,
    )
    from kubews.errors import (
        PortRefused as PortRefused,
    )
    from kubews.errors import (
        ProcessError as ProcessError,
    )
    from kubews.errors import (
        ProtocolError as ProtocolError,
    )
    from kubews.errors import (
        ReadTimeout as ReadTimeout,
    )
    from kubews.errors import (
        RemoteProtocolError as RemoteProtocolError,
    )
    from kubews.errors import (
        ServerError as ServerError,
    )
    from kubews.errors import (
        SignalRefused as SignalRefused,
    )
    from kubews.errors import (
        StreamBroken as StreamBroken,
    )
    from kubews.errors import (
        TerminalError as TerminalError,
    )
    from kubews.errors import (
        TimeoutExpired as TimeoutExpired,
    )
    from kubews.errors import (
        TooManyRequests as TooManyRequests,
    )
    from kubews.errors import (
        TruncatedTransfer as TruncatedTransfer,
    )
    from kubews.errors import (
        Unauthorized as Unauthorized,
    )
    from kubews.errors import (
        UnsafeArchive as UnsafeArchive,
    )
    from kubews.files.copying import Copied as Copied
    from kubews.forwarder import ForwardEvent as ForwardEvent
    from kubews.logstream import Logs as Logs
    from kubews.pod import Pod as Pod
    from kubews.podsocket import PodSocket as PodSocket
    from kubews.popen import (
        DEVNULL as DEVNULL,
    )
    from kubews.popen import (
        PIPE as PIPE,
    )
    from kubews.popen import (
        STDOUT as STDOUT,
    )
    from kubews.popen import (
        CalledProcessError as CalledProcessError,
    )
    from kubews.popen import (
        CompletedProcess as CompletedProcess,
    )
    from kubews.popen import (
        Popen as Popen,
    )
    from kubews.popen import (
        SubprocessError as SubprocessError,
    )
    from kubews.portforward import PortForward as PortForward
    from kubews.process import (
        call as call,
    )
    from kubews.process import (
        check_call as check_call,
    )
    from kubews.process import (
        check_output as check_output,
    )
    from kubews.process import (
        getoutput as getoutput,
    )
    from kubews.process import (
        getstatusoutput as getstatusoutput,
    )
    from kubews.process import (
        run as run,
    )
    from kubews.streams import Stream as Stream
