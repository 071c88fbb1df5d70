"""Retrainer installed on a full node, for end-to-end tests: chart, buckets with photos, namespaces.

Everything a test does goes through kubectl, as its user's would; S3 is read and written from here.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import yaml
from tests.support.chart import CHART, helm_well
from tests.support.devcluster_client import DevCluster, S3Access

from retrainer.api import Report

RELEASE_NAMESPACE = "retrainer"
SECRET = "s3-credentials"
REPORT_TIMEOUT = 2.0


def install(cluster: DevCluster, *values: str) -> None:
    """Install or upgrade the chart with the images built here, the operator's pods restricted too."""
    namespace(cluster, RELEASE_NAMESPACE)
    images = [
        f"--set={part}.image.{key}={value}"
        for part in ("operator", "trainer")
        for key, value in (
            ("repository", f"{cluster.image_prefix}/{part}"),
            ("tag", cluster.image_tag),
        )
    ]
    # Two cores in all: the defaults ask for more than two jobs at once could get.
    small = [
        "--set=trainer.resources.requests.cpu=100m",
        "--set=trainer.resources.requests.memory=512Mi",
    ]
    # An image of the same tag may be a new one: a pod of this build has to replace the last.
    fresh = f"--set-string=operator.podAnnotations.installed={time.time():.0f}"
    helm_well(
        "upgrade", "--install", "retrainer", str(CHART), "--namespace", RELEASE_NAMESPACE,
        "--wait", "--timeout", "360s", *images, *small, fresh, *values, cluster=cluster,
    )  # fmt: skip


def namespace(cluster: DevCluster, name: str) -> None:
    """A namespace on which the restricted Pod Security level is enforced."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )


def bucket_of(s3: S3Access, name: str) -> "Bucket":
    """Return the bucket; create it if it is missing."""
    client: Any = boto3.session.Session().client("s3", **s3.client_options())
    if name not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)
    return Bucket(client, name)


@dataclass(frozen=True)
class Bucket:
    """One bucket, seen from this machine."""

    client: Any
    name: str

    def upload(self, folder: Path, prefix: str) -> int:
        """Upload every file below `folder` under `prefix`; return how many there are."""
        files = [f for f in folder.rglob("*") if f.is_file()]

        def put(file: Path) -> None:
            key = f"{prefix}/{file.relative_to(folder).as_posix()}"
            self.client.put_object(Bucket=self.name, Key=key, Body=file.read_bytes())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, files))
        return len(files)

    def keys(self, prefix: str) -> list[str]:
        """All keys under `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """One object."""
        body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body


@dataclass
class Installation:
    """What a test works with, in a namespace of its own."""

    cluster: DevCluster
    namespace: str
    bucket: Bucket
    endpoint: str
    applied: list[str] = field(default_factory=list)

    def manifest(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """A RetrainJob over the uploaded flowers; `spec` adds to it and replaces."""
        whole = {
            "architecture": "mobilenet_0.50_160",
            "images": f"s3://{self.bucket.name}/flower_photos",
            "output": f"s3://{self.bucket.name}/out/{self.namespace}",
            "weights": f"s3://{self.bucket.name}/weights",
            "training": {"steps": 500},
            "storage": {"endpoint": self.endpoint, "secretName": SECRET},
        }
        return {
            "apiVersion": "retrainer.dev/v1alpha1",
            "kind": "RetrainJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": whole | spec,
        }

    def submit(self, name: str, **spec: Any) -> None:
        """Submit that job with `kubectl apply -f`."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(self.manifest(name, spec)))
        self.applied.append(name)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the test's namespace; return what it printed."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, kind: str, name: str = "", *arguments: str) -> Any:
        """The parsed output of `kubectl get -o json`."""
        named = [name] if name else []
        return json.loads(self.kubectl("get", kind, *named, *arguments, "-o", "json"))

    def status(self, name: str) -> dict[str, Any]:
        """The job's status."""
        status: dict[str, Any] = self.get("retrainjob", name).get("status", {})
        return status

    def complete(self, name: str, seconds: int = 600) -> dict[str, Any]:
        """Wait as a user would; return the status of the finished job.

        Raises:
            AssertionError: it did not complete, with all that is known of it.
        """
        ended = self.until(name, lambda s: s.get("phase") in ("Succeeded", "Failed"), seconds)
        assert ended["phase"] == "Succeeded", self.story(name)
        self.kubectl("wait", "--for=condition=Complete", "--timeout=60s", f"rj/{name}")
        return self.status(name)

    def until(
        self, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 240
    ) -> dict[str, Any]:
        """Wait until the job's status satisfies `holds`; return it.

        Raises:
            AssertionError: it did not within `seconds`; the message has all that is known of the job.
        """
        status: dict[str, Any] = self.eventually(
            lambda: self.status(name), holds, seconds, lambda: self.story(name), every=0.3
        )
        return status

    def eventually(
        self,
        look: Callable[[], Any],
        holds: Callable[[Any], bool],
        seconds: float,
        story: Callable[[], str] = str,
        every: float = 0.5,
    ) -> Any:
        """Call `look` until its value satisfies `holds`, at most for `seconds`; return the value."""
        deadline = time.monotonic() + seconds
        while True:
            value = look()
            if holds(value):
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s; last seen: {value}\n{story()}")
            _pause(every)

    def story(self, name: str) -> str:
        """Everything known of a job, for a failure's message."""
        parts = []
        for arguments in (
            ("describe", "rj", name),
            ("get", "jobs,pods", "-o", "wide"),
            ("logs", "-l", f"retrainer.dev/job={name}", "--tail=30", "--prefix"),
        ):
            try:
                parts.append(self.kubectl(*arguments))
            except RuntimeError as error:
                parts.append(str(error))
        return "\n".join(parts)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The trainer pods of a job that are still there, oldest first."""
        pods = self.get("pods", "", "-l", f"retrainer.dev/job={name}")["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def report(self, name: str) -> Report | None:
        """The report of the job's running pod, or None if the pod does not answer."""
        for pod in self.pods(name):
            address = pod["status"].get("podIP")
            if pod["status"]["phase"] != "Running" or not address:
                continue
            try:
                path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:9464"
                return Report.model_validate_json(
                    self.cluster.kubectl("get", "--raw", f"{path}/proxy/report")
                )
            except RuntimeError:
                continue
        return None

    def result(self, status: dict[str, Any]) -> Report:
        """`result.json` of the run that a status names."""
        return Report.model_validate_json(self.run_file(status, "result.json"))

    def run_file(self, status: dict[str, Any], path: str) -> bytes:
        """A file of the run's folder."""
        prefix = status["run"].removeprefix(f"s3://{self.bucket.name}/")
        return self.bucket.read(f"{prefix}/{path}")


def kill_processes(module: str) -> int:
    """Kill (SIGKILL) every `python -m <module>` in any container on this machine; return how many.

    A cluster of KUBECONFIG must run its containers here (kind, minikube's docker driver); needs root.
    """
    killed = 0
    ours = Path("/proc/self/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            contained = (entry / "ns" / "pid").readlink() != ours
        except OSError:
            continue
        if contained and b"-m" in arguments and module.encode() in arguments:
            os.kill(int(entry.name), signal.SIGKILL)
            killed += 1
    return killed


def _pause(seconds: float) -> None:
    """Wait between two looks at something outside this process."""
    time.sleep(seconds)
