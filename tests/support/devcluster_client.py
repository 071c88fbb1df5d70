"""The development cluster, for tests: `ensure` one and get what a test needs to know of it.

    from tests.support.devcluster_client import ensure

    with ensure("control-plane", name="operator", simulated_nodes=4) as cluster:
        cluster.kubectl("get", "nodes")

The tool in tests/cluster/devcluster does the work, in a process of its own. With KUBECONFIG set
(kind, minikube, ...) that cluster stands in for a node, with container images pushed or loaded by
whoever set it; see `_given`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tests.support import devcluster_tool

Size = Literal["control-plane", "node"]

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class S3Access:
    """The cluster's S3 server: how pods reach it, how this machine does, and as whom."""

    for_pods: str
    for_host: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of `boto3.client("s3", ...)` on this machine."""
        return {
            "endpoint_url": self.for_host,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def secret(self, name: str, namespace: str) -> dict[str, Any]:
        """The Secret that a RetrainJob's `storage.secretName` names."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {
                "AWS_ACCESS_KEY_ID": self.access_key,
                "AWS_SECRET_ACCESS_KEY": self.secret_key,
            },
        }


@dataclass(frozen=True)
class DevCluster:
    """A running cluster; fields that a cluster given by KUBECONFIG cannot fill are None."""

    name: str
    size: Size
    kubeconfig: Path
    kubectl_program: str
    started_here: bool
    image_prefix: str
    image_tag: str
    logs: Path | None = None
    audit_log: Path | None = None
    s3: S3Access | None = None
    prometheus: str | None = None

    @property
    def from_kubeconfig(self) -> bool:
        """Whether this is the cluster of KUBECONFIG, which is not ours to start or stop."""
        return self.logs is None

    def image(self, target: str) -> str:
        """The reference of the `operator` or `trainer` image in this cluster."""
        return f"{self.image_prefix}/{target}:{self.image_tag}"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator; return its output. A failure raises with its message."""
        command = [self.kubectl_program, "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user of one's own naming, who may do what RBAC gives it."""
        more = [f"--group={group}" for group in groups]
        return Path(
            devcluster_tool.run("kubeconfig", "--name", self.name, "--user", user, *more).strip()
        )

    def account_kubeconfig(self, namespace: str, account: str) -> Path:
        """A kubeconfig for an existing ServiceAccount, with a token of 24 hours."""
        which = f"{namespace}/{account}"
        return Path(
            devcluster_tool.run("kubeconfig", "--name", self.name, "--account", which).strip()
        )

    def load(self, *targets: str) -> None:
        """Build and import container images: `operator`, `trainer`, `python`, or an archive."""
        if not self.from_kubeconfig:
            devcluster_tool.run("load", "--name", self.name, *targets)

    def requests(self, user: str, writes_only: bool = True) -> Iterator[dict[str, Any]]:
        """The API server's audit events of this user, oldest first, as it wrote them.

        A ServiceAccount's user is `system:serviceaccount:<namespace>:<name>`.
        """
        if self.audit_log is None:
            raise RuntimeError("A cluster given by KUBECONFIG has no audit log for us to read.")
        with self.audit_log.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n") or user not in line:
                    continue  # the API server may still be writing the last line
                event: dict[str, Any] = json.loads(line)
                if event["user"].get("username") != user:
                    continue
                if event["verb"] in _WRITES or not writes_only:
                    yield event

    def stop(self, keep_logs: bool = False) -> None:
        """Take it down; one given by KUBECONFIG is left as it is."""
        if not self.from_kubeconfig:
            devcluster_tool.run(
                "down", "--name", self.name, *(["--keep-logs"] if keep_logs else [])
            )

    def __enter__(self) -> DevCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take it down if this `ensure` brought it up; keep the logs if the block failed."""
        if self.started_here:
            self.stop(keep_logs=error is not None)


def ensure(
    size: Size = "control-plane",
    *,
    name: str = "test",
    simulated_nodes: int = 0,
    bench: bool = False,
    images: Sequence[str] = (),
) -> DevCluster:
    """A running cluster of this size: the one that is there, or a new one.

    Clusters of other names are left alone, so control planes can run beside a node. `images` are
    built and loaded (node only). A KUBECONFIG stands in for a node only: a control plane needs no
    more than Go, and its tests read the audit log and change definitions that all users share.
    """
    if size == "node":
        cluster = _from_kubeconfig(name)
        if cluster is not None:
            return cluster
    command = ["up", "--json", "--name", name, "--size", size, "--kwok", str(simulated_nodes)]
    if bench:
        command.append("--bench")
    facts = json.loads(devcluster_tool.run(*command))
    cluster = DevCluster(
        name=name,
        size=size,
        kubeconfig=Path(facts["kubeconfig"]),
        kubectl_program=facts["kubectl"],
        started_here=facts["new"],
        image_prefix="retrainer",
        image_tag="dev",
        logs=Path(facts["logs"]),
        audit_log=Path(facts["audit_log"]),
        s3=S3Access(**facts["s3"]) if "s3" in facts else None,
        prometheus=facts.get("prometheus"),
    )
    if images:
        cluster.load(*images)
    return cluster


def _from_kubeconfig(name: str) -> DevCluster | None:
    """The cluster of KUBECONFIG, unless that is one of ours.

    RETRAINER_TEST_IMAGES is the prefix of its images (`example.com/me` for
    `example.com/me/trainer:dev`), RETRAINER_TEST_TAG their tag. RETRAINER_TEST_S3 is the URL of an S3
    server that its pods reach, RETRAINER_TEST_S3_HOST the same server seen from here, AWS_* the keys.
    """
    kubeconfig = devcluster_tool.run("given").strip()
    if not kubeconfig:
        return None
    endpoint = os.environ.get("RETRAINER_TEST_S3")
    s3 = None
    if endpoint:
        missing = [n for n in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if n not in os.environ]
        if missing:
            raise RuntimeError(f"RETRAINER_TEST_S3 is set without {' and '.join(missing)}.")
        s3 = S3Access(
            for_pods=endpoint,
            for_host=os.environ.get("RETRAINER_TEST_S3_HOST", endpoint),
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            region=os.environ.get("AWS_REGION", "us-east-1"),
        )
    return DevCluster(
        name=name,
        size="node",
        kubeconfig=Path(kubeconfig),
        kubectl_program="kubectl",
        started_here=False,
        image_prefix=os.environ.get("RETRAINER_TEST_IMAGES", "retrainer"),
        image_tag=os.environ.get("RETRAINER_TEST_TAG", "dev"),
        s3=s3,
    )
