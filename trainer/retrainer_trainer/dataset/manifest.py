"""The manifest: a list of images with their labels, told by its content whatever its form.

    manifest = read(body, places)

Nothing is looked up here: which of its images are there, `matching` says.
"""

import io
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Bools, Longs
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.identity import IDENTITY_BYTES, Identities
from retrainer_trainer.dataset.manifest_json import (
    is_numbered,
    items_of_json,
    json_rows,
    lines_of_json,
)
from retrainer_trainer.dataset.manifest_text import text_rows
from retrainer_trainer.dataset.rows import ManifestError, Row, find_columns
from retrainer_trainer.dataset.texts import Texts

MOST_ROWS = 5_000_000
MOST_BYTES = 1 << 30

NONE = -1
"""Stands in a column of numbers for a row that says nothing."""

EXACT, LOOSE, UPLOAD = 0, 1, 2
"""How a path is looked for: as it is; without its first folders; or by the file's name alone."""

_CHUNK = 50_000
_SETS = {
    "train": split.TRAINING, "training": split.TRAINING,
    "validation": split.VALIDATION, "validate": split.VALIDATION, "valid": split.VALIDATION,
    "val": split.VALIDATION, "dev": split.VALIDATION,
    "test": split.TESTING, "testing": split.TESTING, "eval": split.TESTING,
    "": NONE, "unassigned": NONE, "none": NONE, "null": NONE,
}  # fmt: skip
_IDENTITY = re.compile(rf"[0-9a-fA-F]{{{2 * IDENTITY_BYTES}}}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:/")
_UPLOAD = "/data/upload/"
_LOCAL_FILES = "/data/local-files/"
_FAR = 200  # characters in which Label Studio's own folder follows the server's name
_UNTIDY = re.compile(r"//|(^|/)\.\.?(/|$)")


