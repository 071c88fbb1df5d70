"""Reads a network's file, ONNX or TensorFlow Lite, without running it.

The file comes from anywhere, so everything that it says is checked before a runtime sees it: each
fault is one sentence that names the file and says what to do. `docs/reference/backbones.md` lists the
limits.
"""

from pathlib import Path

from retrainer.api import reasons
from retrainer.errors import RetrainerError
from retrainer_trainer.backbone.facts import SUFFIXES, Graph, check_file, refuse


def read_graph(path: Path, *, size: int | None = None, name: str = "") -> Graph:
    """Read and check a network's file.

    Args:
        path: an .onnx or .tflite file; external data of ONNX lies beside it.
        size: height and width to give it, where the file takes any; the file's own must be this.
        name: what messages call the file; its path if empty.

    Raises:
        UserError: the file cannot be a backbone; the message says why and what to do.
    """
    name = name or str(path)
    form = SUFFIXES.get(path.suffix)
    if form is None:
        refuse(name, "it is neither an .onnx nor a .tflite file")
    check_file(path, name)
    try:
        if form == "onnx":
            from retrainer_trainer.backbone.onnx_graphs import read_onnx

            return read_onnx(path, size, name)
        from retrainer_trainer.backbone.tflite_graphs import read_tflite

        return read_tflite(path.read_bytes(), size, name)
    except (RetrainerError, OSError, MemoryError):
        raise
    except Exception as error:
        # Whatever a library raises at bytes that are no network.
        detail = "it is damaged, or was not copied whole: copy it again"
        raise reasons.BACKBONE_REFUSED.error(file=name, detail=detail) from error
