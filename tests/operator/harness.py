"""The real operator as a process of its own against a real API server, for tests and benches."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from tests.support.chart import REPOSITORY, install_crd, rendered
from tests.support.devcluster_client import DevCluster, ensure
from tests.support.ports import free_port

Body = dict[str, Any]
T = TypeVar("T")

NAME = "operator"
ACCOUNT = "system:serviceaccount:retrainer:rt-retrainer-operator"
KWOK = "kwok.retrainer.dev"
_JOBS = "/apis/retrainer.dev/v1alpha1"


PATIENCE = 120.0
"""Seconds for which a test waits for what takes a few: other programs may want the same cores."""


def eventually(wanted: Callable[[], T | None], *, within: float = PATIENCE, what: str = "") -> T:
    """What `wanted` gives once it gives something; the test fails after `within` seconds."""
    end = time.monotonic() + within
    while True:
        value = wanted()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what or wanted}; last seen: {value!r}")
        time.sleep(0.05)


class Api:
    """Raw requests as the administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Body:
        answer: Body = json.loads(self._text(method, path, body, **query))
        return answer

    def _text(self, method: str, path: str, body: Any = None, **query: str) -> str:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        url = self._client.configuration.host + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {"Accept": "application/json", "Content-Type": kind}
        response = self._client.call_api(method, url, headers, body)
        text = response.read()
        if response.status >= 400:
            raise client.ApiException(status=response.status, reason=text.decode(errors="replace"))
        return str(text, "utf-8")

    def find(self, path: str) -> Body | None:
        try:
            return self.call("GET", path)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Body]:
        items: list[Body] = self.call("GET", path, **query)["items"]
        return items

    def version(self, path: str) -> str:
        """The resource version of a list as it is now."""
        return str(self.call("GET", path)["metadata"]["resourceVersion"])

    def events_since(self, path: str, version: str) -> list[Body]:
        """The watch events of a list after that version, oldest first."""
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
        return [json.loads(line) for line in self._text("GET", path, **query).splitlines()]


class Namespace:
    """A namespace of its own for a test, and what is in it."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name
        self._jobs = f"{_JOBS}/namespaces/{name}/retrainjobs"
        self._children = f"/apis/batch/v1/namespaces/{name}/jobs"
        self._since = api.version(self._children)

    def apply(self, name: str, *, annotations: Body | None = None, labels: Body | None = None,
              job_annotations: Body | None = None, **spec: Any) -> Body:  # fmt: skip
        """A RetrainJob; `annotations` go to its pods and tell kwok how they run."""
        pods = {f"{KWOK}/{k}": v for k, v in (annotations or {}).items()}
        pod = spec.pop("pod", {})
        body = {
            "apiVersion": "retrainer.dev/v1alpha1",
            "kind": "RetrainJob",
            "metadata": {
                "name": name, "labels": labels or {}, "annotations": job_annotations or {},
            },
            "spec": {
                "architecture": "mobilenet_0.50_224",
                "images": "s3://photos/flower_photos",
                "output": "s3://models/flowers",
                "pod": {**pod, "annotations": pods},
                **spec,
            },
        }  # fmt: skip
        return self.api.call("POST", self._jobs, body)

    def edit(self, job: str, **spec: Any) -> Body:
        return self.api.call("PATCH", f"{self._jobs}/{job}", {"spec": spec})

    def delete(self, job: str) -> None:
        self.api.call("DELETE", f"{self._jobs}/{job}")

    def jobs(self) -> list[str]:
        return [job["metadata"]["name"] for job in self.api.items(self._jobs)]

    def job(self, name: str) -> Body | None:
        return self.api.find(f"{self._jobs}/{name}")

    def status(self, name: str) -> Body:
        job = self.job(name)
        return (job or {}).get("status") or {}

    def child(self, name: str) -> Body | None:
        return self.api.find(f"{self._children}/{name}")

    def children(self) -> list[Body]:
        return self.api.items(self._children)

    def children_created(self) -> list[str]:
        """Names of all children ever made here, once for each time; also those that are gone.

        As the API server's watch has them: its audit log has another code than 201 where the client
        was killed before the answer.
        """
        events = self.api.events_since(self._children, self._since)
        return [e["object"]["metadata"]["name"] for e in events if e["type"] == "ADDED"]

    def pods(self, job: str) -> list[Body]:
        selector = f"retrainer.dev/job={job}"
        return self.api.items(f"/api/v1/namespaces/{self.name}/pods", labelSelector=selector)

    def running(self, job: str, count: int = 1) -> list[Body]:
        """The job's running pods, once there are so many."""

        def run() -> list[Body]:
            pods = [p for p in self.pods(job) if "deletionTimestamp" not in p["metadata"]]
            return [p for p in pods if p.get("status", {}).get("phase") == "Running"]

        return eventually(
            lambda: pods if len(pods := run()) == count else None,
            what=f"{count} running pods of {job}",
        )

    def end_pods(self, job: str, *, count: int = 1, code: int = 0, message: str = "") -> None:
        """End the job's running pods, which are so many, as the kubelet would."""
        for pod in self.running(job, count):
            ended = {
                "exitCode": code,
                "reason": "Error" if code else "Completed",
                "message": message,
                "startedAt": pod["metadata"]["creationTimestamp"],
                "finishedAt": pod["metadata"]["creationTimestamp"],
            }
            self.set_pod(
                pod["metadata"]["name"],
                phase="Failed" if code else "Succeeded",
                containerStatuses=[
                    {"name": "trainer", "image": "x", "imageID": "x", "ready": False,
                     "restartCount": 0, "state": {"terminated": ended}}
                ],
            )  # fmt: skip

    def set_pod(self, name: str, **status: Any) -> None:
        """As the kubelet would."""
        path = f"/api/v1/namespaces/{self.name}/pods/{name}/status"
        self.api.call("PATCH", path, {"status": status})

    def events(self, job: str) -> list[Body]:
        selector = f"involvedObject.name={job},involvedObject.kind=RetrainJob"
        return self.api.items(f"/api/v1/namespaces/{self.name}/events", fieldSelector=selector)

    def until(self, job: str, *, within: float = PATIENCE, **wanted: str) -> Body:
        """The status once it has these values."""

        def matching_status() -> Body | None:
            status = self.status(job)
            return status if all(status.get(k) == v for k, v in wanted.items()) else None

        try:
            return eventually(matching_status, within=within)
        except AssertionError as error:
            raise AssertionError(f"{job} is not {wanted}: {self.status(job)}") from error


