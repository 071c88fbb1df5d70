"""A network of one's own: read from the folder or file that `spec.backbone` names, ready to run.

    place = _locate(...)                 # which file of the folder
    file = _read(place, _config(place))  # copied here and checked; what its images must be
    output = choose_output(file.graph)   # what of it becomes the bottleneck
    start_runtime(...)                   # LiteRT or ONNX Runtime

The fingerprint says nothing of where the files lie: the same network from two places shares its
bottlenecks.
"""

import hashlib
import itertools
import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from retrainer.api import BackboneSource, Export, Layout, RetrainJobSpec, reasons
from retrainer.api.backbone import ONNX_SUFFIX, TFLITE_SUFFIX
from retrainer.errors import NotFound, RetrainerError
from retrainer.inference import pixels, preprocessing
from retrainer.inference.preprocessing import CONFIG_FILE, Preprocessing, read_preprocessing
from retrainer_trainer.backbone.backbone import Backbone, Engine, bottleneck_of_grey, name_folder
from retrainer_trainer.backbone.facts import (
    FLOATS,
    Graph,
    Tensor,
    check_bytes,
    check_file,
    check_finite,
    refuse,
)
from retrainer_trainer.backbone.graphs import read_graph
from retrainer_trainer.backbone.onnx_graphs import external_files, whole_file
from retrainer_trainer.backbone.runtimes import (
    FindProviders,
    GivenNetwork,
    onnx_providers,
    start_runtime,
)
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import Log, Store

FIELD = "spec.backbone.url"
NAMES = ("model.onnx", "onnx/model.onnx", "backbone.tflite", "model.tflite")
"""Files that a folder is looked through for, in this order."""

_ONNX_FOLDER = "onnx"
_MOST_CONFIG_BYTES = 1024**2
_CHUNK_BYTES = 16 * 1024**2
_LISTED, _LOOKED_AT = 10, 1000


@dataclass(frozen=True, kw_only=True)
class GivenBackbone(Backbone):
    """A network of `spec.backbone`: its export is its own file with the head on it.

    Attributes:
        network: its file, and what of it is used.
    """

    network: GivenNetwork

    @property
    def export(self) -> Export:
        """The one format in which it is exported."""
        return Export(self.network.graph.format)


def open_given(
    spec: RetrainJobSpec,
    source: BackboneSource,
    cache: Store,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    stop: Stop | None = None,
    find_providers: FindProviders = onnx_providers,
) -> GivenBackbone:
    """Read the network of `spec.backbone`, and make it ready to run.

    ONNX runs through ONNX Runtime, on a GPU if that can use one; TensorFlow Lite through LiteRT.

    Raises:
        UserError: there is no such file, it cannot be a backbone, something about it has to be said in
            the spec, or its format is not the one that the job exports.
        StorageError: the store does not answer.
    """
    place = _locate(spec, source, log, stop)
    file = _read(place, source, _config(place), log)
    graph, prepared = file.graph, file.preprocessing
    form = Export(graph.format)
    if spec.export and spec.export != [form]:
        raise reasons.INVALID_SPEC.error(
            detail=f"spec.export: {', '.join(spec.export)}: the backbone {place.shown} is exported as "
            f"{form} only; leave spec.export out for that."
        )
    output = choose_output(graph, source, place.shown)
    network = GivenNetwork(file.body, graph, output.name, source.token, prepared)
    runtime = start_runtime(network, place.shown, warn, find_providers)
    if runtime.batch > 1:
        log(f"Bottlenecks are computed by ONNX Runtime on a GPU, in batches of {runtime.batch}.")
    width = output.shape[2 if len(output.shape) == 3 else 1]
    if width is None:
        width = len(bottleneck_of_grey(runtime.start(), prepared.size))
    digest = fingerprint(file.sha256, network, runtime.runs_on)
    name = f"{source.name}-{source.token}" if source.token else source.name
    name_folder(cache, digest, re.sub("[^A-Za-z0-9._-]", "-", name)[:100])
    return GivenBackbone(
        name=source.name,
        origin=place.shown,
        field=FIELD,
        size=prepared.size,
        width=width,
        multiply_adds=graph.multiply_adds,
        parameters=graph.parameters,
        pixels=prepared.pixels,
        fingerprint=digest,
        runs_on=runtime.runs_on,
        start=_Checked(runtime.start, prepared.size, width, place.shown),
        batch=runtime.batch,
        network=network,
    )


def fingerprint(sha256: str, network: GivenNetwork, runs_on: str) -> str:
    """Digest of all that decides a bottleneck's value, but for the image: 32 hex digits."""
    prepared = json.dumps(network.preprocessing.to_dict(), sort_keys=True)
    parts = (
        "backbone", sha256, network.output, network.token or "", prepared, pixels.VERSION,
        preprocessing.VERSION, runs_on,
    )  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


