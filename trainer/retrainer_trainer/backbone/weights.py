"""Where a network's ImageNet weights come from; nothing here needs TensorFlow."""

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrainer.api import Architecture, RetrainJobSpec, architecture, reasons
from retrainer.api.architectures import SIZES
from retrainer.errors import NotFound, RetrainerError, StorageError, UserError
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Store

BUILTIN = Path(__file__).parents[1] / "builtin" / "mobilenet_0.25_128.weights.h5"

# The URL from which Keras Applications (keras/src/applications/{mobilenet,inception_v3}.py) takes them.
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop"
_SUFFIXES = (".weights.h5", ".h5")
_MAX_BYTES = 1024**3
_LISTED = 10
_MIRROR = "weights"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        origin: the path or URL that it was read from, for messages.
        body: the bytes of an HDF5 file as Keras writes it.
        sha256: of `body`, in hex.
    """

    origin: str
    body: bytes
    sha256: str

    @classmethod
    def of(cls, origin: str, body: bytes) -> "Weights":
        """Take a file's bytes and compute their digest."""
        return cls(origin, body, hashlib.sha256(body).hexdigest())


def find_weights(
    spec: RetrainJobSpec, cache: Store, log: Callable[[str], None], warn: Callable[[str], None]
) -> Weights:
    """Read the weights that `spec.weights` names.

    Raises:
        UserError: there are none for this architecture; the message lists what is there.
        StorageError: they cannot be downloaded.
    """
    network = architecture(spec.architecture or "")
    if spec.weights == "builtin":
        return Weights.of("builtin", BUILTIN.read_bytes())
    if spec.weights == "imagenet":
        return _downloaded(network, cache, log)
    if spec.weights.endswith(".h5"):
        folder, _, name = spec.weights.rpartition("/")
        return _read(spec, folder or ".", name)
    name = _choose(spec, network, warn)
    return _read(spec, spec.weights, name)


def file_stems(network: Architecture) -> list[str]:
    """List the files that fit, without suffix: first the one for the network's size, then the others."""
    if not network.is_mobilenet:
        return [_INCEPTION_FILE]
    width = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[network.width]
    others = [size for size in SIZES if size != network.size]
    return [f"mobilenet_{width}_{size}_tf_no_top" for size in (network.size, *others)]


def _choose(spec: RetrainJobSpec, network: Architecture, warn: Callable[[str], None]) -> str:
    store = open_store(spec.weights, spec.storage, "spec.weights")
    try:
        names = {entry.path for entry in store.list() if "/" not in entry.path}
    except NotFound as error:
        raise _missing(spec, "no such folder") from error
    for i, stem in enumerate(file_stems(network)):
        for suffix in _SUFFIXES:
            if stem + suffix in names:
                if i:
                    warn(
                        f"{spec.weights} has no weights of {network.backbone}: {stem}{suffix}, "
                        "trained at another size, is used instead; it is a little less accurate."
                    )
                return stem + suffix
    files = sorted(name for name in names if name.endswith(".h5"))
    listed = ", ".join(files[:_LISTED]) or "no .h5 file"
    more = len(files) - _LISTED
    raise _missing(spec, listed + (f" and {more} more" if more > 0 else ""))


def _missing(spec: RetrainJobSpec, listed: str) -> RetrainerError:
    return reasons.WEIGHTS_NOT_FOUND.error(
        architecture=spec.architecture, url=spec.weights, listed=listed
    )


def _read(spec: RetrainJobSpec, folder: str, name: str) -> Weights:
    store = open_store(folder, spec.storage, "spec.weights")
    try:
        size = store.head(name).size
        if size > _MAX_BYTES:
            raise UserError(
                f"spec.weights: {folder}/{name} has {size} bytes, at most 1 GiB is read."
            )
        return Weights.of(f"{folder}/{name}", store.get(name))
    except NotFound as error:
        raise _missing(spec, "no such file") from error


def _downloaded(network: Architecture, cache: Store, log: Callable[[str], None]) -> Weights:
    """Read the file that Keras publishes.

    From the cache, where the first pod leaves it, from Keras' own folder on this machine, or from the
    internet.
    """
    name = file_stems(network)[0] + ".h5"
    kept = f"{_MIRROR}/{name}"
    with contextlib.suppress(NotFound):
        return Weights.of(f"{cache.url.rstrip('/')}/{kept}", cache.get(kept))
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / name
    if home.is_file():
        return Weights.of(str(home), home.read_bytes())
    origin = f"{_KERAS_URL}/{'mobilenet' if network.is_mobilenet else 'inception_v3'}/{name}"
    log(f"Downloading {origin}.")
    body = download(origin)
    cache.put(kept, body)
    return Weights.of(origin, body)


def download(url: str) -> bytes:
    """Download a published file of weights, whole, since everyone who shares the cache will use it.

    Raises:
        StorageError: no connection, one that was cut, or what came is not an HDF5 file.
    """
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a constant, https
            body: bytes = answer.read()
    except http.client.HTTPException as error:
        raise _no_download(url, "the connection was cut") from error
    except OSError as error:
        raise _no_download(url, _cause(error)) from error
    if not body.startswith(_HDF5):
        raise _no_download(url, "what came is not an HDF5 file, perhaps a proxy's page")
    return body


def _cause(error: OSError) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return "its host name is not known on this machine"
    if isinstance(reason, ssl.SSLError):
        return "its certificate is not trusted, or no TLS is spoken there"
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return (isinstance(reason, OSError) and reason.strerror) or "the connection failed"


def _no_download(url: str, detail: str) -> StorageError:
    return StorageError(
        f"spec.weights: imagenet cannot be downloaded from {url} ({detail}); without internet, put "
        "the file into a folder and name that in spec.weights."
    )
