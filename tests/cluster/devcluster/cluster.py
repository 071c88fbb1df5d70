"""One cluster: its folder, its settings, its ports, its kubeconfigs."""

import base64
import json
import os
import random
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster.devcluster import binaries, places, process
from tests.cluster.devcluster.certificates import Authority, inline, kubeconfig
from tests.cluster.devcluster.failure import ClusterError

# Addresses of private use that nothing usual sits on (Docker 172.17, kind 10.244 and 10.96).
BRIDGE = "retrainer0"
BRIDGE_ADDRESS = "10.187.0.1"
POD_RANGE = "10.188.0.0/22"
SERVICE_RANGE = "10.189.0.0/22"
API_ADDRESS = "10.189.0.1"
DNS_ADDRESS = "10.189.0.10"
# Longest socket address that the kernel takes is 108 bytes; containerd's adds this much.
_LONGEST_FOLDER = 70


@dataclass(frozen=True)
class Settings:
    """What `up` was asked for; a cluster keeps its settings until it is taken down."""

    size: str = "control-plane"
    simulated_nodes: int = 0
    bench: bool = False
    access_key: str = "retrainer"
    secret_key: str = "retrainer-secret"


class Cluster:
    """Everything of a cluster lies in one folder, so that `down` can delete it."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,20}", name):
            raise ClusterError(
                f"{name!r} is no name for a cluster: small letters, digits, dashes, at most 21."
            )
        self.name = name
        self.folder = places.state() / name
        self.records = self.folder / "processes"
        self.logs = self.folder / "logs"
        self.audit_log = self.logs / "audit.log"
        self.authority = Authority(self.folder / "certificates")
        self._file = self.folder / "cluster.json"
        self._contents: dict[str, Any] = {}
        if self._file.exists():
            self._contents = json.loads(self._file.read_text())

    @property
    def exists(self) -> bool:
        return bool(self._contents)

    @property
    def settings(self) -> Settings:
        return Settings(**self._contents["settings"])

    @property
    def is_node(self) -> bool:
        return self.settings.size == "node"

    def create(self, settings: Settings) -> None:
        """Write the settings down before anything starts, so that `down` works from here on."""
        if len(str(self.folder)) > _LONGEST_FOLDER:
            raise ClusterError(f"{self.folder} is too long for sockets: set RETRAINER_STATE.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        self._contents = {"settings": asdict(settings), "ports": {}}
        self._save()

    def remember(self, key: str, fact: object) -> None:
        """Something that `down` needs to know, such as a setting to put back."""
        self._contents[key] = fact
        self._save()

    def recall(self, key: str) -> Any:
        return self._contents.get(key)

    def port(self, component: str) -> int:
        """The component's port, chosen free at first and the same from then on."""
        ports: dict[str, int] = self._contents["ports"]
        if component not in ports:
            ports[component] = _free_port(set(ports.values()))
            self._save()
        return ports[component]

    @property
    def address(self) -> str:
        """Where the API server and the kubelet listen: pods must reach it on a node."""
        return BRIDGE_ADDRESS if self.is_node else "127.0.0.1"

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.port('kube-apiserver')}"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.kubeconfig"

    def user_kubeconfig(self, user: str, groups: tuple[str, ...] = (), file: str = "") -> Path:
        """A kubeconfig with a certificate for this user; RBAC says what it may do."""
        file = file or re.sub(r"[^a-z0-9.-]", "-", ".".join((user, *groups)).lower())
        certificate, key = self.authority.issue(file, user, groups)
        who = {
            "client-certificate-data": inline(certificate),
            "client-key-data": inline(key),
        }
        return self._write(self.folder / f"{file}.kubeconfig", who, "default")

    def account_kubeconfig(self, namespace: str, account: str) -> Path:
        """A kubeconfig with a token of a ServiceAccount, as its pods would have it."""
        token = self.kubectl("create", "token", account, "-n", namespace, "--duration=24h").strip()
        file = self.folder / f"account.{namespace}.{account}.kubeconfig"
        return self._write(file, {"token": token}, namespace)

    def _write(self, file: Path, who: dict[str, str], namespace: str) -> Path:
        file.touch(mode=0o600)
        file.write_text(kubeconfig(self.server, self.authority.certificate, who, namespace))
        return file

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and give back what it printed."""
        command = [str(binaries.path("kubectl")), "--kubeconfig", str(self.admin), *arguments]
        # Its cache of the API's shape goes into the cluster's folder, not into the home folder.
        environment = os.environ | {"KUBECACHEDIR": str(self.folder / "kubectl")}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def running(self) -> list[process.Record]:
        return process.read_all(self.records)

    def _save(self) -> None:
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self._contents, indent=1))
        unfinished.rename(self._file)


def every_cluster() -> Iterator[Cluster]:
    """All that were brought up and not taken down."""
    for file in sorted(places.state().glob("*/cluster.json")):
        yield Cluster(file.parent.name)


def secret(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _free_port(taken: set[int]) -> int:
    """Below the range from which the kernel takes ports for outgoing connections (32768), so that
    nothing takes it while a component is restarted; and below Kubernetes' node ports."""
    for port in random.sample(range(20000, 30000), 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise ClusterError("Of 200 ports tried between 20000 and 30000, none is free.")
