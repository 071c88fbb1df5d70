"""The fault menu of the store and the photos: what a run does, and how long after a fault it is whole.

Each fault meets a trainer, in a process as in its pod, between it and a real S3 server. Whatever
happens, the head is in the end the undisturbed run's, to the byte. The seconds counted are those
from the fault's end until the run is whole: of the process itself where it goes on, else of the next
one, as Kubernetes or a person starts it.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from tests.faults.proxy import (
    SLOW_DOWN,
    Fault,
    Harm,
    Proxy,
    Request,
    Server,
    call,
    drop,
    meanwhile,
    pace,
    refuse,
)
from tests.support.devcluster_s3 import S3Server
from tests.support.trainer_engine import Ended, command, ended, photo, photos, small_disk, spec

from retrainer.api import RetrainJobSpec
from retrainer.api.layout import DEFAULT_CACHE, SEGMENT_SUFFIX, SEGMENTS

_LABELS = {"daisy": 30, "roses": 30}
_PHOTOS = sum(_LABELS.values())
_MIDDLE = 20
"""The photo at whose reading a fault begins: some are computed, some under way, some not asked for."""
_RUN = "t-01234567"
_SLOW_BYTES_PER_SECOND = 50_000
_BOMBS_AT_MOST_MIB = 450
"""2 ** 26 pixels are decoded at most, of 3 bytes each, twice while an image is turned or shrunk."""


class Bench:
    """An S3 server, the photos, and the head that comes of them undisturbed."""

    def __init__(self, folder: Path, server: S3Server, seconds_away: float) -> None:
        self.folder = folder
        self.server = server
        self.seconds_away = seconds_away
        self.photos = photos(folder / "photos", _LABELS)
        self.head = self.head_of(self.photos)
        self.count = 0

    def head_of(self, images: Path, **fields: Any) -> bytes:
        """Train on this folder, with nothing in between; the bytes of the head."""
        output = images.with_name(f"{images.name}-out")
        done = _train(_spec(str(images), str(output), **fields), output)
        _check(done.code == 0, done)
        return (output / _RUN / "head.npz").read_bytes()

    @contextmanager
    def scene(self) -> Iterator[Scene]:
        """Buckets of its own, behind a proxy of its own."""
        self.count += 1
        name = f"menu{self.count}"
        self.server.start()
        with Proxy(Server(self.server.endpoint)) as proxy:
            scene = Scene(self, proxy, name, self.folder / name)
            scene.folder.mkdir()
            scene.client.create_bucket(Bucket=name)
            scene.upload_photos()
            yield scene


@dataclass
class Scene:
    """What a fault has to play with.

    Attributes:
        bench: shared by all faults.
        proxy: between the trainer and the S3 server.
        images: the bucket of the photos.
        folder: for what lies on this machine.
    """

    bench: Bench
    proxy: Proxy
    name: str
    folder: Path

    def __post_init__(self) -> None:
        self.images = f"{self.name}-images"
        self.client: Any = boto3.client("s3", **self.bench.server.client_options())  # type: ignore[call-overload]

    def upload_photos(self) -> None:
        """Make the bucket of the photos, and fill it."""
        self.client.create_bucket(Bucket=self.images)
        for path in sorted(self.bench.photos.glob("*/*")):
            key = f"in/{path.relative_to(self.bench.photos).as_posix()}"
            self.client.put_object(Bucket=self.images, Key=key, Body=path.read_bytes())

    def train(self, env: dict[str, str] | None = None, **fields: Any) -> Ended:
        """Run the job to its end, or to the end of this try."""
        storage = {"endpoint": self.proxy.url}
        wanted = _spec(f"s3://{self.images}/in", f"s3://{self.name}/out", storage=storage, **fields)
        return _train(wanted, self.folder, env={**self.bench.server.environment(), **(env or {})})

    def ends_well(self, **fields: Any) -> Ended:
        """Run the job, which must succeed with the head of the undisturbed run."""
        done = self.train(**fields)
        _check(done.code == 0, done)
        self.check_head()
        return done

    def check_head(self, expected: bytes | None = None) -> None:
        answer = self.client.get_object(Bucket=self.name, Key=f"out/{_RUN}/head.npz")
        if answer["Body"].read() != (expected or self.bench.head):
            raise AssertionError("the head is not that of the undisturbed run")

    def refused(self, code: int, reason: str, sentence: str, **options: Any) -> Ended:
        """Run the job, which must end with this exit code, this reason and this sentence."""
        done = self.train(**options)
        _check((done.code, done.report.reason) == (code, reason), done)
        _check(re.fullmatch(sentence, done.report.message) is not None, done)
        _check(done.stdout.splitlines()[-1] == f"Error: {done.report.message}", done)
        _check(f"{self.bench.server.secret_key}" not in done.stdout + done.stderr, done)
        return done

    def segments(self) -> list[str]:
        """Keys of the cache's segments."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=f"out/{DEFAULT_CACHE}/")
        keys = [item["Key"] for item in listed.get("Contents", ())]
        return [key for key in keys if f"/{SEGMENTS}/" in key and key.endswith(SEGMENT_SUFFIX)]

    def at_a_photo(self, harm: Harm) -> Fault:
        """Harm the reading of the photo in the middle, once."""
        fault: Fault = self.proxy.add(Fault(harm, when=self.is_photo, skip=_MIDDLE, times=1))
        return fault

    def is_photo(self, request: Request) -> bool:
        return request.method == "GET" and request.path.startswith(f"/{self.images}/in/")