# --- finding its files ---
class _Place(NamedTuple):
    """The network's file and what lies beside it.

    Attributes:
        store: the folder that holds the file, or the one above a folder `onnx`.
        file: path of the network below it.
        shown: what messages call the file.
    """

    store: Store
    file: str
    shown: str


def _locate(spec: RetrainJobSpec, source: BackboneSource, log: Log, stop: Stop | None) -> _Place:
    url = source.url
    if url.endswith((ONNX_SUFFIX, TFLITE_SUFFIX)):
        folder, _, name = url.rpartition("/")
        if not folder and url.startswith("/"):
            folder = "/"
        above, _, last = folder.rpartition("/")
        if last == _ONNX_FOLDER:  # its configuration may lie above, as the repository has it
            folder, name = above, f"{last}/{name}"
        store = open_store(folder or ".", spec.storage, FIELD, log, stop)
        if not store.exists(name):
            raise _missing(url, "there is no such file")
        return _Place(store, name, url)
    store = open_store(url, spec.storage, FIELD, log, stop)
    for name in NAMES:
        if store.exists(name):
            return _Place(store, name, f"{url.rstrip('/')}/{name}")
    raise _missing(url, _listed(store))


def _missing(url: str, listed: str) -> RetrainerError:
    return reasons.BACKBONE_NOT_FOUND.error(url=url, listed=listed)


def _listed(store: Store) -> str:
    """Say what a folder without a network has: other networks first, which may be the ones meant."""
    try:
        paths = [entry.path for entry in itertools.islice(store.list(), _LOOKED_AT)]
    except NotFound:
        paths = []
    except RetrainerError as error:
        return str(error)
    networks = sorted(p for p in paths if p.endswith((ONNX_SUFFIX, TFLITE_SUFFIX)))
    if networks:
        more = f" and {len(networks) - _LISTED} more" if len(networks) > _LISTED else ""
        return f"name one of its files itself: {', '.join(networks[:_LISTED])}{more}"
    first = sorted(paths)[:_LISTED]
    return f"it holds {', '.join(first)}" if first else "it is empty, or there is no such folder"


def _config(place: _Place) -> Mapping[str, Any] | None:
    """Read the preprocessor_config.json beside the network or above its folder `onnx`."""
    folder = place.file.rpartition("/")[0]
    for name in dict.fromkeys((f"{folder}/{CONFIG_FILE}".lstrip("/"), CONFIG_FILE)):
        if not place.store.exists(name):
            continue
        shown = f"{place.store.url.rstrip('/')}/{name}"
        if place.store.head(name).size > _MOST_CONFIG_BYTES:
            raise _unreadable(shown, "it is larger than 1 MiB")
        try:
            config = json.loads(place.store.get(name))
        except (ValueError, RecursionError) as error:
            raise _unreadable(shown, "it is no JSON") from error
        if not isinstance(config, dict):
            raise _unreadable(shown, "it is no JSON object")
        return config
    return None


def _unreadable(file: str, detail: str) -> RetrainerError:
    return reasons.BACKBONE_INCOMPLETE.error(
        detail=f"{file} cannot be read: {detail}; copy it again, or remove it and set "
        "spec.backbone.mean and spec.backbone.std."
    )


# --- reading the network ---
class _File(NamedTuple):
    """A network's file as it was read: its bytes, their digest, and what it says of itself."""

    body: bytes
    sha256: str
    graph: Graph
    preprocessing: Preprocessing


def _read(
    place: _Place, source: BackboneSource, config: Mapping[str, Any] | None, log: Log
) -> _File:
    """Copy the network's files to this machine, up to a limit, and check them."""
    with tempfile.TemporaryDirectory(prefix="retrainer-backbone-") as folder:
        copy = _Copy(place, Path(folder))
        size = copy.check(place.file)
        if place.store.parallel > 1:
            log(f"Reading the backbone {place.shown} ({size / 1e6:,.0f} MB).")
        file = copy(place.file)
        check_file(file, place.shown)
        for name in _external_files(file, place.shown):
            copy(str(Path(place.file).parent / name))
        graph = read_graph(file, size=source.size, name=place.shown)
        prepared = read_preprocessing(
            config, source, size=graph.size, layout=_layout(graph), file=place.shown
        )
        if graph.size is None:  # it takes any size: what it costs shows once one is chosen
            graph = read_graph(file, size=prepared.size, name=place.shown)
        body = whole_file(file) if graph.format == "onnx" else file.read_bytes()
        return _File(body, copy.sha256.hexdigest(), graph, prepared)


