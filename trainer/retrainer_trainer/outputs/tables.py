"""Files of a run that other programs read: the head, the learning curve, the predictions, labels."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrainer.api import CurvePoint
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.dataset.identity import Identities
from retrainer_trainer.head.softmax import Head


def labels_txt(labels: Sequence[str]) -> bytes:
    """One label a line, in the order of the head's outputs."""
    return "".join(f"{label}\n" for label in labels).encode()


def head_npz(head: Head, labels: Sequence[str]) -> bytes:
    """`weights` (labels, bottleneck width) and `bias` (labels,), float32; `labels` as text.

    Nothing in it is pickled: read it with numpy.load, whose allow_pickle is off.
    """
    out = io.BytesIO()
    np.savez(out, weights=head.weights, bias=head.bias, labels=np.array(labels, np.str_))
    return out.getvalue()


def history_parquet(curve: Sequence[CurvePoint]) -> bytes:
    """A row per evaluation: step, training_accuracy, validation_accuracy and the cross entropies."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        name: pa.array(
            [getattr(point, name) for point in curve],
            pa.int64() if name == "step" else pa.float64(),
        )
        for name in CurvePoint.model_fields
    }
    return _parquet(pa.table(columns))


def predictions_parquet(
    paths: Sequence[str],
    identities: Identities,
    truth: Rows,
    scores: Floats,
    labels: Sequence[str],
) -> bytes:
    """A row per test image.

    Columns: path, label, guess, score (of the guess), label_score (of the label), identity (32
    hexadecimal digits, as in duplicates.csv).

    Args:
        paths: of the test images, printable.
        identities: (images, 16) what each one's content is known by.
        truth: (images,) true labels.
        scores: (images, labels).
        labels: names, printable.
    """
    import pyarrow as pa

    guess = scores.argmax(axis=1) if len(scores) else np.empty(0, np.intp)
    rows = np.arange(len(truth))
    columns: dict[str, Any] = {
        "path": pa.array(list(paths), pa.string()),
        "label": pa.array([labels[i] for i in truth], pa.string()),
        "guess": pa.array([labels[i] for i in guess], pa.string()),
        "score": pa.array(scores[rows, guess].tolist(), pa.float32()),
        "label_score": pa.array(scores[rows, truth].tolist(), pa.float32()),
        "identity": pa.array([row.tobytes().hex() for row in identities], pa.string()),
    }
    return _parquet(pa.table(columns))


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