class Outage:
    """Holds for every request from the photo in the middle on, for so many seconds."""

    def __init__(self, scene: Scene, seconds: float) -> None:
        self._scene, self._seconds = scene, seconds
        self._photos = 0
        self.ends: float | None = None

    def __call__(self, request: Request) -> bool:
        if self.ends is None:
            self._photos += self._scene.is_photo(request)
            if self._photos <= _MIDDLE:
                return False
            self.ends = time.monotonic() + self._seconds
        return time.monotonic() < self.ends

    def seconds_since(self) -> float:
        if self.ends is None:
            raise AssertionError("the fault was never met")
        return time.monotonic() - self.ends


def _spec(images: str, output: str, **fields: Any) -> RetrainJobSpec:
    values: dict[str, Any] = {
        "training": {"steps": 200},
        "export": ["tflite"],
        "findings": {"enabled": False},
        "split": {"testingPercentage": 20, "validationPercentage": 15},
        **fields,
    }
    return spec(images, output, **values)


def _train(wanted: RetrainJobSpec, folder: Path, env: dict[str, str] | None = None) -> Ended:
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(**command(wanted, folder, kind="train", env=env))
    return ended(process, folder, seconds=600)


def _check(well: bool, done: Ended) -> None:
    if not well or "Traceback" in done.stdout + done.stderr:
        text = done.stdout[-1500:] + done.stderr[-1500:]
        raise AssertionError(f"{done.code} {done.report.reason}: {done.report.message}\n{text}")


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


# --- the server ---
def _away(harm: Harm, scene: Scene) -> float:
    """No request is served for a while; the run waits, says so, and goes on."""
    outage = Outage(scene, scene.bench.seconds_away)
    scene.proxy.add(Fault(harm, when=outage))
    done = scene.ends_well()
    _check(f"{scene.proxy.url} does not answer; trying again for 120 s." in done.stdout, done)
    return outage.seconds_since()


def _slow(scene: Scene) -> float:
    """Each request and each answer at 50 kB/s; nothing is taken for silence."""
    scene.proxy.bytes_per_second = _SLOW_BYTES_PER_SECOND
    scene.proxy.add(Fault(pace(_SLOW_BYTES_PER_SECOND)))
    done: list[Ended] = []
    seconds = _timed(lambda: done.append(scene.ends_well()))
    _check("does not answer" not in done[0].stdout, done[0])
    return seconds


