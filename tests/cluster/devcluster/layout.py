"""An OCI image layout in the cache: images that share their layers, each layer stored once.

Nearly two gigabytes of the trainer's image never change between two builds. The builder writes
only new layers here, and a node is sent only those that it lacks: seconds instead of a minute.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_VERSION = "oci-layout"
_INDEX = "index.json"
_REFERENCE = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"


class Layout:
    """The folder that the builder pushes to; an image is known in it by its target's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def descriptor(self, target: str) -> dict[str, Any]:
        """What the index says of the image that was pushed last for this target."""
        for entry in self._index()["manifests"]:
            if entry.get("annotations", {}).get(_REFERENCE) == target:
                return {key: entry[key] for key in ("mediaType", "digest", "size")}
        raise KeyError(target)

    def prune(self) -> None:
        """Delete the layers that no image in the index has any more."""
        wanted = {digest for entry in self._index()["manifests"] for digest in self._digests(entry)}
        for blob in (self.folder / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in wanted:
                blob.unlink()

    def stream(
        self, descriptor: dict[str, Any], name: str, present: set[str], sink: IO[bytes]
    ) -> None:
        """Write the image to `sink` as containerd imports it, without the blobs it has already."""
        index = {
            "schemaVersion": 2,
            "manifests": [descriptor | {"annotations": {_NAME: name}}],
        }
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            _add(tar, _VERSION, (self.folder / _VERSION).read_bytes())
            _add(tar, _INDEX, json.dumps(index).encode())
            for digest in dict.fromkeys(self._digests(descriptor)):
                if digest not in present:
                    tar.add(self._blob(digest), f"blobs/{digest.replace(':', '/')}")

    def _digests(self, descriptor: dict[str, Any]) -> Iterator[str]:
        manifest = json.loads(self._blob(descriptor["digest"]).read_bytes())
        yield descriptor["digest"]
        yield manifest["config"]["digest"]
        for layer in manifest["layers"]:
            yield layer["digest"]

    def _blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "/")

    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = json.loads((self.folder / _INDEX).read_bytes())
        return index


def _add(tar: tarfile.TarFile, name: str, contents: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(contents)
    tar.addfile(header, io.BytesIO(contents))
