"""Kueue itself, as a process beside a control plane: its CRDs, its webhooks, one queue."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.devcluster import golang
from tests.operator.harness import Bed, Namespace, eventually
from tests.support import devcluster_tool
from tests.support.chart import until_established
from tests.support.ports import free_port

_MODULE = devcluster_tool.CHECKOUT / "tests" / "cluster" / "go" / "kueue"
_API = "kueue.x-k8s.io/v1beta2"
_PATH = f"/apis/{_API}"
# Jobs are all that the operator gives it; webhooks of other kinds would only be in the way.
_WATCHED = frozenset(
    {"jobs", "workloads", "clusterqueues", "localqueues", "resourceflavors", "cohorts"}
)
QUEUE = "training"


class Kueue:
    """A running Kueue whose one queue has room for `cpu`."""

    def __init__(self, bed: Bed, log: Path) -> None:
        self.log = log
        self._bed = bed

    def join(self, team: Namespace) -> None:
        """Give the namespace its local queue."""
        body = _object("LocalQueue", QUEUE, clusterQueue=QUEUE)
        self._bed.api.call("POST", f"{_PATH}/namespaces/{team.name}/localqueues", body)

    def workloads(self, team: Namespace) -> list[dict[str, Any]]:
        """The Workload that Kueue keeps for each Job."""
        return self._bed.api.items(f"{_PATH}/namespaces/{team.name}/workloads")

    def stop_policy(self, policy: str) -> None:
        """Set the queue's policy: `HoldAndDrain` evicts every Job, `None` admits them again."""
        body = {"spec": {"stopPolicy": policy}}
        self._bed.api.call("PATCH", f"{_PATH}/clusterqueues/{QUEUE}", body)


@contextmanager
def kueue(bed: Bed, folder: Path, *, cpu: str) -> Iterator[Kueue]:
    """Run Kueue until the block ends; afterwards the control plane is of no use without it."""
    program = devcluster_tool.binary("kueue")
    ports = [free_port() for _ in range(3)]
    certificates = folder / "certificates"
    authority = _certificates(certificates)
    for body in _manifests(bed, f"https://127.0.0.1:{ports[0]}", authority):
        bed.cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    until_established(bed.cluster)
    configuration = folder / "kueue.yaml"
    configuration.write_text(yaml.safe_dump(_configuration(ports, certificates)))
    log = folder / "kueue.log"
    # Kueue reads its metrics' certificate below /etc and nowhere else: it gets an /etc of its own,
    # which is gone with it.
    script = (
        "mount -t tmpfs none /etc && mkdir -p /etc/kueue/metrics && "
        f"ln -s {certificates} /etc/kueue/metrics/certs && "
        f"exec {program} --config={configuration} --kubeconfig={bed.cluster.kubeconfig}"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: _ready(ports[1]), within=180, what=f"Kueue; see {log}")
        for kind, plural, body in _queue(cpu):
            bed.api.call("POST", f"{_PATH}/{plural}", _object(kind, QUEUE, **body))
        yield Kueue(bed, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _manifests(bed: Bed, server: str, authority: str) -> list[dict[str, Any]]:
    """Kueue's own, from its module; its webhooks are called on this machine and not by a Service."""
    go = golang.ensure()
    module = json.loads(_run([go, "mod", "download", "-json", "sigs.k8s.io/kueue"], cwd=_MODULE))
    folder = Path(module["Dir"]) / "config" / "components"
    bodies = [
        body
        for part in ("crd", "webhook")
        for body in yaml.safe_load_all(bed.cluster.kubectl("kustomize", str(folder / part)))
    ]
    wanted = []
    for body in bodies:
        if body["kind"] == "CustomResourceDefinition":
            if "webhook" in (conversion := body["spec"].get("conversion", {})):
                called = {"url": f"{server}/convert", "caBundle": authority}
                conversion["webhook"]["clientConfig"] = called
            wanted.append(body)
        elif body["kind"].endswith("WebhookConfiguration"):
            body["webhooks"] = [h for h in body["webhooks"] if _watches(h)]
            for hook in body["webhooks"]:
                path = hook["clientConfig"]["service"]["path"]
                hook["clientConfig"] = {"url": server + path, "caBundle": authority}
            wanted.append(body)
    return wanted


def _watches(hook: dict[str, Any]) -> bool:
    kinds = {name.split("/")[0] for rule in hook["rules"] for name in rule["resources"]}
    return bool(kinds & _WATCHED)


def _configuration(ports: list[int], certificates: Path) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "webhook": {"host": "127.0.0.1", "port": ports[0], "certDir": str(certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{ports[1]}"},
        "metrics": {"bindAddress": f"127.0.0.1:{ports[2]}"},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False},
    }


def _queue(cpu: str) -> list[tuple[str, str, dict[str, Any]]]:
    resources = [
        {"name": "cpu", "nominalQuota": cpu},
        {"name": "memory", "nominalQuota": "100Gi"},
        {"name": "ephemeral-storage", "nominalQuota": "1Ti"},
    ]
    group = {
        "coveredResources": ["cpu", "memory", "ephemeral-storage"],
        "flavors": [{"name": QUEUE, "resources": resources}],
    }
    return [
        ("ResourceFlavor", "resourceflavors", {}),
        ("ClusterQueue", "clusterqueues", {"namespaceSelector": {}, "resourceGroups": [group]}),
    ]


def _object(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _certificates(folder: Path) -> str:
    """Write a self-signed certificate for this machine's address; return it in base64, to be trusted."""
    folder.mkdir()
    names = ["-subj", "/CN=kueue", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]
    _run(["openssl", "req", "-x509", *key, *names, *files])
    return base64.b64encode((folder / "tls.crt").read_bytes()).decode()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