def _wrong_key(scene: Scene) -> float:
    sentence = (
        rf"{scene.proxy.url} refused access to bucket {scene.name} \(spec\.output\) with access key "
        rf"{scene.bench.server.access_key}: the secret does not belong to this access key .*\."
    )
    wrong = {"AWS_SECRET_ACCESS_KEY": "WRONG"}
    done = scene.refused(64, "StorageDenied", sentence, env=wrong)
    _check("WRONG" not in done.stdout + done.stderr, done)
    return _timed(scene.ends_well)


def _keys_changed(scene: Scene) -> float:
    """In the middle the server takes another secret; the next pod has it from the Secret."""
    server = scene.bench.server
    before = server.secret_key

    def change(secret: str) -> None:
        server.kill()
        server.secret_key = secret
        server.start()

    old_keys = server.environment()
    scene.at_a_photo(call(partial(change, "another-secret"), effect=False))
    sentence = (
        r".* refused access to bucket .* with access key .*: the secret does not belong to this access "
        r"key \(to (read|write) it\); it took this key before, so the keys were changed meanwhile\."
    )
    try:
        scene.refused(1, "StorageDenied", sentence, env=old_keys)
        scene.client = boto3.client("s3", **server.client_options())  # type: ignore[call-overload]
        return _timed(scene.ends_well)
    finally:
        change(before)


def _bucket_deleted(scene: Scene) -> float:
    """What was computed is in the cache; once the photos are back, only the others are."""

    def delete() -> None:
        for item in scene.client.list_objects_v2(Bucket=scene.images)["Contents"]:
            scene.client.delete_object(Bucket=scene.images, Key=item["Key"])
        scene.client.delete_bucket(Bucket=scene.images)

    scene.at_a_photo(call(delete, effect=False))
    sentence = rf"Bucket {scene.images} \(spec\.images\) does not exist at {scene.proxy.url}\."
    scene.refused(64, "BucketNotFound", sentence)
    scene.upload_photos()
    done: list[Ended] = []
    seconds = _timed(lambda: done.append(scene.ends_well()))
    _check((done[0].report.progress.images_cached or 0) > 0, done[0])
    return seconds


# --- photos ---
def _train_while(scene: Scene, action: Callable[[], object]) -> tuple[Ended, float]:
    """Run the job, and do this in the middle; with the seconds from then to the end of the run."""
    times: list[float] = []

    def act() -> None:
        action()
        times.append(time.monotonic())

    scene.at_a_photo(meanwhile(act))
    done = scene.train()
    return done, time.monotonic() - times[0]


def _photo_changed(scene: Scene) -> float:
    """The head is that of a run on the photos as they are now."""
    changed = photos(scene.folder / "changed", _LABELS)
    (changed / "roses/0029.jpg").write_bytes(photo(9999))
    options = {"Bucket": scene.images, "Key": "in/roses/0029.jpg", "Body": photo(9999)}
    done, seconds = _train_while(scene, lambda: scene.client.put_object(**options))
    _check(done.code == 0 and not done.report.progress.images_rejected, done)
    scene.check_head(scene.bench.head_of(changed))
    return seconds


def _photo_deleted(scene: Scene) -> float:
    """It is listed as rejected, and the head is that of a run without it."""
    fewer = photos(scene.folder / "fewer", _LABELS)
    (fewer / "roses/0029.jpg").unlink()
    options = {"Bucket": scene.images, "Key": "in/roses/0029.jpg"}
    done, seconds = _train_while(scene, lambda: scene.client.delete_object(**options))
    _check(done.code == 0 and done.report.progress.images_rejected == 1, done)
    scene.check_head(scene.bench.head_of(fewer))
    table = scene.client.get_object(Bucket=scene.name, Key=f"out/{_RUN}/rejected.csv")
    text = table["Body"].read().decode()
    _check("roses/0029.jpg" in text and "it was listed, but is no longer there" in text, done)
    return seconds


