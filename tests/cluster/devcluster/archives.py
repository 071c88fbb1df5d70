"""Container images written without any builder: an archive is a tar of files and two documents."""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.devcluster import binaries

PREFIX = "retrainer/devcluster-"
SERVICES = ("pause", "coredns", "versitygw", "prometheus")
_USER = 65532


def service(name: str) -> Path:
    """The archive of `retrainer/devcluster-<name>:dev`: one static program and a /tmp.

    It lies beside the program in the cache, and so under the same key.
    """
    program = binaries.path(name)
    target = program.with_name(f"{name}.image.tar")
    if not target.exists():
        with tempfile.NamedTemporaryFile(suffix=".tar") as layer:
            with tarfile.open(layer.name, mode="w") as tar:
                temporary = tarfile.TarInfo("tmp")
                temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
                tar.addfile(temporary)
                tar.add(program, name)
            configuration = {"Entrypoint": [f"/{name}"], "User": f"{_USER}:{_USER}"}
            write(target, f"{PREFIX}{name}:dev", Path(layer.name), configuration)
    return target


def write(target: Path, reference: str, layer: Path, configuration: Mapping[str, object]) -> None:
    """An image of one layer, as `docker load` and containerd read it."""
    with layer.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    document = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": configuration,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "retrainer devcluster"}],  # buildah wants one per layer
        }
    ).encode()
    name = hashlib.sha256(document).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    unfinished = target.with_suffix(".unfinished")
    with tarfile.open(unfinished, mode="w") as tar:
        tar.add(layer, "layer.tar")
        for entry, contents in ((name, document), ("manifest.json", json.dumps(manifest).encode())):
            header = tarfile.TarInfo(entry)
            header.size = len(contents)
            tar.addfile(header, io.BytesIO(contents))
    unfinished.rename(target)


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
