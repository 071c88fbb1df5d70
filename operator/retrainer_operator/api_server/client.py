"""A thin client of the API server: raw JSON over aiohttp.

Not the kubernetes package: its client makes objects of every answer (five times the CPU for a Job) and
the operator needs eight requests. Credentials are kopf's own shape, so that the watches and these
requests log in alike.
"""

import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import kopf

from retrainer.errors import ClusterError
from retrainer_operator.api_server.clock import ServerClock

Body = dict[str, Any]
OnWrite = Callable[[str, str, str], None]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_AGE = 60.0
"""Seconds a token read from a file is used: the kubelet renews it at 80% of an hour or more."""
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_PAGE = 500


class ApiError(ClusterError):
    """The API server refused.

    Attributes:
        code: HTTP status.
        cause: the `reason` of its Status, such as `AlreadyExists`.
        retry_after: seconds to wait that it asked for.
    """

    reason = "ClusterRefused"

    def __init__(self, code: int, cause: str, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.code = code
        self.cause = cause
        self.retry_after = retry_after


def connection() -> kopf.ConnectionInfo:
    """Find how to reach the API server: by this pod's service account, else by the kubeconfig.

    Raises:
        ClusterError: there is neither.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if host and (_ACCOUNT / "token").exists() and not os.environ.get("KUBECONFIG"):
        host = f"[{host}]" if ":" in host else host
        return kopf.ConnectionInfo(
            server=f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}",
            ca_path=str(_ACCOUNT / "ca.crt"),
            token=(_ACCOUNT / "token").read_text().strip(),
        )
    info = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    if info is None:
        raise ClusterError("There is no cluster to talk to: set KUBECONFIG, or run this in a pod.")
    return info


class Kube:
    """Requests to the API server; `on_write` is called after every write (verb, resource, code)."""

    def __init__(
        self, info: kopf.ConnectionInfo, on_write: OnWrite, clock: ServerClock | None = None
    ) -> None:
        self._info = info
        self._clock = clock or ServerClock()
        self._on_write = on_write
        self._token = info.token
        self._token_at = time.monotonic()
        self._from_file = info.ca_path == str(_ACCOUNT / "ca.crt")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **params: str) -> Body:
        """Read one object, or one page of a list."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Body) -> Body:
        """Create an object, and return it as it is then."""
        return await self._request("POST", path, body=body)

    async def patch(self, path: str, body: Body) -> Body:
        """Change an object by a JSON merge patch, and return it as it is then."""
        return await self._request("PATCH", path, body=body)

    async def replace(self, path: str, body: Body) -> Body:
        """Replace an object, and return it as it is then."""
        return await self._request("PUT", path, body=body)

    async def delete(self, path: str, uid: str, version: int | None = None) -> Body:
        """Delete the object at `path` if it still has this uid; what it owns goes in the background."""
        preconditions = {"uid": uid} | (
            {} if version is None else {"resourceVersion": str(version)}
        )
        options = {"preconditions": preconditions, "propagationPolicy": "Background"}
        return await self._request("DELETE", path, body=options)

    async def metadata(self, path: str, selector: str = "") -> AsyncIterator[Body]:
        """Read the metadata of every object of a list."""
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        async for page in self.pages(path, selector, accept=accept):
            for item in page["items"]:
                yield item["metadata"]

    async def pages(
        self,
        path: str,
        selector: str = "",
        *,
        fields: str = "",
        accept: str = "application/json",
    ) -> AsyncIterator[Body]:
        """Read a list page by page: the objects with these labels and these fields."""
        params = {"limit": str(_PAGE)}
        if selector:
            params["labelSelector"] = selector
        if fields:
            params["fieldSelector"] = fields
        while True:
            page = await self._request("GET", path, params=params, accept=accept)
            metadata = page.get("metadata") or {}
            if not metadata.get("resourceVersion"):
                raise ClusterError(f"GET {path}: the answer is no list.")
            yield {**page, "items": page.get("items") or []}
            following = metadata.get("continue")
            if not following:
                return
            params["continue"] = following

    async def watch(
        self, path: str, selector: str, *, since: int, seconds: int
    ) -> AsyncGenerator[bytes, None]:
        """Give the lines of a watch, one event each, until the API server ends it."""
        params = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(since),
                  "timeoutSeconds": str(seconds)}  # fmt: skip
        if selector:
            params["labelSelector"] = selector
        headers = {"Accept": "application/json"}
        if token := self._bearer():
            headers["Authorization"] = f"Bearer {token}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        try:
            async with self._open().get(
                self._url(path), params=params, headers=headers, timeout=timeout
            ) as response:
                if response.status == 401:
                    self._token_at = -_TOKEN_AGE  # read it again next time
                if response.status != 200:
                    raise _error(response, await response.read(), f"watch {path}")
                rest = b""
                async for piece in response.content.iter_any():
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterError(
                f"The watch of {path} broke: {error or type(error).__name__}"
            ) from error

    async def may(self, verb: str, resource: str, namespace: str | None) -> bool:
        """Whether RBAC allows this; `resource` as `jobs.batch` or `retrainjobs.group/status`."""
        kind, _, sub = resource.partition("/")
        name, _, group = kind.partition(".")
        asked = {"verb": verb, "resource": name, "group": group, "subresource": sub}
        if namespace:
            asked["namespace"] = namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = await self.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: str = "application/json",
    ) -> Body:
        headers = {"Accept": accept}
        if body is not None:
            patch = method == "PATCH"
            headers["Content-Type"] = (
                "application/merge-patch+json" if patch else "application/json"
            )
        if token := self._bearer():
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        asked = self._clock.moment()
        try:
            async with self._open().request(
                method,
                self._url(path),
                params=params,
                data=data,
                headers=headers,
            ) as response:
                self._clock.correct(response.headers.get("Date"), asked)
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterError(f"{method} {path}: {error or type(error).__name__}") from error
        if method != "GET":
            self._on_write(_VERBS[method], _resource(path), str(response.status))
        if response.status == 401:
            self._token_at = -_TOKEN_AGE  # read it again next time
        if response.status >= 400:
            raise _error(response, answer, f"{method} {path}")
        return _object(answer, f"{method} {path}")

    def _url(self, path: str) -> str:
        return str(self._info.server).rstrip("/") + path

    def _bearer(self) -> str | None:
        if self._from_file and time.monotonic() > self._token_at + _TOKEN_AGE:
            self._token = (_ACCOUNT / "token").read_text().strip()
            self._token_at = time.monotonic()
        return self._token

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit: each watch has a connection of its own for good, and requests are few at once.
            connector = aiohttp.TCPConnector(limit=0, ssl=_tls(self._info))
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=_TIMEOUT,
                headers={"User-Agent": "retrainer-operator"},
            )
        return self._session


