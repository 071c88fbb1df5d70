"""Keys in the store: what lies where in a run's folder and in the cache.

```
<output>/<name>-<uid8>/            one run; result.json is written last
<cache>/<fingerprint>/backbone-<sha256>.tflite
<cache>/<fingerprint>/network-<name>
<cache>/<fingerprint>/segments/<sha256>.parquet and <sha256>.index
<cache>/<fingerprint>/findings/<digest>.json
```
"""

RESULT = "result.json"
JOB = "job.yaml"
EVALUATION = "evaluation.json"
HISTORY = "history.parquet"
SWEEP = "sweep.parquet"
PREDICTIONS = "predictions.parquet"
REJECTED = "rejected.csv"
DUPLICATES = "duplicates.csv"
FINDINGS = "findings.parquet"
LABELS = "labels.txt"
REPORT_PAGE = "report.html"
SUMMARIES = "summaries"
HEAD = "head.npz"

EXPORT_PATHS = {
    "savedModel": "saved_model",
    "tflite": "model.tflite",
    "tfliteInt8": "model_int8.tflite",
    "keras": "model.keras",
    "frozenGraph": "frozen_graph.pb",
    "onnx": "model.onnx",
}
"""Where each of `spec.export` lies in the run's folder; `savedModel` is a folder."""

DEFAULT_CACHE = ".bottlenecks"
"""Folder of the cache under `spec.output` when the spec names none."""
SEGMENTS = "segments"
SEGMENT_SUFFIX = ".parquet"
INDEX_SUFFIX = ".index"
KEPT_FINDINGS = "findings"
"""Folder of the cache with findings of earlier runs."""
INDEX_HEADER_BYTES = 24
INDEX_RECORD_BYTES = 28
"""Of each bottleneck in an index: its image's identity, its offset in the segment, its checksum."""
INDEX_CHECK_BYTES = 16
"""At the end of an index: the digest of what stands before it."""
BACKBONE_PREFIX = "backbone-"
NETWORK_PREFIX = "network-"
"""Before the name of the network whose bottlenecks a fingerprint's folder holds: a file for people."""


def join(url: str, *parts: str) -> str:
    """`url` with `parts` added, one slash between each."""
    return "/".join([url.rstrip("/"), *(p.strip("/") for p in parts)])