def _bad_photos(count: int, scene: Scene) -> float:
    """Refused as too many, each listed with its reason; where they are allowed, they do no harm."""
    images = photos(scene.folder / "bad", _LABELS)
    whole = photo(1)
    kinds = [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"<html>", bytes(100), whole[: len(whole) // 2]]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        (images / f"daisy/bad{number:05}.jpg").write_bytes(kind + str(number).encode())
    output = scene.folder / "bad-out"
    done = _train(_spec(str(images), str(output)), scene.folder)
    _check((done.code, done.report.reason) == (64, "TooManyRejected"), done)
    rows = (output / _RUN / "rejected.csv").read_text().splitlines()
    _check(len(rows) == count + 1, done)
    started = time.monotonic()
    head = scene.bench.head_of(images, maxRejectedFraction=1)
    if head != scene.bench.head:
        raise AssertionError("the head is not that of the good photos alone")
    return time.monotonic() - started


def _bombs(scene: Scene) -> float:
    """Small files that would unpack to gigabytes are rejected in little memory."""
    images = photos(scene.folder / "bombs", _LABELS)
    for name, body in bombs().items():
        (images / "daisy" / name).write_bytes(body)
    output = scene.folder / "bombs-out"
    wanted = _spec(str(images), str(output), maxRejectedFraction=1)
    arguments = command(wanted, scene.folder, kind="train")
    # The most memory of the process, which only its parent learns.
    program = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    arguments["args"] = [sys.executable, "-c", program, *arguments["args"]]
    started = time.monotonic()
    done = ended(subprocess.Popen(**arguments), scene.folder)
    seconds = time.monotonic() - started
    _check(done.code == 0 and done.report.progress.images_rejected == len(bombs()), done)
    if (output / _RUN / "head.npz").read_bytes() != scene.bench.head:
        raise AssertionError("the head is not that of the good photos alone")
    mib = int(done.stderr.split()[-1]) / 1024
    if mib > _BOMBS_AT_MOST_MIB:
        raise AssertionError(f"it took {mib:.0f} MiB")
    return seconds


def bombs() -> dict[str, bytes]:
    """Files of some kilobytes, by name, that say or unpack to very much."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    def png(width: int, height: int, *parts: bytes) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        rest = b"".join([chunk(b"IHDR", header), *parts, chunk(b"IEND", b"")])
        return b"\x89PNG\r\n\x1a\n" + rest

    zeros = zlib.compress(bytes(50_000_000), 9)
    deep = zlib.compress(zeros, 9)
    jpeg = photo(1)
    size = jpeg.index(b"\xff\xc0") + 5
    return {
        "wide.png": png(100_000, 100_000, chunk(b"IDAT", zeros)),
        "long.png": png(1, 2**31 - 1, chunk(b"IDAT", zeros)),
        "twice.png": png(60_000, 60_000, chunk(b"IDAT", deep)),
        "text.png": png(60_000, 1_200, chunk(b"zTXt", b"a\0\0" + zeros), chunk(b"IDAT", b"")),
        "profile.png": png(500, 500, chunk(b"iCCP", b"a\0\0" + zeros), chunk(b"IDAT", b"")),
        "wide.jpg": jpeg[:size] + struct.pack(">HH", 65_500, 65_500) + jpeg[size + 4 :],
        "wide.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6),
        "wide.bmp": b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(900),
        "wide.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10)
        + bytes(4) + b"\xff\xff\xff\xff\xff\xff" + bytes(8),
    }  # fmt: skip


# --- the cache ---
def _segment_damaged(scene: Scene) -> float:
    """It is named in a warning, and its images are computed again."""
    scene.ends_well()
    (key,) = scene.segments()
    body = bytearray(scene.client.get_object(Bucket=scene.name, Key=key)["Body"].read())
    body[len(body) // 3 : len(body) // 2] = bytes(len(body) // 2 - len(body) // 3)
    scene.client.put_object(Bucket=scene.name, Key=key, Body=bytes(body))
    scene.client.delete_object(Bucket=scene.name, Key=f"out/{_RUN}/result.json")
    done: list[Ended] = []
    seconds = _timed(lambda: done.append(scene.ends_well()))
    _check(f"{key.rpartition('/')[2]} in the cache is damaged" in done[0].stdout, done[0])
    return seconds


def _foreign_files(scene: Scene) -> float:
    """A table of somebody's, a text and a folder among the segments: all is as without them."""
    scene.ends_well()
    (key,) = scene.segments()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"price": pa.array([1, 2, 3])}), sink)
    folder = key.rpartition("/")[0]
    strangers = {
        "prices.parquet": bytes(sink.getvalue()),
        "readme.txt": b"Please do not delete.",
        "empty.parquet": b"",
        "old/": b"",
        ".DS_Store": bytes(100),
    }
    for name, body in strangers.items():
        scene.client.put_object(Bucket=scene.name, Key=f"{folder}/{name}", Body=body)
    scene.client.delete_object(Bucket=scene.name, Key=f"out/{_RUN}/result.json")
    done: list[Ended] = []
    seconds = _timed(lambda: done.append(scene.ends_well()))
    _check(done[0].report.progress.images_cached == _PHOTOS, done[0])
    _check(done[0].stdout.count("prices.parquet in the cache is damaged") == 1, done[0])
    return seconds


