"""An API server in memory: what the SDK needs of one, and every way it fails.

It stands in at the seam (`retrainer.cluster.connection.Transport`), so the SDK's own code is all
real. A test plays the operator (`status`), cuts watches (`cut`), lets versions expire (`expire`), or
makes the next requests fail (`fail`).
"""

import copy
import json
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from retrainer.cluster.connection import unreachable
from retrainer.errors import ClusterError

Document = dict[str, Any]

_PATH = re.compile(
    r"/(?:api/v1|apis/retrainer\.dev/v1alpha1)(?:/namespaces/(?P<ns>[^/]+))?/(?P<kind>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<log>/log)?$"
)
CUT = object()
END = object()


class Answer:
    """One response; a watch's or followed log's lines come from a queue."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        live: "queue.Queue[Any] | None" = None,
        read_seconds: float = 20.0,
    ) -> None:
        self.status = status
        self._body = body
        self._live = live
        self._read_seconds = min(read_seconds, 20.0)

    @property
    def is_live(self) -> bool:
        """Whether more lines may still come."""
        return self._live is not None

    def read(self) -> bytes:
        return self._body

    def lines(self) -> Iterator[bytes]:
        if self._live is None:
            yield from self._body.splitlines()
            return
        while (item := self._next(self._live)) is not END:
            if item is CUT:
                raise unreachable("https://fake", ConnectionResetError("reset by peer"))
            yield item

    def _next(self, live: "queue.Queue[Any]") -> Any:
        try:
            return live.get(timeout=self._read_seconds)
        except queue.Empty as error:
            raise unreachable("https://fake", TimeoutError("ReadTimeout")) from error

    def shutdown(self) -> None:
        if self._live is not None:
            self._live.put(END)

    def close(self) -> None:
        return


class FakeApiServer:
    """RetrainJobs, pods and events by kind and (namespace, name); safe between threads."""

    server = "https://fake"
    namespace = "default"

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.objects: dict[str, dict[tuple[str, str], Document]] = {
            "retrainjobs": {}, "pods": {}, "events": {},
        }  # fmt: skip
        self.logs: dict[str, list[bytes] | queue.Queue[Any]] = {}
        self.now = "2026-01-02T03:04:05Z"
        self._version = 0
        self._watches: list[tuple[Callable[[Document], bool], str, queue.Queue[Any]]] = []
        self._events: list[tuple[int, str, Document, bytes]] = []
        self._failures: list[tuple[str, Answer | ClusterError]] = []
        self._lock = threading.RLock()
        self._watching = threading.Condition(self._lock)
        self._oldest = 0

    # --- what a test does ---
    def put(self, kind: str, document: Document) -> Document:
        """Create or replace an object, and tell the watches."""
        with self._lock:
            metadata = document["metadata"]
            key = (metadata.setdefault("namespace", "default"), metadata["name"])
            previous = self.objects[kind].get(key)
            self._version += 1
            metadata.setdefault(
                "uid", previous["metadata"]["uid"] if previous else str(uuid.uuid4())
            )
            metadata.setdefault("creationTimestamp", self.now)
            metadata["resourceVersion"] = str(self._version)
            self.objects[kind][key] = document
            self._tell(kind, "MODIFIED" if previous else "ADDED", document)
            return document

    def status(self, name: str, **status: Any) -> None:
        """Write fields of a job's status, as the operator does."""
        with self._lock:
            document = copy.deepcopy(self.objects["retrainjobs"]["default", name])
            document["status"] = document.get("status", {}) | status
            self.put("retrainjobs", document)

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object, and tell the watches."""
        with self._lock:
            document = copy.deepcopy(self.objects[kind].pop((namespace, name)))
            self._version += 1
            document["metadata"]["resourceVersion"] = str(self._version)
            self._tell(kind, "DELETED", document)

    def cut(self) -> None:
        """Break the connection of every open watch."""
        self._end_watches(CUT)

    def expire(self) -> None:
        """End every watch; a watch from any version so far is answered 410."""
        with self._lock:
            self._oldest = self._version + 1
            self._version += 1
        self._end_watches(END)

    def send(self, event: Document) -> None:
        """Write one event to every open watch."""
        with self._lock:
            for _, _, live in self._watches:
                live.put(json.dumps(event).encode())

    def fail(self, pattern: str, answer: Answer | ClusterError, times: int = 1) -> None:
        """Give this answer to the next `times` requests whose `METHOD path` matches."""
        with self._lock:
            self._failures += [(pattern, answer)] * times

    def wait_for_watch(self, count: int = 1) -> None:
        """Block until so many watches are open."""
        with self._watching:
            assert self._watching.wait_for(lambda: len(self._watches) >= count, timeout=60)

    def _end_watches(self, item: object) -> None:
        with self._lock:
            for _, _, live in self._watches:
                live.put(item)
            self._watches.clear()

    def _tell(self, kind: str, event: str, document: Document) -> None:
        line = json.dumps({"type": event, "object": document}).encode()
        self._events.append((self._version, kind, document, line))
        for matches, watched, live in self._watches:
            if watched == kind and matches(document):
                live.put(line)

    # --- Transport ---
    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Any = None,
        content_type: str = "application/json",
        read_seconds: float = 30.0,
    ) -> Answer:
        with self._lock:
            self.requests.append((method, path, dict(query)))
            for i, (pattern, answer) in enumerate(self._failures):
                if re.search(pattern, f"{method} {path}"):
                    del self._failures[i]
                    if isinstance(answer, ClusterError):
                        raise answer
                    return answer
            match = _PATH.match(path)
            assert match, path
            kind, name = match["kind"], match["name"] or ""
            if match["log"]:
                return self._log(name)
            if method == "GET" and not name:
                return self._many(kind, match["ns"], query, read_seconds)
            return self._one(method, kind, match["ns"], name, copy.deepcopy(body))

    def _log(self, pod: str) -> Answer:
        lines = self.logs.get(pod)
        if lines is None:
            return refused(404, f'pods "{pod}" not found', name=pod, kind="pods")
        if isinstance(lines, list):
            return Answer(200, b"\n".join(lines))
        return Answer(200, live=lines)

    def _many(
        self, kind: str, namespace: str | None, query: Mapping[str, str], read_seconds: float
    ) -> Answer:
        def matches(document: Document) -> bool:
            metadata = document["metadata"]
            labels = metadata.get("labels") or {}
            return (
                namespace in {None, metadata["namespace"]}
                and all(
                    labels.get(k) == v for k, v in _pairs(query.get("labelSelector", "")).items()
                )
                and all(
                    _field(document, k) == v
                    for k, v in _pairs(query.get("fieldSelector", "")).items()
                )
            )

        if query.get("watch"):
            if int(query["resourceVersion"]) < self._oldest:
                return refused(410, "too old resource version", reason="Expired")
            live: queue.Queue[Any] = queue.Queue()
            for version, of, document, line in self._events:
                if version > int(query["resourceVersion"]) and of == kind and matches(document):
                    live.put(line)
            self._watches.append((matches, kind, live))
            self._watching.notify_all()
            return Answer(200, live=live, read_seconds=read_seconds)
        items = [d for _, d in sorted(self.objects[kind].items()) if matches(d)]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
        page, rest = items[start : start + limit], items[start + limit :]
        metadata = {"resourceVersion": str(self._version)}
        metadata |= {"continue": str(start + limit)} if rest else {}
        return _ok({"kind": "List", "metadata": metadata, "items": page})

    def _one(self, method: str, kind: str, namespace: str, name: str, body: Any) -> Answer:
        if method == "POST":
            name = body["metadata"]["name"]
            if (namespace, name) in self.objects[kind]:
                return refused(409, f'{kind} "{name}" already exists', reason="AlreadyExists")
            body["metadata"]["namespace"] = namespace
            return _ok(self.put(kind, body))
        document = self.objects[kind].get((namespace, name))
        if document is None:
            return refused(404, f'{kind} "{name}" not found', name=name, kind=kind)
        if method == "DELETE":
            self.remove(kind, name, namespace)
        elif method == "PATCH":
            merged = copy.deepcopy(document)
            merged["spec"] = merged["spec"] | body["spec"]
            document = self.put(kind, merged)
        return _ok(document)


def refused(status: int, message: str, **details: Any) -> Answer:
    """The answer of an API server that refuses: a Status object."""
    reason = details.pop("reason", "")
    document = {"kind": "Status", "code": status, "reason": reason, "message": message}
    return Answer(status, json.dumps(document | {"details": details}).encode())


def _ok(document: Document) -> Answer:
    return Answer(200, json.dumps(document).encode())


def _pairs(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.split(",") if part)


def _field(document: Document, path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return value
