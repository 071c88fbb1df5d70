"""Networks of one's own on this machine or in S3: makes them, lists them, says what they hold.

Reading a network's file takes the trainer's libraries, and making one TensorFlow: both are done by the
trainer as a process of its own, as a run is.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from retrainer.api import Storage, reasons
from retrainer.api.backbone import ONNX_SUFFIX, TFLITE_SUFFIX
from retrainer.api.networks import ListedNetwork, NetworkFacts
from retrainer.errors import MissingExtra, NotFound, RetrainerError, UserError
from retrainer.extras import require_trainer
from retrainer.inference.preprocessing import CONFIG_FILE
from retrainer.store.folder import Folder
from retrainer.store.s3 import Access

# -P: a file of the current folder named like a library must not be imported in its place.
_PROGRAM = (sys.executable, "-P", "-m", "retrainer_trainer.backbone")

IMAGENET, NONE = "imagenet", "none"
"""Weights that are no file: the download, and random numbers to try things with."""

# Of several files in one folder, the one that a job takes.
_PREFERRED = ("model.onnx", "onnx/model.onnx", "backbone.tflite", "model.tflite")


def add_backbone(
    name: str,
    to: str | Path,
    *,
    weights: str | Path = IMAGENET,
    size: int | None = None,
    storage: Storage | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> NetworkFacts:
    """Make the folder of a network of Keras Applications: its file, how its pixels are, a README.

    Args:
        name: of the network as Keras has it, such as EfficientNetB0.
        to: path or URL of the folder.
        weights: `imagenet` for the download that Keras checks; the path of a .h5 file without the
            classifier, as Keras publishes it; `none` for random numbers.
        size: height and width of its input, pixels; the network's own if None.
        storage: endpoint and region where `to` is an s3:// URL.
        log: called with a sentence before what takes long.

    Returns:
        What was made.

    Raises:
        MissingExtra: TensorFlow is not installed.
        UserError: there is no such network, or the weights are not its own.
        StorageError: the weights cannot be downloaded, or the folder cannot be written.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtra(
            "Networks of Keras need TensorFlow, which is not installed here: "
            "pip install 'retrainer[tensorflow]'."
        )
    weights = str(weights)
    if weights not in {IMAGENET, NONE}:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise NotFound(f"There is no file {weights}: give a .h5 file, imagenet or none.")
        weights = str(path.absolute())
    request = {"do": "add", "name": name, "to": _place(to), "weights": weights, "size": size}
    return NetworkFacts.model_validate(_ask(request, storage, log))


def show_backbone(
    url: str | Path,
    image: str | Path | None = None,
    *,
    storage: Storage | None = None,
    **fields: Any,
) -> NetworkFacts:
    """Say what a network's folder or file holds, and run it on an image.

    Args:
        url: path or URL of the folder, or of an .onnx or .tflite file.
        image: path of a photo; none is run if None.
        storage: endpoint and region where `url` is an s3:// URL.
        fields: of spec.backbone, for what the files do not say: output, token, size, and so on.

    Raises:
        UserError: it cannot be a backbone, or something about it has to be said; the message says what.
        StorageError: the store does not answer.
    """
    require_trainer(what="onnxruntime")
    if image is not None and not Path(image).expanduser().is_file():
        raise NotFound(f"There is no file {image}.")
    backbone = {"url": _place(url), **{k: v for k, v in fields.items() if v is not None}}
    request = {
        "do": "show",
        "backbone": backbone,
        "image": None if image is None else str(Path(image).expanduser().absolute()),
    }
    return NetworkFacts.model_validate(_ask(request, storage))


def list_backbones(
    url: str | Path, *, storage: Storage | None = None, access: Access | None = None
) -> list[ListedNetwork]:
    """List the networks under a folder: those of its folders, and single files; none is opened.

    Args:
        url: path or URL of the folder.
        storage: endpoint and region where `url` is an s3:// URL.
        access: how this machine reaches that.

    Raises:
        NotFound: there is no such folder.
        StorageDenied, StorageError: the store refused, or cannot be reached.
    """
    entries = {entry.path: entry for entry in Folder(str(url), storage, access).entries()}
    networks: list[ListedNetwork] = []
    homes: dict[str, list[str]] = {}
    for path in entries:
        if path.endswith((ONNX_SUFFIX, TFLITE_SUFFIX)):
            homes.setdefault(_home(path), []).append(path)
    for home, paths in sorted(homes.items()):
        inside = {path.removeprefix(f"{home}/") if home else path: path for path in paths}
        usual = next((inside[name] for name in _PREFERRED if name in inside), None)
        for path in [usual] if usual else paths:
            beside = f"{home}/{CONFIG_FILE}" if home else CONFIG_FILE
            networks.append(
                ListedNetwork(
                    name=home or "." if usual else path,
                    file=path,
                    size=entries[path].size,
                    configured=beside in entries,
                )
            )
    return networks


def _home(path: str) -> str:
    """The folder that a network's file belongs to: the one above `onnx/`, as repositories have it."""
    folder = PurePosixPath(path).parent
    home = folder.parent if folder.name == "onnx" else folder
    return "" if str(home) == "." else str(home)


def _place(url: str | Path) -> str:
    text = str(url)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _ask(
    request: Mapping[str, Any],
    storage: Storage | None,
    log: Callable[[str], None] = lambda _: None,
    program: Sequence[str] = _PROGRAM,
) -> Any:
    """Have the trainer's program answer a request.

    Raises:
        RetrainerError: it could not; the message says why.
    """
    whole = {**request, "storage": (storage or Storage()).dump()}
    with tempfile.TemporaryFile() as chatter:
        try:
            child = subprocess.Popen(
                [*program, json.dumps(whole)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=chatter,
                encoding="utf-8",
            )
        except OSError as error:
            raise RetrainerError(f"Cannot start {program[0]}: {error.strerror}.") from error
        answer: dict[str, Any] = {}
        with child:
            try:
                for line in child.stdout or ():
                    event = json.loads(line)
                    if "log" in event:
                        log(str(event["log"]))
                    answer |= event
            except BaseException:
                child.terminate()
                raise
        if "result" in answer:
            return answer["result"]
        if "error" in answer:
            kind = reasons.error_class(
                answer["reason"],
                UserError if child.returncode == UserError.exit_code else RetrainerError,
            )
            raise kind(answer["error"], reason=answer["reason"])
        chatter.seek(0)
        lines = chatter.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        raise RetrainerError(f"The trainer ended with exit code {child.returncode}{last}")
