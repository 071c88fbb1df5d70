"""The SDK's Kubernetes calls: requests on RetrainJobs, Pods and Events, and `follow`.

Every other library's error is mapped to `retrainer.errors` here, in `connection` and in `refusals`.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from retrainer.api.names import CONTAINER, GROUP, PLURAL, VERSION
from retrainer.cluster.connection import READ_SECONDS, Transport
from retrainer.cluster.refusals import Asked, Gone, refusal
from retrainer.cluster.stop import Stop
from retrainer.errors import ClusterError, Forbidden, UserError

PAGE = 500
"""Objects per request of a list, as kubectl asks for."""
WATCH_SECONDS = 240
"""The server ends a watch after so long; the next one goes on from the version that was reached."""
SILENCE_SECONDS = 90.0
"""The server sends a bookmark each minute; a watch that gets nothing for so long is dead."""
PATIENCE_SECONDS = 600.0
"""How long `follow` goes on trying to reach a server."""
PATIENCE_FORBIDDEN_SECONDS = 30.0
"""How long `follow` tries again when refused: a server that starts has not read its own roles yet."""
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

Document = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Resource:
    """A kind of object, with what the paths of its URLs need."""

    prefix: str
    plural: str
    group: str = ""

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Write the path of all objects, of one, or of a part of one; `namespace` "" means all."""
        within = ("namespaces", namespace) if namespace else ()
        parts = (quote(p, safe="") for p in (*within, self.plural, name, sub) if p)
        return "/".join([self.prefix, *parts])


JOBS = Resource(f"/apis/{GROUP}/{VERSION}", PLURAL, GROUP)
PODS = Resource("/api/v1", "pods")
EVENTS = Resource("/api/v1", "events")


@dataclass(frozen=True)
class WatchEvent:
    """One change that `follow` gives.

    `Synced` has no document. It comes after each list: everything that exists has been given by then.
    """

    kind: Literal["Added", "Modified", "Deleted", "Synced"]
    document: Document


