"""Kubernetes, etcd and the rest, built from their pinned Go modules into the cache.

Built and not downloaded: the Go module proxy is the one source that every machine of this project
reaches, go.sum says what we get, and one `go.mod` line moves a version.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.devcluster import golang, places, watched
from tests.cluster.devcluster.failure import ClusterError, say

_KUBERNETES = "1.37.2"
_VERSION = "k8s.io/component-base/version"
# Without these the API server says it is v0.0.0-master and clients refuse to talk to it.
_KUBERNETES_FLAGS = (
    f"-X {_VERSION}.gitVersion=v{_KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37"
)


@dataclass(frozen=True)
class Binary:
    """One program: the folder of its module below tests/cluster/go, and its package."""

    name: str
    module: str
    package: str
    link_flags: str = ""
    tags: str = ""


def _kubernetes(name: str) -> Binary:
    return Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)


# In the order in which they are built: the small ones that other tests wait for come first.
BINARIES: dict[str, Binary] = {
    binary.name: binary
    for binary in (
        Binary("versitygw", "versitygw", "github.com/versity/versitygw/cmd/versitygw"),
        Binary("rclone", "rclone", "."),
        Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Binary("coredns", "coredns", "."),
        Binary("pause", "pause", "."),
        # Of some thirty clouds' service discoveries only the one that is used.
        Binary(
            "prometheus",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/prometheus",
            tags="remove_all_sd,enable_kubernetes_sd",
        ),
        Binary("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        Binary("kueue", "kueue", "sigs.k8s.io/kueue/cmd/kueue"),
    )
}

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE = (*CONTROL_PLANE, "kubelet", "kube-proxy", "coredns", "pause", "prometheus", "versitygw")


def path(name: str) -> Path:
    """Where the binary lies once it is built."""
    binary = BINARIES[name]
    return places.cache() / "bin" / _key(binary) / name


def ensure(names: Iterable[str]) -> dict[str, Path]:
    """Build those of the named binaries that the cache lacks; a build is announced and timed."""
    wanted = list(names)
    unknown = [name for name in wanted if name not in BINARIES]
    if unknown:
        raise ClusterError(f"No such binary: {', '.join(unknown)}. Known: {', '.join(BINARIES)}.")
    missing = [name for name in BINARIES if name in wanted and not path(name).exists()]
    if missing:
        with _one_build_at_a_time():
            go = golang.ensure()
            for number, name in enumerate(missing, 1):
                _build(go, BINARIES[name], f"[{number}/{len(missing)}]")
    return {name: path(name) for name in wanted}


def _key(binary: Binary) -> str:
    """Digest of all that decides the binary's bytes, so a changed pin is a new folder."""
    digest = hashlib.sha256(f"{binary.link_flags}{binary.tags}".encode())
    folder = places.GO_MODULES / binary.module
    for file in sorted(folder.glob("*")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, binary: Binary, count: str) -> None:
    target = path(binary.name)
    if target.exists():  # built by another process while we waited for the lock
        return
    say(f"{count} building {binary.name} ...")
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    options = ["-trimpath", "-mod=readonly", "-buildvcs=false"]
    options += ["-tags", binary.tags] if binary.tags else []
    options += ["-ldflags", f"-s -w {binary.link_flags}"]
    folder = places.GO_MODULES / binary.module
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    # The packages that the build cache lacks, in advance: `go build -v` prints each as it comes.
    stale = ["list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"]
    listing = watched.run(
        [go, *stale, *options, binary.package],
        lambda _: (
            f"{count} {binary.name}: fetching its modules, "
            f"{watched.duration(time.monotonic() - started)} so far"
        ),
        cwd=folder,
        env=environment,
    )
    packages = {line for line in listing.stdout.splitlines() if _is_package(line)}
    compiling = time.monotonic()
    # Niced: a build of minutes should not make the rest of a small machine unusable.
    done = watched.run(
        ["nice", "-n", "10", go, "build", "-v", *options, "-o", str(unfinished), binary.package],
        lambda lines: (
            f"{count} {binary.name}: "
            + progress(sum(map(_is_package, lines)), len(packages), time.monotonic() - compiling)
        ),
        cwd=folder,
        env=environment,
    )
    if done.returncode != 0:
        last = "\n".join(line for line in done.stdout.splitlines() if not _is_package(line))
        raise ClusterError(f"{binary.name} did not build:\n{last[-3000:]}")
    unfinished.rename(target)
    size = target.stat().st_size / 2**20
    lasted = watched.duration(time.monotonic() - started)
    say(f"{count} built {binary.name}: {lasted}, {size:.0f} MiB")


def _is_package(line: str) -> bool:
    """Whether go printed the path of a package, and not a sentence."""
    return bool(line) and " " not in line and not line.startswith("#")


def progress(compiled: int, packages: int, seconds: float) -> str:
    """How far a build is; the packages that are left are taken to be as large as the others."""
    lasted = watched.duration(seconds)
    if compiled >= packages:
        return f"linking, {lasted} so far"
    text = f"{compiled:,} of {packages:,} packages, {lasted} so far"
    if compiled:
        text += f", about {watched.duration(seconds * (packages - compiled) / compiled)} left"
    return text


@contextmanager
def _one_build_at_a_time() -> Iterator[None]:
    """Two builds at once would each take twice as long and compile the same packages."""
    folder = places.cache() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of these binaries to end ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