class _Copy:
    """Copies files of a backbone from its store into a folder of this machine.

    Attributes:
        sha256: of all that was copied.
    """

    def __init__(self, place: _Place, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._bytes = 0
        self.sha256 = hashlib.sha256()

    def check(self, path: str) -> int:
        """Give the size of a file, if it may be copied.

        Raises:
            UserError: it is too large, with what was copied before it, a link, or not there.
        """
        store = self._place.store
        if isinstance(store, LocalStore) and store.is_link(path):
            refuse(
                self._place.shown,
                f"its file {path} is a symbolic link: put the file itself in its place (cp -L copies "
                "it)",
            )
        try:
            size = store.head(path).size
        except NotFound as error:
            refuse(self._place.shown, f"its file {path} is not there: copy that too ({error})")
        check_bytes(self._bytes + size, self._place.shown)
        return size

    def __call__(self, path: str) -> Path:
        """Copy a file, and give its place on this machine."""
        size = self.check(path)
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                end = min(start + _CHUNK_BYTES, size)
                (chunk,) = self._place.store.get_ranges(path, [start], [end])
                file.write(chunk)
                self.sha256.update(chunk)
        self._bytes += size
        return target


def _external_files(file: Path, shown: str) -> list[str]:
    if file.suffix != ONNX_SUFFIX:
        return []
    try:
        return external_files(file, shown)
    except RetrainerError:
        raise
    except Exception:  # what is wrong with it is said by read_graph, for every kind of file
        return []


def _layout(graph: Graph) -> Layout | None:
    if graph.layout is not None:
        return Layout(graph.layout)
    # What Hugging Face's exporters call pixels is always channels first.
    usual = graph.format == "onnx" and graph.input.name == "pixel_values"
    return Layout.NCHW if usual else None


# --- what of it becomes the bottleneck ---
def choose_output(graph: Graph, source: BackboneSource, shown: str) -> Tensor:
    """Choose the output that becomes the bottleneck: the one that is named, or the only fitting one.

    Raises:
        UserError: it does not exist or does not fit, or there is a choice that the spec has to make.
    """
    outputs = [output for output in graph.outputs if output.dtype in FLOATS]
    if source.output is not None:
        outputs = [output for output in outputs if output.name == source.output]
        if not outputs:
            names = ", ".join(output.name for output in graph.outputs)
            raise _incomplete(f"{shown} has no output {source.output}: set spec.backbone.output to "
                              f"one of {names}.")  # fmt: skip
    vectors = [output for output in outputs if _is_vector(output)]
    tokens = [output for output in outputs if len(output.shape) == 3]
    fitting = vectors if source.token is None and vectors else tokens
    if not fitting:
        shapes = "; ".join(f"{o.name} {_shown(o)}" for o in (outputs or graph.outputs))
        what = "a vector for each token" if source.token else "a vector for each image or token"
        refuse(shown, f"none of its outputs has {what} ({shapes}): {_remedy(source)}")
    if len(fitting) > 1:
        names = ", ".join(output.name for output in fitting)
        raise _incomplete(f"{shown} has several outputs that could be the bottleneck: set "
                          f"spec.backbone.output to one of {names}.")  # fmt: skip
    (chosen,) = fitting
    if len(chosen.shape) == 3 and source.token is None:
        raise _incomplete(f"The output {chosen.name} of {shown} has a vector for each token "
                          f"{_shown(chosen)}: set spec.backbone.token to cls (the first one) or "
                          "mean (the mean of all).")  # fmt: skip
    return chosen


def _is_vector(output: Tensor) -> bool:
    """Say whether an output is (images, numbers), or a map of one pixel as ResNet pools it."""
    return len(output.shape) == 2 or (len(output.shape) == 4 and output.shape[2:] == (1, 1))


def _remedy(source: BackboneSource) -> str:
    if source.token:
        return "leave spec.backbone.token out"
    return "export the network with a pooled output"


def _shown(output: Tensor) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in output.shape) + ")"


def _incomplete(detail: str) -> RetrainerError:
    return reasons.BACKBONE_INCOMPLETE.error(detail=detail)


# --- running it ---
class _Checked:
    """Gives engines, of which the first is tried on a plain picture."""

    def __init__(self, start: Callable[[], Engine], size: int, width: int, shown: str) -> None:
        self._start, self._size, self._width, self._shown = start, size, width, shown
        self._lock = threading.Lock()
        self._is_checked = False

    def __call__(self) -> Engine:
        engine = self._start()
        with self._lock:
            if not self._is_checked:
                bottleneck = bottleneck_of_grey(engine, self._size)
                check_finite(bottleneck, self._shown)
                if bottleneck.shape != (self._width,):
                    refuse(self._shown, f"it gives {len(bottleneck)} numbers for an image, and says "
                           f"that it gives {self._width}: export it again")  # fmt: skip
                self._is_checked = True
        return engine
