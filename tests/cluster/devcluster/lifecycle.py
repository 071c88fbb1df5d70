"""Bring a cluster up, take it down, say how it is."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.devcluster import (
    binaries,
    controlplane,
    network,
    node,
    packages,
    places,
    process,
    services,
    simulated,
    waiting,
)
from tests.cluster.devcluster.cluster import Cluster, Settings, every_cluster
from tests.cluster.devcluster.failure import ClusterError, say

# The state is deleted right after, so nobody has anything to write down at leisure.
_PATIENCE = 3.0


def up(name: str, settings: Settings) -> tuple[Cluster, bool]:
    """Bring the cluster up, or start what of it has ended; and whether it is new.

    It is whole when this returns.
    """
    with _alone(name):
        cluster = Cluster(name)
        if cluster.exists and cluster.settings != settings:
            raise ClusterError(
                f"Cluster {name} is there with other settings ({cluster.settings}): "
                "take it down first, or give another --name."
            )
        _prepare_machine(name, settings)
        started = time.monotonic()
        new = not cluster.exists
        if new:
            cluster.create(settings)
        try:
            if cluster.is_node:
                network.prepare(cluster)
            controlplane.start(cluster)
            if settings.simulated_nodes:
                simulated.start(cluster)
            if cluster.is_node:
                node.start(cluster)
                services.start(cluster)
        except ClusterError as error:
            if not new:  # somebody works with it, or wants to see why it broke
                raise
            kept = _take_down(cluster, keep_logs=True)
            raise ClusterError(f"{error}\nThe logs are kept in {kept}.") from error
        say(f"cluster {name} is up after {time.monotonic() - started:.1f} s:\n  {cluster.admin}")
        return cluster, new


def facts(cluster: Cluster, new: bool) -> dict[str, Any]:
    """What tests ask for, as JSON."""
    contents: dict[str, Any] = {
        "new": new,
        "kubeconfig": str(cluster.admin),
        "kubectl": str(binaries.path("kubectl")),
        "logs": str(cluster.logs),
        "audit_log": str(cluster.audit_log),
    }
    if cluster.is_node:
        contents["prometheus"] = services.PROMETHEUS_FOR_HOST
        contents["s3"] = {
            "for_pods": services.S3_FOR_PODS,
            "for_host": services.S3_FOR_HOST,
            "access_key": cluster.settings.access_key,
            "secret_key": cluster.settings.secret_key,
        }
    return contents


def down(name: str, keep_logs: bool) -> None:
    """End every process of the cluster and delete all it has left on this machine."""
    with _alone(name):
        cluster = Cluster(name)
        if not cluster.folder.exists():
            say(f"cluster {name} is not there")
            return
        started = time.monotonic()
        kept = _take_down(cluster, keep_logs)
        say(f"cluster {name} is down after {time.monotonic() - started:.1f} s")
        if kept is not None:
            say(f"its logs are in {kept}")


def status(cluster: Cluster) -> bool:
    """Print a line per component; whether all that should run does, and is well."""
    whole = True
    for name in _expected(cluster):
        record = process.read(cluster.records, name)
        if record is None:
            print(f"{name:24} {'-':>12} {'-':>8}  NOT STARTED")
            whole = False
            continue
        alive = process.is_alive(record)
        well = alive and (not record.health or waiting.answers(record.health))
        word = "healthy" if well else "NOT HEALTHY" if alive else "ENDED"
        age = f"{time.time() - record.since:.0f} s" if alive else "-"
        print(f"{name:24} pid {record.pid:<8} {age:>8}  {word:12} {record.health}")
        whole = whole and well
    if cluster.is_node:
        for name, url in services.HEALTH.items():
            well = waiting.answers(url)
            print(f"{name:24} {'pod':12} {'':>8}  {'healthy' if well else 'NOT HEALTHY':12} {url}")
            whole = whole and well
    return whole


def _expected(cluster: Cluster) -> list[str]:
    names = [name for name in binaries.CONTROL_PLANE if name != "kubectl"]
    if cluster.settings.simulated_nodes:
        names.append("kwok")
    return names + (node.COMPONENTS if cluster.is_node else [])


def _prepare_machine(name: str, settings: Settings) -> None:
    """What must be there before anything starts; each gap is one clear sentence."""
    wanted = list(binaries.CONTROL_PLANE)
    if settings.simulated_nodes:
        wanted.append("kwok")
    if settings.size == "node":
        packages.need_root()
        if settings.simulated_nodes:
            raise ClusterError("Simulated nodes go with --size control-plane only.")
        for other in every_cluster():
            if other.name != name and other.is_node:
                raise ClusterError(
                    f"Cluster {other.name} has this machine's node: there can be one at a time."
                )
        packages.ensure(packages.NODE)
        wanted = list(binaries.NODE)
    binaries.ensure(wanted)


def _take_down(cluster: Cluster, keep_logs: bool) -> Path | None:
    if cluster.exists and cluster.is_node:
        node.end(cluster)
    for record in reversed(cluster.running()):
        process.stop(record, cluster.records, _PATIENCE)
    if cluster.exists and cluster.is_node:
        network.remove(cluster)
    kept: Path | None = None
    if keep_logs and cluster.logs.exists():
        kept = places.state() / f"{cluster.name}-logs"
        shutil.rmtree(kept, ignore_errors=True)
        cluster.logs.rename(kept)
    shutil.rmtree(cluster.folder)
    return kept


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """One `up` or `down` of a cluster at a time: two test runs may ask for the same one."""
    places.state().mkdir(parents=True, exist_ok=True)
    with (places.state() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
