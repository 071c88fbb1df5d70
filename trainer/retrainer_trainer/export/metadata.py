"""Metadata of TensorFlow Lite files: what MediaPipe Tasks and ML Kit need to label photos with them.

A table of TensorFlow Lite's metadata schema (metadata_schema.fbs, version M001) in a buffer of the
file, and the labels as a file packed to its end. MediaPipe refuses a float file without; its
NormalizationOptions of mean 0 and deviation 1 say that pixels go in as they are.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrainer.api.layout import LABELS
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


def with_metadata(body: bytes, name: str, labels: Sequence[str]) -> bytes:
    """The file with metadata: the network's name, and its labels in the order of its scores."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpack(body)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(name), np.uint8)
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    file = io.BytesIO(pack(model))
    with zipfile.ZipFile(file, "a") as packed:
        # A fixed date: equal runs give equal files.
        packed.writestr(zipfile.ZipInfo(LABELS), "".join(f"{label}\n" for label in labels))
    return file.getvalue()


def _metadata(name: str) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    pixels = _table(builder, {0: (_BYTE, _RGB)})
    normalization = _table(builder, {0: _floats(builder, 0.0), 1: _floats(builder, 1.0)})
    source = _table(
        builder,
        {
            0: builder.CreateString("pixels"),
            1: builder.CreateString("The whole photo, RGB, resized to the network's square."),
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
    """A table with these slots: an offset, or a byte as (_BYTE, value)."""
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, tuple):
            builder.PrependByteSlot(slot, value[1], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _union(builder: Any, member: int, value: Any) -> Any:
    """A table whose first field is a union: its member's number, then the member."""
    return _table(builder, {0: (_BYTE, member), 1: value})


def _vector(builder: Any, offsets: Sequence[Any]) -> Any:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: Any, value: float) -> Any:
    return builder.CreateNumpyVector(np.array([value], np.float32))