class Operator:
    """One replica: `python -m retrainer_operator` with the chart's own rights."""

    def __init__(self, kubeconfig: Path, log: Path, identity: str, **environment: str) -> None:
        self.identity = identity
        self.log = log
        self.metrics_port, self.probe_port = free_port(), free_port()
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RETRAINER_")},
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": identity,
            "POD_NAMESPACE": "retrainer",
            "RETRAINER_LEASE_NAME": "rt-retrainer-operator",
            "RETRAINER_TRAINER_IMAGE": "trainer:test",
            "RETRAINER_ALLOWED_POD_METADATA_PREFIXES": f"{KWOK}/",
            "RETRAINER_BIND_ADDRESS": "127.0.0.1",
            "RETRAINER_METRICS_PORT": str(self.metrics_port),
            "RETRAINER_PROBE_PORT": str(self.probe_port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Operator:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retrainer_operator"],
                cwd=REPOSITORY,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            eventually(self.ready, within=120, what=f"readiness; see {self.log}")
        return self

    def ready(self) -> bool:
        return self.probe("readyz") == 200

    def probe(self, name: str) -> int:
        try:
            return int(_open(f"http://127.0.0.1:{self.probe_port}/{name}").status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> str:
        text: bytes = _open(f"http://127.0.0.1:{self.metrics_port}/metrics").read()
        return text.decode()

    def leads(self) -> bool:
        try:
            return "retrainer_leader 1.0" in self.metrics()
        except OSError:
            return False

    def memory(self) -> float:
        """Resident, MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process = None
        return code


class Bed:
    """A control plane with the CRD and the chart's rights, and as many operators as a test starts."""

    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.api = Api(cluster.kubeconfig)
        self._running: list[Operator] = []
        self._number = 0

    def rights(self, *namespaces: str) -> None:
        """The chart's ServiceAccount and RBAC: the whole cluster's, or these namespaces'."""
        sets = ["--set", f"namespaces={{{','.join(namespaces)}}}"] if namespaces else []
        kinds = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
        self.namespace("retrainer")
        objects = [o for o in rendered(*sets) if o["kind"] in kinds]
        self.cluster.apply(*(o for o in objects if "helm.sh/hook" not in str(o["metadata"])))

    def no_rights(self) -> None:
        self.cluster.kubectl(
            "delete", "--ignore-not-found", "clusterrolebinding,clusterrole",
            "retrainer-rt-retrainer-operator",
        )  # fmt: skip

    def team(self, name: str) -> Namespace:
        """A namespace that no earlier run on this cluster has left anything in."""
        return self.namespace(f"{name}-{secrets.token_hex(3)}")

    def namespace(self, name: str) -> Namespace:
        path = "/api/v1/namespaces"
        if self.api.find(f"{path}/{name}") is None:
            self.api.call("POST", path, {"metadata": {"name": name}})
        return Namespace(self.api, name)

    @contextmanager
    def operator(
        self, identity: str = "", *, wait: bool = True, **environment: str
    ) -> Iterator[Operator]:
        """A replica until the block ends."""
        self._number += 1
        identity = identity or f"operator-{self._number}"
        kubeconfig = self.cluster.account_kubeconfig("retrainer", "rt-retrainer-operator")
        log = self.folder / f"{identity}.log"
        replica = Operator(kubeconfig, log, identity, **environment)
        try:
            yield replica.start(wait=wait)
        finally:
            replica.stop()

    def writes(self, **wanted: str) -> list[Body]:
        """The operator's writes at the API server (audit log), Lease and rights checks left out."""
        return [
            event
            for event in self.cluster.requests(ACCOUNT)
            if event["objectRef"]["resource"] not in ("leases", "selfsubjectaccessreviews")
            and all(event["objectRef"].get(k) == v for k, v in wanted.items())
        ]


def bring_up(folder: Path, name: str = NAME) -> Bed:
    """The control plane of the operator's tests, new or the one that is there."""
    cluster = ensure("control-plane", name=name, simulated_nodes=3, bench=True)
    install_crd(cluster)
    bed = Bed(cluster, folder)
    bed.rights()
    return bed


def _open(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=30)
