"""Label images with a finished run: its TensorFlow Lite or ONNX file, no TensorFlow needed."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrainer.api import Storage
from retrainer.api.layout import EXPORT_PATHS, LABELS, RESULT, join
from retrainer.errors import NotFound, UserError
from retrainer.extras import import_onnxruntime
from retrainer.inference.leftovers import PICTURES, is_leftover, is_sidecar
from retrainer.store.folder import PARALLEL, Entry, Folder
from retrainer.store.s3 import Access

if TYPE_CHECKING:
    from retrainer.inference.preparing import Network

Image = str | Path | bytes


@dataclass(frozen=True)
class Prediction:
    """What an image was taken for.

    Attributes:
        image: its path as given; `bytes` for an image given as such.
        label: the best guess; "" if the image cannot be read.
        score: of the best guess, 0 to 1.
        scores: by label, best first; all of them add up to 1.
        error: why the image cannot be read, a sentence that names it; "" if it was read.
    """

    image: str
    label: str
    score: float
    scores: dict[str, float]
    error: str = ""


_JOB_FILES = (".yaml", ".yml", ".json")


def newest_run(output: str, storage: Storage | None = None, access: Access | None = None) -> str:
    """Path or URL of the newest whole run under `output`; `output` itself if it is a whole run.

    A run is whole when its `result.json` is there, which is written last.

    Raises:
        NotFound: there is no such folder, or no whole run in it.
        UserError: it is a file.
        StorageDenied, StorageError: the store refused, or cannot be reached.
    """
    folder = Folder(output, storage, access)
    if "://" not in output and Path(output).expanduser().is_file():
        raise UserError(_wrong_kind(output))
    if folder.exists(RESULT):
        return output
    names = [name for name in folder.folders() if not name.startswith(".")]
    with ThreadPoolExecutor(PARALLEL) as pool:
        results = list(pool.map(lambda name: _result(folder, name), names))
    whole = [(entry.modified, name) for name, entry in zip(names, results, strict=True) if entry]
    if not whole:
        begun = f"; unfinished or something else: {', '.join(names[:5])}" if names else ""
        raise NotFound(f"There is no finished run in {output}{begun}.")
    return join(output, max(whole)[1])


def _wrong_kind(path: str) -> str:
    """Write a sentence on a file that is given where a run or a job is expected."""
    ending = Path(path).suffix.lower()
    if ending in PICTURES:
        return f"{path} is a picture, not a run: name the run first, then the pictures."
    if ending in _JOB_FILES:
        return f"{path} is a file, not a run or the name of a job."
    return f"{path} is a file, not the folder of a run."


def _result(folder: Folder, run: str) -> Entry | None:
    entries = folder.entries(run)
    return next((e for e in entries if e.path.endswith(f"{run}/{RESULT}")), None)


class Classifier:
    """A run's exported network, ready to label images.

    Attributes:
        run: path or URL of the run's folder.
        labels: names, in the order of the network's outputs.
        size: height and width of its input, pixels.
    """

    def __init__(
        self, run: str, network: bytes, labels: Sequence[str], path: str = EXPORT_PATHS["tflite"]
    ) -> None:
        from retrainer.inference.preparing import pixels_of

        self.run = run
        self.labels = list(labels)
        try:
            self._network = _open(path, network)
            self._pixels = pixels_of(self._network)
        except ValueError as error:
            raise UserError(f"The network in {run} cannot be loaded: {error}.") from error
        self.size = self._network.size
        if self._network.label_count != len(self.labels):
            raise UserError(
                f"{run} has {len(self.labels)} labels, but its network has "
                f"{self._network.label_count} outputs: they are not from the same run."
            )

    @classmethod
    def open(
        cls, output: str, storage: Storage | None = None, access: Access | None = None
    ) -> Self:
        """Open the newest whole run under `output`, or the run that `output` is.

        Raises:
            NotFound: there is no such run, or it was exported neither as `tflite` nor as `onnx`.
            MissingExtra: it was exported as `onnx` alone, and ONNX Runtime is not installed.
            StorageDenied, StorageError: the store refused, or cannot be reached.
        """
        run = newest_run(output, storage, access)
        folder = Folder(run, storage, access)
        names = [EXPORT_PATHS[form] for form in ("tflite", "tfliteInt8", "onnx")]
        name = next((n for n in names if folder.exists(n)), None)
        if name is None:
            raise NotFound(
                f"{run} has no {names[0]}: run the job with tflite in spec.export to predict here."
            )
        if name == EXPORT_PATHS["onnx"]:
            import_onnxruntime()
        labels = folder.read(LABELS).decode().splitlines()
        return cls(run, folder.read(name), labels, name)

    def one(self, image: Image, top: int | None = None) -> Prediction:
        """Label one image, given by its path or its bytes; `scores` holds the `top` best labels.

        Raises:
            UserError: it cannot be read or is not an image; the message names it.
        """
        from retrainer.inference import pixels as images

        name = _name(image)
        body = image if isinstance(image, bytes) else _read(Path(image))
        try:
            pixels = self._pixels(body, self.size)
        except images.RejectedError as error:
            raise UserError(f"{name}: {error}") from error
        scores = self._network.scores(pixels[None])[0]
        order = np.argsort(-scores, kind="stable")
        ranked = {self.labels[i]: float(scores[i]) for i in order[:top]}
        return Prediction(name, self.labels[order[0]], float(scores[order[0]]), ranked)

    def each(self, images: Iterable[Image], top: int | None = None) -> list[Prediction]:
        """Label several images; one that cannot be read has its `error` and costs no other its answer.

        Raises:
            UserError: none of them can be read, the message names each; or `top` is less than 0.
        """
        if top is not None and top < 0:
            raise UserError(f"Give 0 or more as top, not {top}.")
        predictions: list[Prediction] = []
        errors: list[UserError] = []
        for image in images:
            try:
                predictions.append(self.one(image, top))
            except UserError as error:
                errors.append(error)
                predictions.append(Prediction(_name(image), "", 0.0, {}, str(error)))
        if errors and len(errors) == len(predictions):
            raise errors[0] if len(errors) == 1 else UserError("\n".join(map(str, errors)))
        return predictions


def _open(path: str, network: bytes) -> "Network":
    from retrainer.inference.onnx_network import OnnxNetwork
    from retrainer.inference.tflite import TfliteNetwork

    return OnnxNetwork(network) if path.endswith(".onnx") else TfliteNetwork(network)


def predict(
    output: str | Path,
    images: Iterable[Image] | Image,
    *,
    top: int | None = None,
    storage: Storage | None = None,
) -> list[Prediction]:
    """Label images with the newest whole run under `output`.

    Args:
        output: path or URL of a job's output, or of a run's folder.
        images: paths of images or of folders of images, or bytes; one or several.
        top: how many labels to keep in `scores`, the best; 0 keeps none, None all.
        storage: endpoint and region where `output` is an s3:// URL; keys are found as boto3 does.

    Returns:
        One prediction per image, in the same order; that of an image that cannot be read says so in
        its `error`.

    Raises:
        UserError: no image can be read.
        NotFound: there is no finished run.
    """
    place = str(output) if isinstance(output, Path) else output
    return Classifier.open(place, storage).each(files(images), top)


def files(images: Iterable[Image] | Image) -> list[Image]:
    """Replace each folder by the files directly in it, without those that by their names are no images.

    Raises:
        NotFound: a folder has no files.
        TypeError: an image is given as something else, such as an array.
    """
    chosen: list[Image] = []
    one = isinstance(images, (str, bytes)) or not isinstance(images, Iterable)
    each: Any = [images] if one else images
    for image in each:
        if not isinstance(image, (str, Path, bytes)):
            raise TypeError(
                "Give the paths of images, or what their files hold as bytes, "
                f"not {type(image).__name__}."
            )
        if isinstance(image, bytes) or not Path(image).expanduser().is_dir():
            chosen.append(image)
            continue
        within = sorted(Path(image).expanduser().iterdir())
        inside = [f for f in within if f.is_file() and not _is_no_image(f.name)]
        if not inside:
            raise NotFound(f"There are no files directly in the folder {image}.")
        chosen += inside
    return chosen


def _name(image: Image) -> str:
    return "bytes" if isinstance(image, bytes) else str(image)


def _is_no_image(name: str) -> bool:
    return is_leftover(name) or is_sidecar(name)


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
