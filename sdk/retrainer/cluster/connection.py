"""One authenticated HTTP connection to a Kubernetes API server, by the `kubernetes` library.

The library finds the credentials (kubeconfig, exec plugins, in-cluster) and sends the bytes. Objects
stay the JSON they are: its typed models cost 0.2 ms an object and know nothing of RetrainJobs.
Tests pass another object with the same `open` (see `Transport`).
"""

import binascii
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit
from urllib.request import getproxies

from retrainer.errors import ClusterError, UserError

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
_IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# Each reader of a log and each watch takes a connection; with more than these they wait for each other.
_POOL = 64


class Response(Protocol):
    """An answer whose body is read at once or line by line."""

    status: int

    def read(self) -> bytes:
        """Read the whole body."""

    def lines(self) -> Iterator[bytes]:
        """Give the body's lines as they arrive, without their ends."""

    def shutdown(self) -> None:
        """End `lines` at once; called from another thread."""

    def close(self) -> None:
        """Give the connection back."""


class Transport(Protocol):
    """What `Cluster` needs: a server's URL, the namespace of the context, and requests."""

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
        """Send one request; an answer of any HTTP status is returned.

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
        # A connection of the pool may have died since: a GET, which changes nothing, is sent once more.
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
    """An answer of urllib3; an error while it is read becomes a ClusterError."""

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
            # http.client raises the latter two when another thread has shut the socket down.
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
    """Fill `configuration`, and return the namespace that the kubeconfig or the pod names."""
    from kubernetes import config

    # KUBECONFIG is read now: the library reads it only once, when it is imported.
    given = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    files = [Path(p).expanduser() for p in given.split(os.pathsep) if p]
    if not any(f.is_file() for f in files):
        if kubeconfig is None and context is None and os.environ.get(_IN_CLUSTER):
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException as error:
                raise UserError(
                    "This pod has no credentials for the Kubernetes API server: let it mount its "
                    "ServiceAccount's token, or set KUBECONFIG."
                ) from error
            return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else "default"
        raise UserError(
            f"No kubeconfig at {given}, and this is not a pod: set KUBECONFIG to the path of one.",
            command="retrainer run needs no cluster.",
        )
    try:
        merged = config.kube_config.KubeConfigMerger(given).config.value
        contexts = {c["name"]: c["context"].value for c in merged["contexts"]}
        chosen = context or merged.get("current-context")
        with _Errors() as errors:
            if chosen in contexts:
                config.load_kube_config(given, chosen, client_configuration=configuration)
    except Exception as error:  # the library does not check the form of what it reads
        raise UserError(f"The kubeconfig {given} cannot be used: {_unusable(error)}.") from error
    if chosen not in contexts:
        what = f"No context {chosen}" if chosen else "No current context"
        listed = ", ".join(sorted(contexts)) or "none"
        raise UserError(f"{what} in {given}; it has: {listed}.")
    user = contexts[chosen].get("user")
    if user and user not in {u["name"] for u in merged["users"]}:
        raise UserError(
            f"Context {chosen} of {given} names user {user}, which is not among its users."
        )
    if errors.texts and not configuration.api_key and not configuration.cert_file:
        why = "; ".join(map(_of_plugin, errors.texts))
        raise UserError(f"The kubeconfig {given} gives no credentials: {why}.")
    _proxy_as_kubectl(configuration)
    return str(contexts[chosen].get("namespace") or "default")


def _unusable(error: Exception) -> str:
    """Say why a kubeconfig cannot be used."""
    import yaml
    from kubernetes.config import ConfigException

    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"it is not YAML from line {error.problem_mark.line + 1} on"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    forms = {
        (yaml.YAMLError, UnicodeDecodeError): "it is not YAML",
        (binascii.Error,): "a certificate or key in it is not base64",
    }
    if form := next((form for kinds, form in forms.items() if isinstance(error, kinds)), ""):
        return form
    text = str(error) if isinstance(error, ConfigException) else ""
    missing = re.search(r"Expected key ([\w-]+)|File does not exist: (.+)", text)
    if missing is None:
        return "it has not the form of a kubeconfig"
    return (
        f"{missing[1]} is missing in it"
        if missing[1]
        else f"it names {missing[2]}, which is missing"
    )


def _of_plugin(text: str) -> str:
    """Say why a kubeconfig's credential plugin gave nothing; what it printed itself is kept."""
    if ended := re.match(r"exec: process returned (-?\d+)(?:\. )?(.*)", text, re.DOTALL):
        output = f" and said: {' '.join(ended[2].split())}" if ended[2] else ""
        return f"its credential plugin ended with exit code {ended[1]}{output.rstrip('.')}"
    if missing := re.match(r"\[Errno \d+\] [^:]+: '(.+)'", text):
        return f"its credential plugin {missing[1]} cannot be started"
    return "its credential plugin gives nothing that is a credential"


def _proxy_as_kubectl(configuration: Any) -> None:
    """Take the environment's proxy as Go does: not for this machine, and also without `http://`."""
    if configuration.proxy not in getproxies().values():
        return  # the kubeconfig's own
    host = urlsplit(configuration.host).hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127."):
        configuration.proxy = None
    elif "://" not in configuration.proxy:
        configuration.proxy = f"http://{configuration.proxy}"


class _Errors(logging.Handler):
    """Collects the errors that the library only logs before it goes on without credentials."""

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
    """Give the error of a server that did not answer, with a sentence for its innermost cause."""
    text = str(error)
    why = next(
        (sentence for sign, sentence in _SIGNS if sign in text or sign in type(error).__name__),
        "it does not answer as an API server does",
    )
    return ClusterError(f"Cannot reach the Kubernetes API server {server}: {why}.")


_SIGNS = (
    ("ProxyError", "its proxy does not let this through (check HTTPS_PROXY and NO_PROXY)"),
    ("NameResolution", "its host name is not known here (check the context, or the VPN)"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not valid for", "its certificate is for another host name"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by the kubeconfig's authority"),
    ("PEM lib", "the kubeconfig's certificate or key cannot be read"),
    ("NO_CERTIFICATE", "the kubeconfig's certificate-authority cannot be read"),
    ("Connection refused", "connection refused (is it running?)"),
    ("ConnectTimeout", "no answer in time (check the network, or the VPN)"),
    ("ReadTimeout", "it stopped answering"),
    ("Connection broken", "the connection broke"),
    ("Connection aborted", "the connection broke"),
    ("reset by peer", "the connection broke"),
)
