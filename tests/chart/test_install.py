"""The chart in a real API server: accepted, installed, upgraded, uninstalled; pods are simulated.

Real pods, and jobs that run meanwhile, are in tests/cluster on the full node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.support.chart import WITH_IMAGES, get, helm_well, kubectl, rendered
from tests.support.devcluster_client import DevCluster, ensure

pytestmark = pytest.mark.cluster

JOB = {
    "apiVersion": "retrainer.dev/v1alpha1",
    "kind": "RetrainJob",
    "metadata": {"name": "flowers", "namespace": "team-a"},
    "spec": {
        "architecture": "mobilenet_0.50_224",
        "images": "s3://photos/flower_photos",
        "output": "s3://models/flowers",
    },
}
WAIT = ["--wait", "--timeout=240s"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[DevCluster]:
    with ensure("control-plane", name="chart-tests", simulated_nodes=2) as running:
        for name in ("wide", "narrow", "team-a", "team-b", "team-c"):
            running.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": name,
                        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                    },
                }
            )
        yield running


@pytest.fixture(scope="module")
def wide(cluster: DevCluster) -> Iterator[str]:
    """The ServiceAccount of a release that serves every namespace, with two replicas."""
    helm_well(
        "install",
        "rt",
        *WITH_IMAGES,
        "-n",
        "wide",
        "--set=operator.replicas=2",
        *WAIT,
        cluster=cluster,
    )
    yield "system:serviceaccount:wide:rt-retrainer-operator"
    helm_well("uninstall", "rt", "-n", "wide", "--ignore-not-found", *WAIT, cluster=cluster)


@pytest.fixture(scope="module")
def narrow(cluster: DevCluster, wide: str) -> Iterator[str]:
    """The ServiceAccount of a second release beside it, that serves team-a and team-b."""
    values = ["--set=namespaces={team-a,team-b}", "--set=crds.install=false"]
    helm_well("install", "rt", *WITH_IMAGES, "-n", "narrow", *values, *WAIT, cluster=cluster)
    yield "system:serviceaccount:narrow:rt-retrainer-operator"
    helm_well("uninstall", "rt", "-n", "narrow", *WAIT, cluster=cluster)


def _may(cluster: DevCluster, user: str, verb: str, what: str, namespace: str) -> bool:
    """Whether `user` may do `verb` to `what`: a resource, with :subresource or /name if need be."""
    resource, _, subresource = what.partition(":")
    asked = [verb, resource, f"--subresource={subresource}", "-n", namespace, f"--as={user}"]
    answer = kubectl(cluster, "auth", "can-i", *asked)
    assert answer.out.strip() in ("yes", "no"), answer.err
    return answer.out.strip() == "yes"


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["--set=namespaces={team-a,team-b}"],
        ["--set=operator.replicas=2", "--set=networkPolicy.enabled=true"],
        [
            "--set=networkPolicy.enabled=true",
            "--set=namespaces={team-a}",
            '--set-json=networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
            '--set-json=networkPolicy.apiServerTo=[{"ipBlock":{"cidr":"10.0.0.1/32"}}]',
        ],
        [
            "--set=labels.team=vision,operator.podLabels.team=operators",
            "--set=monitoring.dashboards.labels=null,trainer.resources=null",
            "--set=operator.imagePullSecrets={pull},operator.priorityClassName=system-cluster-critical",
            '--set-json=operator.tolerations=[{"key":"a","operator":"Exists"}]',
            '--set-json=operator.affinity={"nodeAffinity":{}}',
        ],
        [
            "--set=trainer.serviceAccount.create=true",
            "--set=trainer.serviceAccount.name=trainer",
            "--set=trainer.serviceAccount.namespaces={team-a,team-b}",
        ],
    ],
    ids=lambda values: " ".join(values) or "defaults",
)
def test_the_api_server_takes_every_object_and_knows_every_field(
    cluster: DevCluster, values: list[str]
) -> None:
    # Kinds of operators that are not installed here (ServiceMonitor and the like) come by values only.
    objects = rendered(*values, release="dry", namespace="wide")
    text = yaml.safe_dump_all(objects)
    answer = kubectl(
        cluster,
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        stdin=text,
    )
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == len(objects)
    assert "warning" not in answer.err.lower()


def test_helm_installs_against_the_server_in_a_dry_run(cluster: DevCluster) -> None:
    out = helm_well(
        "install", "dry", *WITH_IMAGES, "-n", "wide", "--dry-run=server", cluster=cluster
    )
    assert "helm test dry --namespace wide" in out


# --- installed ---
def test_both_replicas_run_in_a_restricted_namespace(cluster: DevCluster, wide: str) -> None:
    deployment = get(cluster, "deployment/rt-retrainer-operator", "-n", "wide")
    assert deployment["status"]["readyReplicas"] == 2
    pods = get(cluster, "pods", "-n", "wide", "-l", "app.kubernetes.io/component=operator")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert get(cluster, "pdb/rt-retrainer-operator", "-n", "wide")["spec"]["minAvailable"] == 1


ALLOWED = [
    ("retrainjobs.retrainer.dev", ["get", "list", "watch", "delete"]),
    ("retrainjobs.retrainer.dev:status", ["patch"]),
    ("jobs.batch", ["get", "list", "watch", "create", "patch", "delete"]),
    ("pods", ["get", "list", "watch"]),
    ("events", ["list", "create"]),
]
FORBIDDEN = [
    ("secrets", ["get", "list", "watch", "create"]),
    ("configmaps", ["get", "create"]),
    ("pods", ["create", "delete", "patch"]),
    ("pods:exec", ["create"]),
    ("pods:log", ["get"]),
    ("serviceaccounts:token", ["create"]),
    ("retrainjobs.retrainer.dev", ["create", "update", "patch"]),
    ("deployments.apps", ["get", "create"]),
    ("rolebindings.rbac.authorization.k8s.io", ["create"]),
    ("customresourcedefinitions.apiextensions.k8s.io", ["get", "patch"]),
    ("nodes", ["list"]),
    ("namespaces", ["list"]),
]


def _pairs(table: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    return [(verb, resource) for resource, verbs in table for verb in verbs]


@pytest.mark.parametrize(("verb", "resource"), _pairs(ALLOWED))
def test_the_operator_may_do_its_work_where_it_serves(
    cluster: DevCluster, wide: str, narrow: str, verb: str, resource: str
) -> None:
    assert _may(cluster, wide, verb, resource, "team-c")
    assert _may(cluster, narrow, verb, resource, "team-a")
    assert not _may(cluster, narrow, verb, resource, "team-c")
    assert not _may(cluster, narrow, verb, resource, "narrow")


@pytest.mark.parametrize(("verb", "resource"), _pairs(FORBIDDEN))
def test_the_operator_may_do_nothing_else(
    cluster: DevCluster, wide: str, narrow: str, verb: str, resource: str
) -> None:
    for user in (wide, narrow):
        for namespace in ("wide", "narrow", "team-a"):
            assert not _may(cluster, user, verb, resource, namespace)


def test_the_operator_may_take_its_own_lease_and_no_other(cluster: DevCluster, wide: str) -> None:
    own, other = "leases/rt-retrainer-operator", "leases/kube-scheduler"
    for verb in ("get", "update"):
        assert _may(cluster, wide, verb, own, "wide")
        assert not _may(cluster, wide, verb, other, "wide")
        assert not _may(cluster, wide, verb, own, "team-a")
    assert _may(cluster, wide, "create", "leases", "wide")
    assert not _may(cluster, wide, "create", "leases", "team-a")


def test_those_who_edit_or_view_a_namespace_do_so_with_its_retrainjobs(
    cluster: DevCluster, wide: str
) -> None:
    for role in ("view", "edit", "admin"):
        cluster.kubectl(
            "create",
            "rolebinding",
            role,
            f"--clusterrole={role}",
            f"--user={role}er",
            "-n",
            "team-a",
        )
    job, status = "retrainjobs.retrainer.dev", "retrainjobs.retrainer.dev:status"
    for user in ("viewer", "editer", "adminer"):
        for verb in ("get", "list", "watch"):
            assert _may(cluster, user, verb, job, "team-a")
        assert not _may(cluster, user, "patch", status, "team-a")
        assert not _may(cluster, user, "get", job, "team-b")
    for verb in ("create", "update", "patch", "delete", "deletecollection"):
        assert not _may(cluster, "viewer", verb, job, "team-a")
        assert _may(cluster, "editer", verb, job, "team-a")
        assert _may(cluster, "adminer", verb, job, "team-a")


# --- upgraded, uninstalled, installed again; in this order, so last in the file ---
def test_an_upgrade_renews_the_crd_and_leaves_jobs_alone(cluster: DevCluster, wide: str) -> None:
    cluster.apply(JOB)
    before = get(cluster, "rj/flowers", "-n", "team-a")
    # As an older chart had it; kubectl then owns that field, which the upgrade takes back by force.
    stale = json.dumps({"spec": {"names": {"shortNames": ["old"]}}})
    cluster.kubectl("patch", "crd/retrainjobs.retrainer.dev", "--type=merge", "-p", stale)

    values = ["--set=operator.replicas=1", "--set=operator.logLevel=debug", "--force-conflicts"]
    helm_well("upgrade", "rt", *WITH_IMAGES, "-n", "wide", *values, *WAIT, cluster=cluster)

    names = get(cluster, "crd/retrainjobs.retrainer.dev")["spec"]["names"]
    assert names["shortNames"] == ["rj"]
    assert get(cluster, "deployment/rt-retrainer-operator", "-n", "wide")["spec"]["replicas"] == 1
    assert get(cluster, "pdb", "-n", "wide")["items"] == []
    after = get(cluster, "retrainjobs/flowers", "-n", "team-a")
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])


def test_uninstalling_keeps_the_crd_and_the_jobs_and_removes_the_rest(
    cluster: DevCluster, wide: str
) -> None:
    out = helm_well("uninstall", "rt", "-n", "wide", *WAIT, cluster=cluster)
    assert "CustomResourceDefinition" in out
    assert get(cluster, "retrainjobs/flowers", "-n", "team-a")["spec"]["shards"] == 1
    label = "app.kubernetes.io/instance=rt"
    kinds = "deployment,service,serviceaccount,role,rolebinding,networkpolicy,pdb,configmap"
    assert _names(get(cluster, kinds, "-n", "wide", "-l", label)) == []
    # The second release has its user roles there, and nothing else outside of its namespaces.
    left = _names(get(cluster, "clusterrole,clusterrolebinding", "-l", label))
    assert [name for name in left if not name.startswith("narrow-")] == []


def test_it_can_be_installed_again_over_the_kept_crd(cluster: DevCluster, wide: str) -> None:
    helm_well("install", "rt", *WITH_IMAGES, "-n", "wide", *WAIT, cluster=cluster)
    assert get(cluster, "retrainjobs/flowers", "-n", "team-a")["metadata"]["name"] == "flowers"
    cluster.kubectl("delete", "retrainjobs/flowers", "-n", "team-a")


def _names(listed: Any) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]
