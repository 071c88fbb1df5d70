"""Metadata of TensorFlow Lite files: what MediaPipe Tasks and ML Kit need to label photos with them.

A table of TensorFlow Lite's metadata schema (metadata_schema.fbs, version M001) in a buffer of the
file, and the labels as a file packed to its end. MediaPipe refuses a float file without; its
NormalizationOptions of mean 0 and deviation 1 say that pixels go in as they are.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrainer.api import Crop
from retrainer.api.layout import LABELS
from retrainer.inference.preparing import PREPROCESSING
from retrainer.inference.preprocessing import Preprocessing
from retrainer_trainer.backbone.tflite import pack, unpack

_NAME = b"TFLITE_METADATA"
_IDENTIFIER = b"M001"
_OLDEST_READER = "1.0.0"

# Numbers of the schema: slots of its tables, members of its unions and enumerations.
_IMAGE_PROPERTIES, _RGB = 2, 1
_FEATURE_PROPERTIES = 1
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2
_BYTE = "byte"


def with_metadata(
    body: bytes, name: str, labels: Sequence[str], preprocessing: Preprocessing | None = None
) -> bytes:
    """Add metadata to a file, and the texts that are packed to its end.

    Args:
        body: the file of a network.
        name: the network's name.
        labels: the labels in the order of its scores.
        preprocessing: how photos become pixels, of a network of one's own.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpack(body)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(name, _photo(preprocessing)), np.uint8)
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    file = io.BytesIO(pack(model))
    texts = {LABELS: "".join(f"{label}\n" for label in labels)}
    if preprocessing is not None:
        texts[PREPROCESSING] = json.dumps(preprocessing.to_dict())
    with zipfile.ZipFile(file, "a") as packed:
        for entry_name, text in texts.items():
            # A fixed date: equal runs give equal files.
            packed.writestr(zipfile.ZipInfo(entry_name), text)
    return file.getvalue()


def _photo(preprocessing: Preprocessing | None) -> str:
    if preprocessing is None or (
        preprocessing.crop is Crop.SQUASH and preprocessing.edge == preprocessing.size
    ):
        return "The whole photo, RGB, resized to the network's square."
    side = "shorter side" if preprocessing.crop is Crop.CENTER else "sides"
    return (
        f"The photo, RGB, its {side} resized to {preprocessing.edge} pixels, of which the "
        f"{preprocessing.size} x {preprocessing.size} in the middle."
    )


def _metadata(name: str, photo: str) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    pixels = _table(builder, {0: (_BYTE, _RGB)})
    normalization = _table(builder, {0: _floats(builder, 0.0), 1: _floats(builder, 1.0)})
    source = _table(
        builder,
        {
            0: builder.CreateString("pixels"),
            1: builder.CreateString(photo),
            3: _union(builder, _IMAGE_PROPERTIES, pixels),
            4: _vector(builder, [_union(builder, _NORMALIZATION_OPTIONS, normalization)]),
            5: _table(builder, {0: _floats(builder, 255.0), 1: _floats(builder, 0.0)}),
        },
    )
    labels = _table(builder, {0: builder.CreateString(LABELS), 2: (_BYTE, _TENSOR_AXIS_LABELS)})
    result = _table(
        builder,
        {
            0: builder.CreateString("scores"),
            1: builder.CreateString("One score per label, adding up to 1."),
            3: _union(builder, _FEATURE_PROPERTIES, _table(builder, {})),
            5: _table(builder, {0: _floats(builder, 1.0), 1: _floats(builder, 0.0)}),
            6: _vector(builder, [labels]),
        },
    )
    graph = _table(builder, {2: _vector(builder, [source]), 3: _vector(builder, [result])})
    whole = _table(
        builder,
        {
            0: builder.CreateString(name),
            1: builder.CreateString("Trained by Retrainer."),
            3: _vector(builder, [graph]),
            7: builder.CreateString(_OLDEST_READER),
        },
    )
    builder.Finish(whole, _IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, fields: dict[int, Any]) -> Any:
    """Write a table with these slots, each an offset or, as (_BYTE, value), a byte."""
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, tuple):
            builder.PrependByteSlot(slot, value[1], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _union(builder: Any, member: int, value: Any) -> Any:
    """Write a table whose first field is a union: its member's number, then the member."""
    return _table(builder, {0: (_BYTE, member), 1: value})


def _vector(builder: Any, offsets: Sequence[Any]) -> Any:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: Any, value: float) -> Any:
    return builder.CreateNumpyVector(np.array([value], np.float32))