class BadRow(NamedTuple):
    """A row that is left out: its number, its path as written, and why."""

    line: int
    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The rows that can be read, N of them, in the order of the file.

    Attributes:
        lines: (N,) number of the line or row, from 1.
        paths: N paths, relative to the folder of images where that can be told.
        search: (N,) EXACT, LOOSE or UPLOAD.
        labels: names, each once.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, ...; NONE where the row names none.
        groups: names, each once.
        group: (N,) index into `groups`; NONE where the row names none.
        identities: (N, 16) of rows that give one.
        identified: (N,) which do.
        bad: the other rows.
        numbered: labels are numbers whose names are those of the images' folders, if they agree.
    """

    lines: Longs
    paths: Texts
    search: npt.NDArray[np.int8]
    labels: tuple[str, ...]
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    groups: tuple[str, ...]
    group: npt.NDArray[np.int32]
    identities: Identities
    identified: Bools
    bad: tuple[BadRow, ...]
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.lines)


def read(body: bytes, places: Sequence[str] = ()) -> Manifest:
    """Read a manifest of any form.

    Args:
        body: the file.
        places: how absolute paths may begin that lie in the folder of images: its URL, its path.

    Raises:
        ManifestError: it is none; the message is the end of a sentence.
    """
    if body.startswith(b"PAR1"):
        return _collected(_parquet_rows(body), places, numbered=False)
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        stream = io.TextIOWrapper(io.BytesIO(body), "utf-16", "replace", newline="")
    else:
        stream = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", "surrogateescape", newline="")
    first_line = next((line for line in stream if not line.isspace()), "").strip()
    stream.seek(0)
    if first_line.startswith("{"):
        return _of_values(lines_of_json(stream), places)
    if first_line.startswith("["):
        return _of_values(items_of_json(stream.read()), places)
    numbered = first_line.count("\t") > 1 and first_line.split("\t")[0].isdigit()
    return _collected(text_rows(stream, first_line), places, numbered=numbered)


def _of_values(values: Iterator[tuple[int, object]], places: Sequence[str]) -> Manifest:
    first = next(values, None)
    if first is None:
        raise ManifestError("it has no rows")
    rows = json_rows(chain([first], values))
    return _collected(rows, places, numbered=is_numbered(first[1]))


def _parquet_rows(body: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pyarrow's threads: one of them may kill a program that is ending.
        with pq.ParquetFile(pa.BufferReader(body), pre_buffer=False) as file:
            names = file.schema_arrow.names
            columns = find_columns(names)
            if file.metadata.num_rows > MOST_ROWS:
                raise ManifestError(f"it has more than {MOST_ROWS:,} rows")
            wanted = [names[i] for i in columns if i is not None]
            picked = find_columns(wanted)
            number = 0
            for batch in file.iter_batches(_CHUNK, columns=wanted, use_threads=False):
                cells = [batch.column(name).to_pylist() for name in wanted]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield picked.row(number, row)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"it is no Parquet file that can be read ({error})") from error


def _collected(rows: Iterator[Row], places: Sequence[str], *, numbered: bool) -> Manifest:
    """Gather the rows in arrays, and leave out those that say no path, label, set or identity."""
    columns = _Columns()
    prefixes = tuple(f"{place.rstrip('/')}/" for place in places if place)
    for row in rows:
        columns.add(row, prefixes)
        if columns.count > MOST_ROWS:
            raise ManifestError(f"it has more than {MOST_ROWS:,} rows")
    if not columns.count:
        raise ManifestError("it has no rows")
    return columns.manifest(numbered)


class _Columns:
    """Collects rows, in arrays that take little memory."""

    def __init__(self) -> None:
        self.count = 0
        self._bad: list[BadRow] = []
        self._labels: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._paths: list[bytes] = []
        self._packed: list[Texts] = []
        self._pending: list[tuple[int, int, int, int, int]] = []
        self._identities = bytearray()
        self._unidentified = bytes(IDENTITY_BYTES)
        self._identified: list[bool] = []

    def add(self, row: Row, prefixes: tuple[str, ...]) -> None:
        self.count += 1
        path, search = _relative(row.path, prefixes)
        reason = row.problem or _problem(row, path)
        try:
            raw = path.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raw, reason = b"", "its path is no Unicode text"
        if reason:
            self._bad.append(BadRow(row.line, row.path, reason))
            return
        self._paths.append(raw)
        self._pending.append(
            (
                row.line,
                search,
                self._labels.setdefault(row.label, len(self._labels)),
                _SETS[row.split.casefold()],
                self._groups.setdefault(row.group, len(self._groups)) if row.group else NONE,
            )
        )
        self._identified.append(bool(row.identity))
        self._identities += bytes.fromhex(row.identity) if row.identity else self._unidentified
        if len(self._paths) == _CHUNK:
            self._pack()

    def _pack(self) -> None:
        self._packed.append(Texts(self._paths))
        self._numbers.append(np.array(self._pending, np.int64).reshape(-1, 5))
        self._paths, self._pending = [], []

    def manifest(self, numbered: bool) -> Manifest:
        self._pack()
        numbers = np.concatenate(self._numbers)
        return Manifest(
            lines=numbers[:, 0],
            paths=Texts.joined(self._packed),
            search=numbers[:, 1].astype(np.int8),
            labels=tuple(self._labels),
            label=numbers[:, 2].astype(np.int32),
            sets=numbers[:, 3].astype(np.int8),
            groups=tuple(self._groups),
            group=numbers[:, 4].astype(np.int32),
            identities=np.frombuffer(bytes(self._identities), np.uint8).reshape(-1, IDENTITY_BYTES),
            identified=np.array(self._identified, bool),
            bad=tuple(self._bad),
            numbered=numbered,
        )


def _problem(row: Row, path: str) -> str:
    """Say why a row cannot be used, as far as the row alone tells; "" if it can."""
    if not path:
        return "it names no image"
    if path == ".." or path.startswith("../"):
        return "its path leads out of the folder of images"
    if not row.label:
        return "it names no label"
    if not row.label.isascii() and not _is_unicode(row.label):
        return "its label is not UTF-8; save the file as UTF-8"
    split_name, identity = row.split.casefold(), row.identity
    reason = ""
    if split_name not in _SETS:
        reason = f"its split is {row.split!r}; use train, validation or test"
    elif identity and not _IDENTITY.fullmatch(identity):
        reason = f"its identity {identity!r} is not 32 hexadecimal digits"
    return reason


def _is_unicode(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return "\ufffd" not in label


def _relative(reference: str, prefixes: tuple[str, ...]) -> tuple[str, int]:
    """Make what a row names relative to the folder of images, and say how to look for it.

    The host or bucket of a URL is left out: images were copied from there. What comes of it is only ever
    compared with the names of the files that are in the folder.
    """
    for prefix in prefixes:
        if reference.startswith(prefix):
            return _tidy(reference[len(prefix) :]), EXACT
    if _UPLOAD in reference[:_FAR]:
        return _tidy(reference.partition(_UPLOAD)[2]), UPLOAD
    if _LOCAL_FILES in reference[:_FAR]:
        inside = parse_qs(urlsplit(reference).query).get("d", [""])[0]
        return _tidy(inside.lstrip("/")), LOOSE
    if "\\" in reference and "/" not in reference:
        reference = reference.replace("\\", "/")
    without_host = _without_host(reference)
    return _tidy(without_host), EXACT if without_host is reference else LOOSE


def _without_host(reference: str) -> str:
    """Take scheme and host, drive or leading slashes off what begins with them."""
    if (scheme := _SCHEME.match(reference)) is not None:
        inside = reference[scheme.end() :].partition("/")[2]
        web = scheme[0].casefold() in {"http://", "https://", "file://"}
        return unquote(inside.partition("?")[0]) if web else inside
    if _DRIVE.match(reference):
        return reference[3:]
    return reference.lstrip("/") if reference.startswith("/") else reference


def _tidy(path: str) -> str:
    return posixpath.normpath(path) if path and _UNTIDY.search(path) else path
