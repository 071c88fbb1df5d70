"""A run's folder as the trainer leaves it, without a training: for tests of what reads one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrainer.api import CurvePoint, Metrics, Phase, Report, layout
from retrainer_trainer.dataset.identity import IDENTITY_BYTES, content_identity
from retrainer_trainer.head.evaluate import evaluate
from retrainer_trainer.outputs import tables

LABELS = ("daisy", "roses", "tulips")


def write_run(
    folder: Path,
    wrong: Sequence[int] = (),
    *,
    name: str = "flowers",
    images: int = 60,
    architecture: str = "mobilenet_0.50_160",
    images_per_second: float | None = 520.0,
    prefix: str = "",
    contents: Mapping[int, str] | None = None,
    labels: Mapping[int, str] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run to `folder`; test image number i is guessed right unless i is in `wrong`.

    `contents` says what bytes some images have (others have their number's), `labels` which label,
    `spec` what its job.yaml says; without it there is none, as in a run of an older version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = np.arange(images, dtype=np.intp) % len(LABELS)
    for i, label in (labels or {}).items():
        truth[i] = LABELS.index(label)
    guess = truth.copy()
    guess[list(wrong)] = (truth[list(wrong)] + 1) % len(LABELS)
    scores = np.full((images, len(LABELS)), 0.1, np.float32)
    scores[np.arange(images), guess] = 0.6 + 0.2 * np.arange(images, dtype=np.float32) / images
    paths = [f"{prefix}{LABELS[truth[i]]}/{i:03d}.jpg" for i in range(images)]
    bodies = [(contents or {}).get(i, f"photo {i}").encode() for i in range(images)]
    raw = b"".join(map(content_identity, bodies))
    identities = np.frombuffer(raw, np.uint8).reshape(images, IDENTITY_BYTES)
    evaluation = evaluate(scores, truth, LABELS, np.zeros(images, np.bool_), truth)
    evaluation.architecture = architecture
    curve = [
        CurvePoint(
            step=step, training_accuracy=1 - 0.6 * 0.99**step,
            validation_accuracy=0.95 - 0.6 * 0.99**step, cross_entropy=0.99**step,
            validation_cross_entropy=0.1 + 0.99**step,
        )
        for step in range(0, 501, 10)
    ]  # fmt: skip
    report = Report(
        task="train",
        name=name,
        uid="00000000-1111-2222-3333-444444444444",
        stage=Phase.SUCCEEDED,
        metrics=Metrics(test_accuracy=evaluation.accuracy, test_images=images),
        label_count=len(LABELS),
        images_per_second=images_per_second,
        artifacts={"labels": layout.LABELS, "evaluation": layout.EVALUATION},
    )
    (folder / layout.LABELS).write_bytes(tables.labels_txt(LABELS))
    (folder / layout.HISTORY).write_bytes(tables.history_parquet(curve))
    (folder / layout.PREDICTIONS).write_bytes(
        tables.predictions_parquet(paths, identities, truth, scores, LABELS)
    )
    (folder / layout.EVALUATION).write_text(evaluation.to_json())
    if spec is not None:
        (folder / layout.JOB).write_text(json.dumps({"spec": spec}))
    (folder / layout.RESULT).write_text(report.to_json())
    return folder
