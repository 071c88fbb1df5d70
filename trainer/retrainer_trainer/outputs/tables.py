"""Files of a run that other programs read: the head, the learning curve, the predictions, labels."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retrainer.api import CurvePoint
from retrainer.api.corrections import harmless
from retrainer_trainer.arrays import Floats, Rows
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.catalog import Catalog
from retrainer_trainer.dataset.identity import Identities
from retrainer_trainer.dataset.listed_manifest import rejected_lines
from retrainer_trainer.dataset.texts import shown
from retrainer_trainer.head.softmax import Head
from retrainer_trainer.head.sweep import Candidate
from retrainer_trainer.outputs.rows import FindingRow


def labels_txt(labels: Sequence[str]) -> bytes:
    """Write one label a line, in the order of the head's outputs."""
    return "".join(f"{label}\n" for label in labels).encode()


def duplicate_rows(catalog: Catalog) -> list[tuple[str, ...]]:
    """List identity, path, label and set of each image that exists more than once."""
    return [
        (
            catalog.identities[i].tobytes().hex(),
            shown(catalog.paths[int(i)]),
            catalog.printable_labels[catalog.label[i]],
            split.SETS[catalog.sets[i]],
        )
        for group in catalog.duplicates()
        for i in group
    ]


def duplicates_csv(rows: Iterable[Sequence[str]]) -> bytes:
    """Write duplicates.csv: rows of the same image, which follow each other, have one identity."""
    return _csv(("identity", "path", "label", "set"), rows)


def rejected_rows(catalog: Catalog, rejected: Mapping[int, str]) -> list[tuple[str, str]]:
    """List path and reason: of rows of the manifest that are left out, then of rejected images."""
    images = [(shown(catalog.paths[i]), rejected[i]) for i in sorted(rejected)]
    return rejected_lines(catalog.bad) + images


def rejected_csv(rows: Iterable[Sequence[str]]) -> bytes:
    """Write rejected.csv."""
    return _csv(("path", "reason"), rows)


def _csv(header: tuple[str, ...], rows: Iterable[Sequence[str]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return out.getvalue().encode()


def head_npz(head: Head, labels: Sequence[str]) -> bytes:
    """`weights` (labels, bottleneck width) and `bias` (labels,), float32; `labels` as text.

    Nothing in it is pickled: read it with numpy.load, whose allow_pickle is off.
    """
    out = io.BytesIO()
    np.savez(out, weights=head.weights, bias=head.bias, labels=np.array(labels, np.str_))
    return out.getvalue()


def history_parquet(curve: Sequence[CurvePoint]) -> bytes:
    """Write a row per evaluation: step, training_accuracy, validation_accuracy, the cross entropies."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        name: pa.array(
            [getattr(point, name) for point in curve],
            pa.int64() if name == "step" else pa.float64(),
        )
        for name in CurvePoint.model_fields
    }
    return _parquet(pa.table(columns))


def sweep_parquet(candidates: Sequence[Candidate], chosen: int) -> bytes:
    """Write a row per combination.

    Columns: learning_rate (null with solver lbfgs), l2, validation_accuracy,
    validation_cross_entropy (null if it diverged), diverged_step (null if it did not), chosen.
    """
    import pyarrow as pa

    columns: dict[str, Any] = {
        "learning_rate": pa.array(
            [candidate.learning_rate for candidate in candidates], pa.float64()
        ),
        "l2": pa.array([candidate.l2 for candidate in candidates], pa.float64()),
        "validation_accuracy": pa.array(
            [candidate.accuracy for candidate in candidates], pa.float64()
        ),
        "validation_cross_entropy": pa.array(
            [candidate.cross_entropy for candidate in candidates], pa.float64()
        ),
        "diverged_step": pa.array(
            [candidate.diverged_step for candidate in candidates], pa.int64()
        ),
        "chosen": pa.array([number == chosen for number in range(len(candidates))], pa.bool_()),
    }
    return _parquet(pa.table(columns))


def predictions_parquet(
    paths: Sequence[str],
    identities: Identities,
    truth: Rows,
    scores: Floats,
    labels: Sequence[str],
) -> bytes:
    """Write a row per test image.

    Columns: path, label, guess, score (of the guess), label_score (of the label), identity (32
    hexadecimal digits, as in duplicates.csv).

    Args:
        paths: of the test images, printable.
        identities: (images, 16) bytes that stand for each one's content.
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


def findings_parquet(rows: Sequence[FindingRow], catalog: Catalog, labels: Sequence[str]) -> bytes:
    """Write a row per finding.

    Columns: kind (label, leak, duplicate, stranger), path, other (the image that shows the same),
    label, suggested (the label that fits better), score (a label's margin, -1 to 1; a pair's cosine;
    a stranger's distance to its nearest images).

    Args:
        rows: of all kinds.
        catalog: that they are rows of.
        labels: names, printable.
    """
    import pyarrow as pa

    def path(row: int | None) -> str | None:
        return None if row is None else shown(catalog.paths[row])

    def name(label: int | None) -> str | None:
        return None if label is None else labels[label]

    columns: dict[str, Any] = {
        "kind": pa.array([str(finding.kind) for finding in rows], pa.string()),
        "path": pa.array([path(finding.row) for finding in rows], pa.string()),
        "other": pa.array([path(finding.other_row) for finding in rows], pa.string()),
        "label": pa.array([name(int(catalog.label[finding.row])) for finding in rows], pa.string()),
        "suggested": pa.array([name(finding.suggested) for finding in rows], pa.string()),
        "score": pa.array([finding.score for finding in rows], pa.float32()),
    }
    return _parquet(pa.table(columns))


def catalog_parquet(catalog: Catalog, rejected: Mapping[int, str]) -> bytes:
    """Write a row per image and per row of the manifest that is left out: a manifest as well.

    Columns: path (with its own bytes, where they are UTF-8), identity, label, set, group (null without
    one), reason (why it was rejected, else null).

    Args:
        catalog: of the job.
        rejected: why each rejected image cannot be used.
    """
    import pyarrow as pa

    bad, count = catalog.bad, len(catalog)
    groups = pa.DictionaryArray.from_arrays(
        pa.array([None if i < 0 else i for i in catalog.group.tolist()], pa.int32()),
        pa.array(catalog.groups, pa.string()),
    )

    def column(values: Iterable[str | None], kind: Any = None) -> Any:
        return pa.array(list(values), kind or pa.string())

    def named(numbers: npt.NDArray[np.signedinteger[Any]], names: Sequence[str]) -> Any:
        return pa.DictionaryArray.from_arrays(
            pa.array(numbers.tolist(), pa.int32()), pa.array(list(names), pa.string())
        ).cast(pa.string())

    nothing = pa.nulls(len(bad), pa.string())
    columns: dict[str, Any] = {
        "path": [column(map(_storable, catalog.paths)), column(_storable(row.path) for row in bad)],
        "identity": [column(row.tobytes().hex() for row in catalog.identities), nothing],
        "label": [named(catalog.label, [_storable(label) for label in catalog.labels]), nothing],
        "set": [named(catalog.sets, split.SETS), nothing],
        "group": [groups.cast(pa.string()), nothing],
        "reason": [
            column(rejected.get(i) for i in range(count)),
            column(reason for _path, reason in rejected_lines(bad)),
        ],
    }
    return _parquet(pa.table({name: pa.chunked_array(parts) for name, parts in columns.items()}))


def _storable(path: str) -> str:
    """Give a path as it is where Parquet can hold it, which wants UTF-8; else with escapes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return shown(path)
    return path


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
