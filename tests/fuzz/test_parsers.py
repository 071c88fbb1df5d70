"""What reads bytes from outside reads them or refuses them in its own way, whatever they are.

Hypothesis changes files that are right. The suite plays 150 of each parser, always the same;
`make fuzz` plays others, thousands, and ends with the smallest bytes that break one. Those go into
tests/fuzz/corpus/PARSER/, whose files are played first, here as well.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from tests.fuzz.mutations import mutated
from tests.support import pictures
from tests.support.trained import report

from retrainer import jobfile
from retrainer.api import Report, parse_job
from retrainer.errors import UserError
from retrainer.inference import pixels
from retrainer.inference.headers import RejectedError, header, orientation
from retrainer_trainer.cache.segments import (
    RECORD,
    DamagedError,
    index_records,
    pack_index,
    pack_segment,
    unpack_index,
)
from retrainer_trainer.dataset import manifest
from retrainer_trainer.dataset.rows import ManifestError

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("RETRAINER_FUZZ_EXAMPLES", "0"))
CORPUS = Path(__file__).parent / "corpus"
WIDTH = 8
SIZE = 32
_ROWS = 5


# --- the parsers, each with what must hold of what it lets through ---
def parse_spec(body: bytes) -> None:
    with suppress(UnicodeDecodeError, UserError):
        for where, document in jobfile.documents(body.decode(), "job.yaml"):
            job = parse_job(document, where=where)
            assert parse_job(json.loads(job.model_dump_json(by_alias=True))) == job


def parse_report(body: bytes) -> None:
    with suppress(ValidationError):
        parsed = Report.model_validate_json(body)
        assert len(parsed.termination_message().encode()) <= 4096
        Report.model_validate_json(parsed.to_json())


def parse_segment(body: bytes) -> None:
    with suppress(DamagedError):
        records = index_records(body, WIDTH, hashlib.sha256(body).hexdigest())
        assert len(records) * WIDTH * 4 <= len(body)
        assert not len(records) or int(records["offset"].max()) + WIDTH * 4 <= len(body)


def parse_index(body: bytes) -> None:
    """The bytes, and the same with the digest that belongs to them."""
    size = len(_segment())
    signed = body[:-16] + hashlib.blake2b(body[:-16], digest_size=16).digest()
    for each in (body, signed):
        with suppress(DamagedError):
            records = unpack_index(each, WIDTH, size)
            assert not len(records) or int(records["offset"].max()) + WIDTH * 4 <= size


def parse_image(body: bytes) -> None:
    with suppress(RejectedError):
        head = header(body)
        assert 1 <= orientation(body, head.format) <= 8
        # Larger pictures within the limit are read too; decoding them would take most of the time.
        if head.width * head.height <= 100_000:
            assert pixels.pixels(body, SIZE).shape == (SIZE, SIZE, 3)


def parse_manifest(body: bytes) -> None:
    with suppress(ManifestError):
        parsed = manifest.read(body)
        assert len(parsed.paths) == len(parsed.label) == len(parsed)


# --- what is right, made by code ---
def _specs() -> list[bytes]:
    whole = """\
apiVersion: retrainer.dev/v1alpha1
kind: RetrainJob
metadata: {name: flowers, labels: {team: a}}
spec:
  architecture: mobilenet_0.50_224
  images: s3://photos/flowers
  output: s3://models/flowers
  storage: {endpoint: "http://minio.storage:9000", secretName: s3}
  split: {testingPercentage: 10, validationPercentage: 10}
  training: {steps: 100, sweep: {learningRate: [0.01, 0.1], l2: [0, 1.0e-3]}}
  distortions: {flip: true, crop: 10, scale: 10, brightness: 10, views: 2}
  export: [tflite, savedModel]
  pod: {resources: {requests: {cpu: 500m}, limits: {memory: 1Gi}}}
"""
    anchors = "a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, e: 2026-01-02}\n"
    return [whole.encode(), anchors.encode(), b"--- 1\n--- {}\n", b"[[[[[[{}]]]]]]"]


def _reports() -> list[bytes]:
    meta = {"name": "flowers", "namespace": "team", "uid": "0123456789abcdef"}
    return [report({"metadata": meta}).to_json().encode(), b'{"task": "train"}']


def _segment(rows: int = _ROWS) -> bytes:
    random = np.random.default_rng(0)
    identities = random.integers(0, 256, (rows, 16), dtype=np.uint8)
    return pack_segment(identities, random.random((rows, WIDTH), dtype=np.float32))


def _indexes() -> list[bytes]:
    segment = _segment()
    records = index_records(segment, WIDTH, hashlib.sha256(segment).hexdigest())
    return [pack_index(records, WIDTH, len(segment)), pack_index(np.empty(0, RECORD), WIDTH, 4)]


def _images() -> list[bytes]:
    small = Image.fromarray(pictures.smooth(24, 18))
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {"quality": 80}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}),
        ("WEBP", {"lossless": True}), ("WEBP", {"quality": 80}), ("BMP", {}),
    ]  # fmt: skip
    bodies = [pictures.saved(small, kind, **options) for kind, options in kinds]
    turned = pictures.tiff(6, order="MM", number="SHORT")
    return [*bodies, *(pictures.with_exif(bodies[i], turned) for i in (0, 2, 4))]


def _manifests() -> list[bytes]:
    return [
        b"path,label,split,group\na/1.jpg,daisy,train,g1\na/2.jpg,roses,test,g2\n",
        b'{"path": "a/1.jpg", "label": "daisy"}\n{"path": "b.jpg", "label": "roses"}\n',
        b'[{"image": "/data/1.jpg", "choice": "daisy"}]',
        b"0\t3\ta/1.jpg\n1\t4\ta/2.jpg\n",
    ]


PARSERS: dict[str, tuple[Callable[[bytes], None], Callable[[], Sequence[bytes]]]] = {
    "spec": (parse_spec, _specs),
    "report": (parse_report, _reports),
    "segment": (parse_segment, lambda: [_segment(), _segment(0)]),
    "index": (parse_index, _indexes),
    "image": (parse_image, _images),
    "manifest": (parse_manifest, _manifests),
}


@pytest.mark.parametrize("name", PARSERS)
def test_bytes_from_outside_are_read_or_refused(name: str) -> None:
    parse, seeds = PARSERS[name]
    for path in sorted((CORPUS / name).glob("*")):
        parse(path.read_bytes())
    last: list[bytes] = []

    @settings(
        max_examples=EXAMPLES or 150,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.one_of(mutated(seeds()), st.binary(max_size=64)))
    def play(body: bytes) -> None:
        last[:] = [body]
        parse(body)

    for seed in seeds():
        parse(seed)
    try:
        play()
    except Exception as error:
        error.add_note(f"The bytes, in base64: {base64.b64encode(last[0]).decode()}")
        raise
