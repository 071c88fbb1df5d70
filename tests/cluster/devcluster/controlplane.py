"""etcd, the API server, the controllers and the scheduler."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cluster.devcluster import binaries, process, waiting
from tests.cluster.devcluster.cluster import API_ADDRESS, SERVICE_RANGE, Cluster
from tests.cluster.devcluster.failure import say
from tests.cluster.devcluster.process import Component

_START_SECONDS = 180.0

# Tests count the writes of a user, and the reads of those who are no part of Kubernetes.
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["*"]
- level: None
  users: [system:apiserver, system:kube-controller-manager, system:kube-scheduler]
  verbs: [get, list, watch]
- level: None
  userGroups: [system:nodes, system:serviceaccounts:kube-system]
  verbs: [get, list, watch]
- level: Metadata
"""


def start(cluster: Cluster) -> None:
    """Start what does not run, in order, each once the one before it answers."""
    cluster.authority.prepare()
    (cluster.folder / "audit-policy.yaml").write_text(_AUDIT_POLICY)
    cluster.user_kubeconfig("admin", ("system:masters",), file="admin")
    etcd, *rest = _components(cluster)
    _run(cluster, [etcd])
    _run(cluster, rest[:1])
    _run(cluster, rest[1:])
    waiting.until(
        lambda: "default" in cluster.kubectl("get", "serviceaccounts", "-n", "default", "-oname"),
        _START_SECONDS,
        "the controllers make the default ServiceAccount",
        cluster.logs / "kube-controller-manager.log",
    )


def run(cluster: Cluster, component: Component, seconds: float = _START_SECONDS) -> None:
    """Start one component and wait until it is well."""
    _run(cluster, [component], seconds)


def _run(cluster: Cluster, components: list[Component], seconds: float = _START_SECONDS) -> None:
    """Those of one call start side by side."""
    records = [process.start(each, cluster.records, cluster.logs) for each in components]
    for record in records:
        waiting.until(
            partial(waiting.answers, record.health),
            seconds,
            f"{record.name} answers at {record.health}",
            cluster.logs / f"{record.name}.log",
            partial(process.is_alive, record),
        )
        say(f"  {record.name} is up (pid {record.pid})")


def _components(cluster: Cluster) -> Iterator[Component]:
    bench = cluster.settings.bench
    authority = cluster.authority.certificate
    yield _etcd(cluster)
    yield _api_server(cluster)
    port = cluster.port("kube-controller-manager")
    user = cluster.user_kubeconfig("system:kube-controller-manager")
    command = [
        str(binaries.path("kube-controller-manager")),
        *_client(user, port),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={cluster.authority.signing_key}",
        f"--root-ca-file={authority}",
        "--controllers=*",
    ]
    if bench:
        # At its default of 20 requests/s it, not the operator, would set the pace.
        command += ["--kube-api-qps=300", "--kube-api-burst=600", "--concurrent-job-syncs=20"]
    yield Component("kube-controller-manager", command, f"https://127.0.0.1:{port}/healthz")

    port = cluster.port("kube-scheduler")
    user = cluster.user_kubeconfig("system:kube-scheduler")
    command = [str(binaries.path("kube-scheduler")), *_client(user, port)]
    if bench:
        command += ["--kube-api-qps=300", "--kube-api-burst=600"]
    yield Component("kube-scheduler", command, f"https://127.0.0.1:{port}/healthz")


def _client(user: Path, port: int) -> list[str]:
    return [
        f"--kubeconfig={user}",
        f"--authentication-kubeconfig={user}",
        f"--authorization-kubeconfig={user}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
    ]


def _etcd(cluster: Cluster) -> Component:
    client, peer = (f"http://127.0.0.1:{cluster.port(name)}" for name in ("etcd", "etcd-peer"))
    metrics = f"http://127.0.0.1:{cluster.port('etcd-metrics')}"
    command = [
        str(binaries.path("etcd")),
        f"--data-dir={cluster.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--listen-metrics-urls={metrics}",
        # The cluster is thrown away: what a power cut would lose is not worth a wait for the disk.
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]
    return Component("etcd", command, f"{metrics}/readyz")


def _api_server(cluster: Cluster) -> Component:
    names = ["DNS:localhost", "IP:127.0.0.1", f"IP:{API_ADDRESS}", f"IP:{cluster.address}"]
    names += [f"DNS:kubernetes{end}" for end in ("", ".default", ".default.svc")]
    names += ["DNS:kubernetes.default.svc.cluster.local"]
    certificate, key = cluster.authority.issue("kube-apiserver", "kube-apiserver", (), tuple(names))
    client, client_key = cluster.authority.issue(
        "kube-apiserver-kubelet", "kube-apiserver", ("system:masters",)
    )
    authority = cluster.authority.certificate
    command = [
        str(binaries.path("kube-apiserver")),
        f"--etcd-servers=http://127.0.0.1:{cluster.port('etcd')}",
        f"--bind-address={cluster.address}",
        f"--secure-port={cluster.port('kube-apiserver')}",
        f"--advertise-address={cluster.address}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={authority}",
        f"--kubelet-certificate-authority={authority}",
        f"--kubelet-client-certificate={client}",
        f"--kubelet-client-key={client_key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={cluster.authority.verification_key}",
        f"--service-account-signing-key-file={cluster.authority.signing_key}",
        f"--audit-policy-file={cluster.folder / 'audit-policy.yaml'}",
        f"--audit-log-path={cluster.audit_log}",
        "--audit-log-maxsize=2000",
        "--allow-privileged=true",
        "--profiling=false",
    ]
    if not cluster.is_node:
        # Kubernetes refuses a loopback address as an endpoint of its own Service.
        command += ["--endpoint-reconciler-type=none"]
    if cluster.settings.bench:
        command += ["--max-requests-inflight=1200", "--max-mutating-requests-inflight=600"]
    return Component("kube-apiserver", command, f"{cluster.server}/readyz")
