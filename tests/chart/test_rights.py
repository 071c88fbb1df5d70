"""The real operator with no more than the rights and the environment that the chart gives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.chart import WITH_IMAGES, get, helm_well, rendered
from tests.support.devcluster_client import DevCluster, ensure
from tests.support.ports import free_port

pytestmark = pytest.mark.cluster

SPEC = {
    "architecture": "mobilenet_0.50_224",
    "images": "s3://photos/flower_photos",
    "output": "s3://models/flowers",
}


@dataclass(frozen=True)
class Operator:
    """A running operator, and the namespaces it is and is not to serve."""

    cluster: DevCluster
    release: str
    serves: str
    ports: tuple[int, int]
    log: Path

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.release}:rt-retrainer-operator"


def _until(check: Callable[[], Any], what: str, log: Path, seconds: float = 120) -> Any:
    """Call `check`, which makes a request, until its answer is true, and return that answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := check():
            return answer
    pytest.fail(f"{what} not within {seconds} s; the operator's log:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DevCluster]:
    with ensure("control-plane", name="chart-rights", simulated_nodes=1) as running:
        for name in ("wide", "narrow", "team-a", "team-b"):
            running.kubectl("create", "namespace", name)
        yield running


@pytest.fixture(params=["wide", "narrow"])
def operator(
    request: pytest.FixtureRequest, cluster: DevCluster, tmp_path: Path
) -> Iterator[Operator]:
    """One process per form of RBAC; the Deployment's own pods are not wanted, so none is made."""
    release = request.param
    values = ["--set=namespaces={team-a}"] if release == "narrow" else []
    # The second finds the CRD that the first one left.
    install = ["install", "rt", *WITH_IMAGES, "-n", release, "--take-ownership"]
    helm_well(*install, *values, cluster=cluster)
    cluster.kubectl("scale", "deployment/rt-retrainer-operator", "-n", release, "--replicas=0")
    objects = rendered(*values, namespace=release)
    (deployment,) = [o for o in objects if o["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = free_port(), free_port()
    environment = {e["name"]: e["value"] for e in container["env"] if "value" in e}
    environment |= {
        "POD_NAME": "operator-0",
        "POD_NAMESPACE": release,
        "KUBECONFIG": str(cluster.account_kubeconfig(release, "rt-retrainer-operator")),
        "RETRAINER_METRICS_PORT": str(ports[0]),
        "RETRAINER_PROBE_PORT": str(ports[1]),
        "RETRAINER_LOG_FORMAT": "text",
        "PATH": os.environ["PATH"],
    }
    log = tmp_path / "operator.log"
    command = [sys.executable, "-m", "retrainer_operator"]
    with log.open("w") as out, subprocess.Popen(command, env=environment, stderr=out) as process:
        try:
            yield Operator(cluster, release, "team-a", ports, log)
        finally:
            process.terminate()
            process.wait(60)
            helm_well("uninstall", "rt", "-n", release, "--wait", cluster=cluster)


def _job(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": SPEC,
    }


def test_a_retrainjob_gets_its_job_and_a_status_with_the_charts_rights(
    operator: Operator,
) -> None:
    cluster, name = operator.cluster, f"flowers-{operator.release}"
    cluster.apply(_job(name, operator.serves), _job(name, "team-b"))

    def is_served(namespace: str) -> bool:
        status = get(cluster, f"retrainjobs/{name}", "-n", namespace)["status"]
        return bool(status["reason"] != "WaitingForOperator")

    _until(lambda: is_served(operator.serves), "a status", operator.log)
    child = get(cluster, f"jobs/{name}-train", "-n", operator.serves)
    assert child["metadata"]["ownerReferences"][0]["name"] == name
    lease = get(cluster, "leases/rt-retrainer-operator", "-n", operator.release)
    assert lease["spec"]["holderIdentity"] == "operator-0"

    if operator.release == "wide":
        _until(lambda: is_served("team-b"), "a status in team-b", operator.log)
    else:
        assert not is_served("team-b")
    elsewhere = get(cluster, "jobs", "-n", "team-b")["items"]
    names = [job["metadata"]["name"] for job in elsewhere]
    assert (f"{name}-train" in names) == (operator.release == "wide")

    codes = {event["responseStatus"]["code"] for event in cluster.requests(operator.user)}
    assert codes
    assert 403 not in codes


def test_the_pod_of_helm_test_finds_the_operator_well(operator: Operator) -> None:
    objects = rendered(namespace=operator.release)
    (pod,) = [o for o in objects if o["kind"] == "Pod"]
    (script,) = pod["spec"]["containers"][0]["args"]
    # The Service's name and ports, as seen from here.
    script = script.replace(f"rt-retrainer-operator.{operator.release}.svc", "127.0.0.1")
    script = script.replace("8080/", f"{operator.ports[0]}/").replace(
        "8081/", f"{operator.ports[1]}/"
    )

    def tested() -> Any:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        return done if done.returncode == 0 else None

    done = _until(tested, "helm test succeeds", operator.log)
    assert "series of Retrainer on /metrics" in done.stdout
