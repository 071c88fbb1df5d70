"""One real node on this machine: containerd, the kubelet and kube-proxy.

containerd, the kubelet and every container live in a PID and a mount namespace of their own, held
by one process. When that process is ended the kernel ends all of them and drops all their mounts:
nothing can stay behind, however wrong a test went.
"""

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.devcluster import archives, binaries, controlplane, process, waiting
from tests.cluster.devcluster.cluster import BRIDGE_ADDRESS, DNS_ADDRESS, POD_RANGE, Cluster
from tests.cluster.devcluster.failure import ClusterError
from tests.cluster.devcluster.layout import Layout
from tests.cluster.devcluster.process import Component

NAME = "node"
HOLDER = "namespaces"
COMPONENTS = [HOLDER, "containerd", "kubelet", "kube-proxy"]
# Folders outside the cluster's own that these programs insist on -> where they really lie.
_PRIVATE = {
    "/run/containerd": "containerd/shims",
    "/run/netns": "network",
    "/var/lib/cni": "cni/state",
    "/var/lib/kubelet": "kubelet",
    "/var/log/containers": "logs/containers",
    "/var/log/pods": "logs/pods",
}


def start(cluster: Cluster) -> None:
    """Start what does not run, until the node is Ready."""
    _hold_namespaces(cluster)
    _start_containerd(cluster)
    for name in archives.SERVICES:
        load(cluster, archives.service(name))
    _start_kubelet(cluster)
    _start_kube_proxy(cluster)
    ready = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
    waiting.until(
        lambda: cluster.kubectl("get", "nodes", f"-ojsonpath={ready}") == "True",
        180.0,
        "the node is Ready",
        cluster.logs / "kubelet.log",
    )


def load(cluster: Cluster, archive: Path) -> None:
    """Import a container image into the node from an archive."""
    with archive.open("rb") as stream:
        done = subprocess.run(
            _ctr(cluster, "images", "import", "-"), stdin=stream, capture_output=True, check=False
        )
    if done.returncode != 0:
        raise ClusterError(f"{archive} was not imported: {done.stderr.decode().strip()}")


def load_shared(
    cluster: Cluster, layout: Layout, descriptor: dict[str, Any], reference: str
) -> None:
    """Import an image of which the node may have most layers already."""
    present = set(_listed(cluster, "content", "ls", "-q"))
    command = _ctr(cluster, "images", "import", "-")
    with tempfile.TemporaryFile() as errors:
        ctr = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
        assert ctr.stdin is not None
        with contextlib.suppress(BrokenPipeError), ctr.stdin as sink:
            layout.stream(descriptor, _full_name(cluster, reference), present, sink)
        if ctr.wait() != 0:
            errors.seek(0)
            raise ClusterError(f"{reference} was not imported: {errors.read().decode().strip()}")


def _full_name(cluster: Cluster, reference: str) -> str:
    """The reference as pods' are completed, learned from an image that containerd itself named."""
    pause = f"{archives.PREFIX}pause:dev"
    for name in _listed(cluster, "images", "ls", "-q"):
        if name.endswith(f"/{pause}"):
            return name.removesuffix(pause) + reference
    raise ClusterError(f"The node has no image {pause}: bring the cluster up again.")


