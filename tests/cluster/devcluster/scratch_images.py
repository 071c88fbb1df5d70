"""Container images of one static program, written without any builder.

A container image is a tar of files and two JSON documents; for the cluster's own services that is
quicker than a builder, and it leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path

import binaries

PREFIX = "retrainer/devcluster-"
_USER = 65532


@dataclass(frozen=True)
class Scratch:
    """The image `retrainer/devcluster-<name>:dev`: with the static program at /<name>."""

    name: str

    @property
    def reference(self) -> str:
        return f"{PREFIX}{self.name}:dev"


def service_images() -> list[Scratch]:
    """What a node needs besides the project's own images."""
    return [Scratch(name) for name in ("pause", "coredns", "versitygw", "prometheus")]


def archive(image: Scratch) -> Path:
    """The image as an archive in the cache, beside the program and so under the same key."""
    target = binaries.path(image.name).with_name(f"{image.name}.image.tar")
    if not target.exists():
        unfinished = target.with_suffix(".unfinished")
        _write(image, unfinished)
        unfinished.rename(target)
    return target


def _write(image: Scratch, target: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _folder(tar, "tmp", 0o1777)
        _file(tar, image.name, binaries.path(image.name).read_bytes())
    diff = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    configuration = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{image.name}"], "User": f"{_USER}:{_USER}"},
            "rootfs": {"type": "layers", "diff_ids": [diff]},
        }
    ).encode()
    name = hashlib.sha256(configuration).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [image.reference], "Layers": ["layer.tar"]}]
    with tarfile.open(target, mode="w") as tar:
        _file(tar, name, configuration)
        _file(tar, "layer.tar", layer.getvalue())
        _file(tar, "manifest.json", json.dumps(manifest).encode())


def _file(tar: tarfile.TarFile, name: str, contents: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(contents), 0o755
    tar.addfile(entry, io.BytesIO(contents))


def _folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