class Cluster:
    """Requests to one API server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.server = transport.server
        self.namespace = transport.namespace

    # --- one object ---
    def get(self, resource: Resource, namespace: str, name: str) -> Document:
        """Read an object.

        Raises:
            NotFound: there is none.
        """
        return self._json("get", "GET", resource, namespace, _one(name))

    def create(self, resource: Resource, namespace: str, document: Document) -> Document:
        """Create an object, and return it as it is then; a field unknown to the server is refused.

        Raises:
            Conflict: one of this name exists.
            InvalidJob: the server refused it, one sentence per field.
        """
        asked = document["metadata"]["name"]
        query = {"fieldValidation": "Strict", "fieldManager": "retrainer"}
        return self._json(
            "create", "POST", resource, namespace, "", query=query, body=document, asked_name=asked
        )

    def patch(self, resource: Resource, namespace: str, name: str, change: Document) -> Document:
        """Change an object by a JSON merge patch, and return it as it is then."""
        return self._json(
            "patch",
            "PATCH",
            resource,
            namespace,
            _one(name),
            query={"fieldManager": "retrainer"},
            body=change,
            content_type="application/merge-patch+json",
        )

    def delete(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete an object, and in the background what it owns; with `uid`, only if it has that uid."""
        options: Document = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        self._json("delete", "DELETE", resource, namespace, _one(name), body=options)

    # --- many ---
    def find(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Document], str]:
        """List all objects that match both selectors; returns them and the version of the list."""
        items: list[Document] = []
        query = _selectors(labels, fields) | {"limit": str(PAGE)}
        while True:
            page = self._json("list", "GET", resource, namespace, query=query)
            items += page["items"]
            proceed = page["metadata"].get("continue")
            if not proceed:
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = proceed

    def follow(
        self,
        resource: Resource,
        namespace: str,
        *,
        labels: str = "",
        fields: str = "",
        deadline: float | None = None,
        stop: Stop | None = None,
    ) -> Iterator[WatchEvent]:
        """Give what exists, then every change, until `deadline` (time.monotonic) or `stop`.

        Survives a cut connection, a restarted server and an expired version: it then lists again
        and gives what changed in between.

        Raises:
            Forbidden: no right to list or watch them.
            ClusterError: the server cannot be reached at first, or for ten minutes.
        """
        stop = stop or Stop()
        objects: dict[str, Document] = {}
        version = ""
        failures, answered = 0, time.monotonic()
        asked = Asked("watch", _named(resource), namespace, "", self.server)
        selectors = _selectors(labels, fields)
        while not stop.is_set() and (left := _left(deadline)) > 0:
            try:
                if not version:
                    items, version = self.find(resource, namespace, labels=labels, fields=fields)
                    yield from _differences(objects, items)
                    yield WatchEvent("Synced", {})
                    failures, answered = 0, time.monotonic()
                for kind, document in self._watch(
                    asked, resource, selectors, version, left=left, stop=stop
                ):
                    version = document["metadata"]["resourceVersion"]
                    failures, answered = 0, time.monotonic()
                    if change := _watch_event(objects, kind, document):
                        yield change
            except Gone:
                version = ""
            except ClusterError as error:
                forbidden = isinstance(error, Forbidden)
                patience = PATIENCE_FORBIDDEN_SECONDS if forbidden else PATIENCE_SECONDS
                first = not version and not objects and failures == 0
                if stop.is_set():
                    return
                if first or time.monotonic() - answered > patience:
                    raise
                pause = min(_BACKOFF[min(failures, len(_BACKOFF) - 1)], max(0.0, _left(deadline)))
                stop.wait(pause)
                failures += 1

    def _watch(
        self,
        asked: Asked,
        resource: Resource,
        selectors: Mapping[str, str],
        version: str,
        *,
        left: float,
        stop: Stop,
    ) -> Iterator[tuple[str, Document]]:
        """Watch from `version` until the server ends the watch; gives type and object of each event."""
        seconds = max(1, min(WATCH_SECONDS, int(left) + 1))
        query = {
            **selectors,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        silence = min(SILENCE_SECONDS, left + 0.05)
        path = resource.path(asked.namespace)
        response = self._transport.open("GET", path, query, read_seconds=silence)
        with stop.reading(response):
            if response.status >= 400:
                raise refusal(response.status, response.read(), asked)
            for line in response.lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    code = int(status.get("code") or 500)
                    raise refusal(code, json.dumps(status).encode(), asked)
                yield event["type"], event["object"]

    def log(
        self,
        namespace: str,
        pod: str,
        *,
        follow: bool = False,
        since: str = "",
        stop: Stop | None = None,
    ) -> Iterator[tuple[str, str]]:
        """Read a trainer pod's log, line by line, each as (RFC 3339 time, text).

        Raises:
            InvalidJob, ClusterError: the container has not started, or the kubelet is away.
            NotFound: the pod is gone.
        """
        query = {"container": CONTAINER, "timestamps": "true"}
        query |= {"follow": "true"} if follow else {}
        query |= {"sinceTime": since} if since else {}
        asked = Asked("get", "pods/log", namespace, pod, self.server)
        # A pod whose log is followed may write nothing for long.
        seconds = 3600.0 if follow else READ_SECONDS
        path = PODS.path(namespace, pod, "log")
        response = self._transport.open("GET", path, query, read_seconds=seconds)
        with (stop or Stop()).reading(response):
            if response.status >= 400:
                raise refusal(response.status, response.read(), asked)
            for line in response.lines():
                when, _, text = line.decode(errors="replace").partition(" ")
                yield when, text

    def _json(
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = "application/json",
        asked_name: str = "",
    ) -> Document:
        response = self._transport.open(
            method,
            resource.path(namespace, name),
            query or {},
            body=body,
            content_type=content_type,
        )
        raw = response.read()
        if response.status >= 400:
            asked = Asked(verb, _named(resource), namespace, name or asked_name, self.server)
            raise refusal(response.status, raw, asked)
        try:
            answer: Document = json.loads(raw)
        except ValueError as error:
            raise ClusterError(
                f"{self.server} answered something that is not JSON: is it a Kubernetes API server?"
            ) from error
        return answer


def _one(name: str) -> str:
    """Refuse what names no object: a request without a name is one for all of the namespace.

    Raises:
        TypeError: it is no text.
        UserError: it is empty, or the path of a folder.
    """
    if not isinstance(name, str):
        raise TypeError(f"Give the name of a job as a text, not {name!r}.")
    if name in {"", ".", ".."}:
        raise UserError(f"Give the name of a job, not {name!r}, which would mean all of them.")
    return name


def _named(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _selectors(labels: str, fields: str) -> dict[str, str]:
    both = {"labelSelector": labels, "fieldSelector": fields}
    return {name: text for name, text in both.items() if text}


def _left(deadline: float | None) -> float:
    return WATCH_SECONDS if deadline is None else deadline - time.monotonic()


_KINDS: dict[str, Literal["Added", "Modified"]] = {"ADDED": "Added", "MODIFIED": "Modified"}


def _watch_event(objects: dict[str, Document], kind: str, document: Document) -> WatchEvent | None:
    """Turn an event of a watch into a WatchEvent, a bookmark into None; keeps `objects` up to date."""
    if kind == "BOOKMARK":
        return None
    uid = document["metadata"]["uid"]
    if kind == "DELETED":
        objects.pop(uid, None)
        return WatchEvent("Deleted", document)
    objects[uid] = document
    return WatchEvent(_KINDS[kind], document)


def _differences(objects: dict[str, Document], items: list[Document]) -> Iterator[WatchEvent]:
    """Give what a new list has that differs from `objects`, which is brought up to date."""
    now = {item["metadata"]["uid"]: item for item in items}
    for uid in [uid for uid in objects if uid not in now]:
        yield WatchEvent("Deleted", objects.pop(uid))
    for uid, item in now.items():
        before = objects.get(uid)
        objects[uid] = item
        if before is None:
            yield WatchEvent("Added", item)
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            yield WatchEvent("Modified", item)