# --- the pod ---
def _disk_full(scene: Scene) -> float:
    with small_disk(scene.folder / "small", "64k") as small:
        sentence = rf"No space left writing {small}\."
        scene.refused(1, "DiskFull", sentence, env={"TMPDIR": str(small)})
    return _timed(scene.ends_well)


@dataclass(frozen=True)
class Entry:
    """A fault of the menu: what it is called, what is done, and the most seconds it may take."""

    name: str
    play: Callable[[Scene], float]
    limit: float


MENU = [
    Entry("S3 away", partial(_away, drop), 30),
    Entry("S3 answers 503 SlowDown", partial(_away, refuse(503, body=SLOW_DOWN)), 30),
    Entry("S3 at 50 kB/s", _slow, 90),
    Entry("wrong key", _wrong_key, 30),
    Entry("keys changed in the middle", _keys_changed, 30),
    Entry("bucket deleted in the middle", _bucket_deleted, 30),
    Entry("photo changed in the middle", _photo_changed, 30),
    Entry("photo deleted in the middle", _photo_deleted, 30),
    Entry("segment of the cache damaged", _segment_damaged, 30),
    Entry("foreign files in the cache", _foreign_files, 30),
    Entry("disk full in the pod", _disk_full, 30),
    Entry("10,000 bad photos", partial(_bad_photos, 10_000), 60),
    Entry("decompression bombs", _bombs, 30),
]


def run(folder: Path, times: int, only: str) -> bool:
    """Play the menu, print each fault's seconds; whether none was over its limit."""
    well = True
    print(
        "| fault of the store | seconds until the run is whole | at most |\n|---|---|---|",
        flush=True,
    )
    folder.mkdir()
    with S3Server(folder / "s3") as server:
        bench = Bench(folder, server, seconds_away=60)
        for entry in MENU:
            if only not in entry.name:
                continue
            seconds: list[float] = []
            problem = ""
            for _ in range(times):
                try:
                    with bench.scene() as scene:
                        seconds.append(entry.play(scene))
                except AssertionError as error:
                    problem = f" **{error}**"
            over = problem or any(each > entry.limit for each in seconds)
            well &= not over
            text = ", ".join(f"{each:.1f}" for each in seconds) + problem
            print(
                f"| {entry.name} | {text}{' (over)' if over else ''} | {entry.limit:.0f} |",
                flush=True,
            )
    return well
