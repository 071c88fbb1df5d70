"""Keys in the store: what lies where in a run's folder and in the cache.

```
<output>/<name>-<uid8>/            one run; result.json is written last
<cache>/<fingerprint>/backbone-<sha256>.tflite
<cache>/<fingerprint>/network-<name>
<cache>/<fingerprint>/segments/<sha256>.parquet and <sha256>.index
<cache>/<fingerprint>/findings/<digest>.json
<cache>/<fingerprint>/speed/<machine>.json
```
"""

RESULT = "result.json"
JOB = "job.yaml"
EVALUATION = "evaluation.json"
HISTORY = "history.parquet"
SWEEP = "sweep.parquet"
PREDICTIONS = "predictions.parquet"
CATALOG = "catalog.parquet"
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
"""Path of each format of `spec.export` in the run's folder; `savedModel` is a folder."""

DEFAULT_CACHE = ".bottlenecks"
"""Folder of the cache under `spec.output` when the spec names none."""
SEGMENTS = "segments"
SEGMENT_SUFFIX = ".parquet"
INDEX_SUFFIX = ".index"
SPEEDS = "speed"
"""Folder of the cache with how fast each machine was, for `retrainer plan`."""
KEPT_FINDINGS = "findings"
"""Folder of the cache with findings of earlier runs."""
INDEX_HEADER_BYTES = 24
INDEX_RECORD_BYTES = 28
"""Bytes of each bottleneck in an index: its image's identity, offset in the segment, checksum."""
INDEX_CHECK_BYTES = 16
"""Bytes at the end of an index: the digest of all that is before them."""
BACKBONE_PREFIX = "backbone-"
NETWORK_PREFIX = "network-"
"""Begins the name of a file that tells people which network a fingerprint's folder belongs to."""


def parent(url: str) -> tuple[str, str]:
    """Split the URL or path of a file into that of its folder and its name."""
    folder, slash, name = url.rpartition("/")
    return folder or slash or ".", name


def join(url: str, *parts: str) -> str:
    """Join `parts` to `url`, with one slash between each."""
    return "/".join([url.rstrip("/"), *(p.strip("/") for p in parts)])