_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


def _resource(path: str) -> str:
    """Find the resource in a path, for the metric: `jobs` in `/apis/batch/v1/namespaces/x/jobs/y`."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return parts[0] + (f"/{parts[2]}" if len(parts) > 2 else "")


def _object(answer: bytes, request: str) -> Body:
    """Read the JSON object of an answer.

    Raises:
        ClusterError: it is none. What stands between us and the API server (a proxy's login page, a
            load balancer's notice) answers with 200 as well; a write may have taken effect behind it.
    """
    try:
        document = json.loads(answer) if answer else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ClusterError(f"{request}: the answer is no JSON object.")
    return document


def _error(response: aiohttp.ClientResponse, answer: bytes, what: str) -> ApiError:
    try:
        status = json.loads(answer)
        cause, message = status.get("reason") or "", status.get("message") or ""
    except (ValueError, AttributeError, RecursionError):
        cause, message = "", answer[:200].decode(errors="replace")
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if after.isdecimal() else None
    return ApiError(response.status, cause, message or f"{what}: {response.reason}", retry_after)


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext | bool:
    if not info.server.startswith("https://"):
        return True
    authority = base64.b64decode(info.ca_data).decode() if info.ca_data else None
    context = ssl.create_default_context(
        cafile=str(info.ca_path) if info.ca_path else None, cadata=authority
    )
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if info.certificate_path and info.private_key_path:
        context.load_cert_chain(str(info.certificate_path), str(info.private_key_path))
    elif info.certificate_data and info.private_key_data:
        with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only
            certificate, key = Path(folder) / "certificate", Path(folder) / "key"
            certificate.write_bytes(base64.b64decode(info.certificate_data))
            key.write_bytes(base64.b64decode(info.private_key_data))
            context.load_cert_chain(certificate, key)
    return context
