"""One authenticated HTTP connection to a Kubernetes API server, by the `kubernetes` library.

The library finds the credentials (kubeconfig, exec plugins, in-cluster) and sends the bytes. Objects
stay the JSON they are: its typed models cost 0.2 ms an object and know nothing of RetrainJobs.
Tests pass another object with the same `open` (see `Transport`).
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from retrainer.errors import ClusterError, UserError

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Readers of logs and watches hold a connection each; more than this many wait for one another.
_POOL = 64


class Response(Protocol):
    """An answer whose body is read at once or line by line."""

    status: int

    def read(self) -> bytes:
        """The whole body."""

    def lines(self) -> Iterator[bytes]:
        """The body's lines as they arrive, without their ends."""

    def shutdown(self) -> None:
        """Called from another thread: `lines` ends at once."""

    def close(self) -> None:
        """Give the connection back."""


class Transport(Protocol):
    """What `Cluster` needs: a server's name, the person's namespace, and requests."""

    server: str
    namespace: str

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: object | None = None,
        content_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
    ) -> Response:
        """Send one request; the answer's status is not judged here.

        Raises:
            ClusterError: the server cannot be reached.
        """


class Connection:
    """A `Transport` over the `kubernetes` library."""

    def __init__(self, context: str | None = None, kubeconfig: str | Path | None = None) -> None:
        """Read the kubeconfig, or the pod's own credentials where there is none.

        Raises:
            UserError: no kubeconfig and not in a pod, no such context, or a file that is broken.
        """
        from kubernetes import client
        from urllib3 import Retry

        configuration = client.Configuration()
        self.namespace = _load(configuration, context, kubeconfig)
        self.server: str = configuration.host
        # 429 and 503 with Retry-After are waited for; POST and PATCH are never sent twice. Broken
        # connections are retried below: urllib3 would write a warning to stderr each time.
        configuration.retries = Retry(
            total=4, connect=0, read=0, other=0, status=4, raise_on_status=False
        )
        configuration.connection_pool_maxsize = _POOL
        self._api = client.ApiClient(configuration)

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: object | None = None,
        content_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
    ) -> Response:
        """As `Transport.open`."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        method, url, headers, body, _ = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        # A kept connection may have died since; what only reads is sent once more, on a new one.
        attempts = 2 if method == "GET" else 1
        for attempt in range(1, attempts + 1):
            try:
                answer = self._api.call_api(
                    method, url, headers, body, _request_timeout=(CONNECT_SECONDS, read_seconds)
                )
                return _Streamed(answer.response, self.server)
            except (HTTPError, ApiException, OSError) as error:
                if attempt == attempts:
                    raise unreachable(self.server, error) from error
        raise AssertionError("the loop returns or raises")


class _Streamed:
    """A urllib3 answer; what breaks while reading it becomes a ClusterError too."""

    def __init__(self, answer: Any, server: str) -> None:
        self.status: int = answer.status
        self._answer = answer
        self._server = server

    def read(self) -> bytes:
        from urllib3.exceptions import HTTPError

        try:
            body: bytes = self._answer.read()
        except (HTTPError, OSError) as error:
            raise unreachable(self._server, error) from error
        finally:
            self._answer.release_conn()
        return body

    def lines(self) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for part in self._answer.stream(amt=None, decode_content=False):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            # The latter two: http.client's, when another thread shut the socket down.
            raise unreachable(self._server, error) from error
        if rest:
            yield rest

    def shutdown(self) -> None:
        try:
            self._answer.shutdown()
        except (OSError, ValueError, RuntimeError):
            return  # it has ended already

    def close(self) -> None:
        self._answer.close()


def _load(configuration: Any, context: str | None, kubeconfig: str | Path | None) -> str:
    """Fill `configuration`; the namespace that the kubeconfig or the pod names."""
    from kubernetes import config

    # Read now: the library's own default is of the moment it was imported.
    given = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    files = [Path(p).expanduser() for p in given.split(os.pathsep) if p]
    if not any(f.is_file() for f in files):
        if kubeconfig is None and context is None and os.environ.get(_IN_CLUSTER):
            config.load_incluster_config(client_configuration=configuration)
            return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"
        raise UserError(
            f"No kubeconfig at {given}, and this is not a pod: give kubeconfig=..., set KUBECONFIG, "
            "or use retrainer run for this machine."
        )
    try:
        contexts, current = config.list_kube_config_contexts(given)
        names = {c["name"]: c for c in contexts}
        if context is not None and context not in names:
            known = ", ".join(sorted(names)) or "none"
            raise UserError(f"No context {context} in {given}; it has: {known}.")
        with _Errors() as errors:
            config.load_kube_config(given, context, client_configuration=configuration)
        if errors.texts and not configuration.api_key and not configuration.cert_file:
            why = "; ".join(errors.texts)
            raise UserError(f"The kubeconfig {given} gives no credentials: {why}.")
    except config.ConfigException as error:
        raise UserError(f"The kubeconfig {given} cannot be used: {error}") from error
    chosen = names[context] if context else current
    return str(chosen["context"].get("namespace") or "default")


class _Errors(logging.Handler):
    """What the library only logs, and goes on as anonymous: a credential plugin that fails."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


def unreachable(server: str, error: Exception) -> ClusterError:
    """The error of a server that did not answer, with the innermost cause in words."""
    text = str(error)
    why = next(
        (words for sign, words in _SIGNS if sign in text or sign in type(error).__name__),
        text.splitlines()[-1] if text else type(error).__name__,
    )
    return ClusterError(f"Cannot reach the Kubernetes API server {server}: {why}.")


_SIGNS = (
    ("NameResolution", "its host name is not known here (check the context, or the VPN)"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by the kubeconfig's authority"),
    ("Connection refused", "connection refused (is it running?)"),
    ("ConnectTimeout", "no answer in time (check the network, or the VPN)"),
    ("ReadTimeout", "it stopped answering"),
    ("Connection broken", "the connection broke"),
    ("Connection aborted", "the connection broke"),
    ("reset by peer", "the connection broke"),
)