def _listed(cluster: Cluster, *arguments: str) -> list[str]:
    done = subprocess.run(_ctr(cluster, *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"ctr {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.split()


def _ctr(cluster: Cluster, *arguments: str) -> list[str]:
    socket = str(_socket(cluster))
    return _inside(cluster, "ctr", "--address", socket, "--namespace", "k8s.io", *arguments)


def end(cluster: Cluster) -> None:
    """End all that runs in the node's namespaces, at once, and remove what it left outside."""
    holder = process.read(cluster.records, HOLDER)
    if holder is not None and process.is_alive(holder):
        namespace = str(Path(f"/proc/{holder.pid}/ns/pid_for_children").readlink())
        # unshare ignores SIGTERM; its death takes the namespace's first process with it.
        process.stop(holder, cluster.records, patience=0.0)
        waiting.until(
            lambda: not process.in_namespace(namespace), 60.0, "the node's processes are gone"
        )
    _remove_control_groups()
    for folder in cluster.recall("made") or []:
        path = Path(folder)
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _hold_namespaces(cluster: Cluster) -> None:
    holder = process.read(cluster.records, HOLDER)
    if holder is not None and process.is_alive(holder):
        return
    folders = list(cluster.recall("made") or [])
    marker = cluster.folder / "namespaces-ready"
    marker.unlink(missing_ok=True)
    script = ["set -e"]
    for public, private in _PRIVATE.items():
        if not Path(public).exists():
            Path(public).mkdir(parents=True)
            folders.append(public)
        (cluster.folder / private).mkdir(parents=True, exist_ok=True)
        script.append(f"mount --bind {shlex.quote(str(cluster.folder / private))} {public}")
    cluster.remember("made", folders)
    script += [f"touch {shlex.quote(str(marker))}", f"exec {binaries.path('pause')}"]
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    command += ["--mount-proc", "sh", "-c", "\n".join(script)]
    record = process.start(Component(HOLDER, command), cluster.records, cluster.logs)
    waiting.until(
        marker.exists,
        60.0,
        "the node's namespaces are made",
        cluster.logs / f"{HOLDER}.log",
        lambda: process.is_alive(record),
    )


def _inside(cluster: Cluster, *command: str) -> list[str]:
    """The command that runs this one in the node's namespaces."""
    holder = process.read(cluster.records, HOLDER)
    if holder is None or not process.is_alive(holder):
        raise ClusterError(f"Cluster {cluster.name} has no running node.")
    namespaces = f"/proc/{holder.pid}/ns"
    return [
        "nsenter",
        f"--mount={namespaces}/mnt",
        f"--pid={namespaces}/pid_for_children",
        "--",
        *command,
    ]


def _socket(cluster: Cluster) -> Path:
    return cluster.folder / "containerd.sock"


def _start_containerd(cluster: Cluster) -> None:
    folder = cluster.folder / "containerd"
    configuration = folder / "config.toml"
    configuration.write_text(
        f"""\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{_socket(cluster)}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{archives.PREFIX}pause:dev"
# Where root may not lower a score, runc would end without a word that helps.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{folder}/runc"
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cluster.folder}/cni"
"""
    )
    network = {
        "cniVersion": "1.0.0",
        "name": "retrainer",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (cluster.folder / "cni" / "10-retrainer.conflist").write_text(json.dumps(network))
    command = _inside(cluster, "containerd", "--config", str(configuration))
    record = process.start(Component("containerd", command), cluster.records, cluster.logs)
    asked = _ctr(cluster, "version")
    waiting.until(
        lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0,
        120.0,
        "containerd answers",
        cluster.logs / "containerd.log",
        lambda: process.is_alive(record),
    )


def _start_kubelet(cluster: Cluster) -> None:
    port, health = cluster.port("kubelet"), cluster.port("kubelet-health")
    certificate, key = cluster.authority.issue(
        "kubelet-server", NAME, (), (f"IP:{BRIDGE_ADDRESS}", f"DNS:{NAME}")
    )
    nameservers = cluster.folder / "resolv.conf"
    nameservers.write_text("")  # what pods look up stays in the cluster
    configuration = _write(
        cluster,
        "kubelet.json",
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": BRIDGE_ADDRESS,
            "port": port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": health,
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(cluster.authority.certificate)},
            },
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "containerRuntimeEndpoint": f"unix://{_socket(cluster)}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            # Chains that only cloud folders need, and that nothing would take away again.
            "makeIPTablesUtilChains": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS_ADDRESS],
            "resolvConf": str(nameservers),
            "maxPods": 500,
            "eventRecordQPS": 0,
            "registryPullQPS": 0,
            # A full disk is the developer's business; evicted pods would fail tests far from it.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        },
    )
    command = _inside(
        cluster,
        str(binaries.path("kubelet")),
        f"--config={configuration}",
        f"--kubeconfig={cluster.user_kubeconfig(f'system:node:{NAME}', ('system:nodes',))}",
        f"--hostname-override={NAME}",
        f"--node-ip={BRIDGE_ADDRESS}",
    )
    controlplane.run(cluster, Component("kubelet", command, f"http://127.0.0.1:{health}/healthz"))


def _start_kube_proxy(cluster: Cluster) -> None:
    health, metrics = cluster.port("kube-proxy"), cluster.port("kube-proxy-metrics")
    configuration = _write(
        cluster,
        "kube-proxy.json",
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(cluster.user_kubeconfig("system:kube-proxy"))},
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": NAME,
            "healthzBindAddress": f"127.0.0.1:{health}",
            "metricsBindAddress": f"127.0.0.1:{metrics}",
            # The machine's table of connections is left as large as it is.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        },
    )
    command = [str(binaries.path("kube-proxy")), f"--config={configuration}"]
    controlplane.run(
        cluster, Component("kube-proxy", command, f"http://127.0.0.1:{health}/healthz")
    )


def _write(cluster: Cluster, name: str, contents: dict[str, Any]) -> Path:
    file = cluster.folder / name
    text = json.dumps(contents, indent=1)
    # Left untouched where it is right: kube-proxy ends itself when its file is written to.
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def _remove_control_groups() -> None:
    """The kubelet's groups hold no process any more; the innermost goes first."""
    mounts = Path("/sys/fs/cgroup")
    roots = [mounts / "kubepods", *mounts.glob("*/kubepods"), *mounts.glob("*/k8s.io")]
    for root in (root for root in roots if root.is_dir() and not root.is_symlink()):
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue  # somebody else's kubelet on this machine has pods in it
