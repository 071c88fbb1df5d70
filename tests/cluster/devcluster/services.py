"""DNS, S3 and Prometheus as pods, so that all of a test's traffic stays in the cluster."""

import string

from tests.cluster.devcluster import places
from tests.cluster.devcluster.cluster import DNS_ADDRESS, Cluster

_S3_ADDRESS = "10.189.0.20"
_PROMETHEUS_ADDRESS = "10.189.0.30"

S3_FOR_PODS = "http://s3.storage:7070"
S3_FOR_HOST = f"http://{_S3_ADDRESS}:7070"
PROMETHEUS_FOR_HOST = f"http://{_PROMETHEUS_ADDRESS}:9090"

HEALTH = {
    "coredns": f"http://{DNS_ADDRESS}:8181/ready",
    "s3": f"{S3_FOR_HOST}/health",
    "prometheus": f"{PROMETHEUS_FOR_HOST}/-/ready",
}
_DEPLOYMENTS = (("kube-system", "coredns"), ("storage", "s3"), ("monitoring", "prometheus"))


def start(cluster: Cluster) -> None:
    """Apply services.yaml and wait until every Deployment in it is ready."""
    text = (places.FOLDER / "services.yaml").read_text()
    filled = string.Template(text).substitute(
        dns_address=DNS_ADDRESS,
        s3_address=_S3_ADDRESS,
        prometheus_address=_PROMETHEUS_ADDRESS,
        access_key=cluster.settings.access_key,
        secret_key=cluster.settings.secret_key,
    )
    cluster.kubectl("apply", "-f", "-", stdin=filled)
    for namespace, name in _DEPLOYMENTS:
        cluster.kubectl(
            "rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=240s"
        )
