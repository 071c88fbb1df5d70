"""How photos become pixels for an exported network: as its file says, or as listed networks want it."""

import json
from collections.abc import Callable
from pathlib import Path

from retrainer.api.layout import EXPORT_PATHS
from retrainer.inference import pixels
from retrainer.inference.onnx_network import OnnxNetwork
from retrainer.inference.preprocessing import Preprocessing
from retrainer.inference.tflite import TfliteNetwork

Network = TfliteNetwork | OnnxNetwork

MakePixels = Callable[[bytes, int], pixels.Pixels]
"""From an image's bytes and a side to pixels (side, side, 3), 0..255."""

PREPROCESSING = "preprocessing.json"
"""Name of the text beside the graph that says how photos become pixels."""


def pixels_of(network: Network) -> MakePixels:
    """What decodes images for this network.

    Raises:
        ValueError: its file says it in a form that is not read.
    """
    text = network.texts.get(PREPROCESSING)
    if text is None:  # of spec.architecture
        return pixels.pixels
    try:
        return Preprocessing.from_dict(json.loads(text)).pixels
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its {PREPROCESSING} is damaged, or of a newer Retrainer") from error


def pixels_of_export(folder: Path) -> MakePixels:
    """What decodes images for the exports in a run's folder, as the one that people use says.

    Raises:
        ImportError: there is an ONNX file alone, and ONNX Runtime is not installed.
        ValueError: that export is damaged.
    """
    if (tflite := folder / EXPORT_PATHS["tflite"]).is_file():
        return pixels_of(TfliteNetwork(tflite.read_bytes()))
    if (onnx := folder / EXPORT_PATHS["onnx"]).is_file():
        return pixels_of(OnnxNetwork(onnx.read_bytes()))
    return pixels.pixels
