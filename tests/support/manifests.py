"""Manifests of the same images in every form that is read."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Pair = tuple[str, str]
"""Path, relative to the folder of images, and label."""

BUCKET = "gs://somewhere/else/flowers"


def table(rows: Sequence[Sequence[object]], **options: Any) -> bytes:
    """Rows as CSV, as Python's own module writes it."""
    out = io.StringIO(newline="")
    csv.writer(out, **options).writerows(rows)
    return out.getvalue().encode()


def json_lines(values: Sequence[object]) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def parquet(**columns: Sequence[object]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: pa.array(list(v)) for name, v in columns.items()}), sink)
    return bytes(sink.getvalue())


def _numbers(pairs: Sequence[Pair]) -> dict[str, int]:
    return {label: i for i, label in enumerate(sorted({label for _, label in pairs}))}


def _lst(pairs: Sequence[Pair]) -> bytes:
    number = _numbers(pairs)
    rows = [(i, f"{number[label]:.6f}", path) for i, (path, label) in enumerate(pairs)]
    return table(rows, delimiter="\t", lineterminator="\n")


def _augmented(pairs: Sequence[Pair], *, named: bool) -> bytes:
    number = _numbers(pairs)
    metadata = {"confidence": 0.9, "type": "groundtruth/image-classification"}
    return json_lines(
        [
            {
                "source-ref": f"s3://somewhere/else/{path}",
                "flowers": number[label],
                "flowers-metadata": {**metadata, **({"class-name": label} if named else {})},
            }
            for path, label in pairs
        ]
    )


def _vertex_json(pairs: Sequence[Pair]) -> bytes:
    return json_lines(
        [
            {"imageGcsUri": f"{BUCKET}/{path}", "classificationAnnotation": {"displayName": label}}
            for path, label in pairs
        ]
    )


def _label_studio(pairs: Sequence[Pair], label_name: str) -> list[dict[str, Any]]:
    return [
        {
            "picture": f"/data/local-files/?d=flowers/{path}",
            "id": i,
            label_name: label,
            "annotator": 1,
            "annotation_id": i,
            "created_at": "2026-01-01T00:00:00.000000Z",
            "updated_at": "2026-01-01T00:00:00.000000Z",
            "lead_time": 1.5,
        }
        for i, (path, label) in enumerate(pairs)
    ]


def _label_studio_csv(pairs: Sequence[Pair]) -> bytes:
    rows = _label_studio(pairs, "species")
    return table([list(rows[0]), *(list(row.values()) for row in rows)])


FORMS: dict[str, Callable[[Sequence[Pair]], bytes]] = {
    "CSV": lambda pairs: table([("path", "label"), *pairs]),
    "CSV of a German Excel": lambda pairs: (
        b"\xef\xbb\xbf" + table([("Label", "Path"), *((b, a) for a, b in pairs)], delimiter=";")
    ),
    "TSV": lambda pairs: table([("path", "label"), *pairs], delimiter="\t"),
    "TSV of UTF-16": lambda pairs: (
        table([("path", "label"), *pairs], delimiter="\t").decode().encode("utf-16")
    ),
    "CSV with every cell in quotes": lambda pairs: table(
        [("path", "label"), *pairs], quoting=csv.QUOTE_ALL
    ),
    "JSON lines": lambda pairs: json_lines([{"label": b, "path": a} for a, b in pairs]),
    "JSON list": lambda pairs: json.dumps(
        [{"path": a, "label": b} for a, b in pairs], indent=2
    ).encode(),
    "Parquet": lambda pairs: parquet(path=[a for a, _ in pairs], label=[b for _, b in pairs]),
    "Vertex AI's CSV": lambda pairs: table([(f"{BUCKET}/{a}", b) for a, b in pairs]),
    "Vertex AI's CSV with ML_USE": lambda pairs: table(
        [("UNASSIGNED", f"{BUCKET}/{a}", b) for a, b in pairs]
    ),
    "Vertex AI's JSON lines": _vertex_json,
    "SageMaker's augmented manifest": lambda pairs: _augmented(pairs, named=True),
    "SageMaker's augmented manifest of numbers": lambda pairs: _augmented(pairs, named=False),
    "SageMaker's .lst": _lst,
    "Hugging Face's metadata.csv": lambda pairs: table([("file_name", "label"), *pairs]),
    "Hugging Face's metadata.jsonl": lambda pairs: json_lines(
        [{"file_name": a, "label": b} for a, b in pairs]
    ),
    "Label Studio's CSV": _label_studio_csv,
    "Label Studio's JSON-MIN": lambda pairs: json.dumps(_label_studio(pairs, "choice")).encode(),
    "absolute paths of another machine": lambda pairs: table(
        [("file", "class"), *((f"/home/ann/flowers/{a}", b) for a, b in pairs)]
    ),
    "paths of Windows": lambda pairs: table(
        [("Image Path", "Class"), *((f"D:\\flowers\\{a}".replace("/", "\\"), b) for a, b in pairs)]
    ),
}
