"""Waiting with a deadline, and one way to ask whether a component is well."""

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.devcluster.failure import ClusterError

_PAUSE = 0.1


def until(
    check: Callable[[], bool],
    seconds: float,
    what: str,
    log: Path | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Return once `check` holds; past the deadline, or once `alive` fails, say why it did not."""
    deadline = time.monotonic() + seconds
    while not check():
        if not alive():
            raise ClusterError(f"{what}: the process ended.{_tail(log)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s.{_tail(log)}")
        time.sleep(_PAUSE)


def answers(url: str) -> bool:
    """Whether a GET gives 200. The certificate is not checked: the address is this machine's."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return f" The end of {log}:\n" + "\n".join(f"    {line[:400]}" for line in lines)
