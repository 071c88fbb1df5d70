"""Which file each row of a manifest means, and what of the rows cannot be used."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrainer_trainer.arrays import Bools, Longs, Rows
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.manifest import EXACT, NONE, UPLOAD, BadRow, Manifest
from retrainer_trainer.dataset.texts import Texts, shown

# Label Studio puts eight digits of an uploaded file's UUID before its name.
_UPLOADED = re.compile(rb"[0-9a-f]{8}-(?=.)")
_MOST_FOLDERS = 64


@dataclass(frozen=True)
class Matched:
    """The images that a manifest names, N of them, in the order of their paths (as bytes of UTF-8).

    Attributes:
        paths: as the store has them; of images without a file, as the manifest has them.
        file: (N,) index of the file among those of the store; NONE if it has none.
        labels: names, sorted.
        label: (N,) index into `labels`.
        sets: (N,) split.TRAINING, VALIDATION or TESTING.
        groups: names.
        group: (N,) index into `groups`; NONE for an image of no group.
        fixed: (N,) whether the manifest names the set.
        row: (N,) of the manifest.
        bad: rows that are left out, in the order of their lines.
    """

    paths: Texts
    file: Longs
    labels: tuple[str, ...]
    label: npt.NDArray[np.int32]
    sets: npt.NDArray[np.int8]
    groups: tuple[str, ...]
    group: npt.NDArray[np.int32]
    fixed: Bools
    row: Rows
    bad: tuple[BadRow, ...]


def match(manifest: Manifest, files: Texts, testing: int, validation: int) -> Matched:
    """Match the rows of a manifest with the files of the folder of images.

    Args:
        manifest: read.
        files: paths of all files in that folder.
        testing: share of the images for the test, percent, of those whose set the manifest leaves open.
        validation: the same for the validation.
    """
    bad = _Bad(manifest)
    file = _files_of(manifest, files, bad)
    usable = (file != NONE) | manifest.identified
    for row in np.flatnonzero(~usable).tolist():
        bad.add(row, _missing(manifest.paths[row]))
    keys = _keys(manifest, files, file, usable)
    sets = manifest.sets.copy()
    _refuse_second_labels(manifest, keys, sets, bad)
    _settle_groups(manifest, sets, bad)
    rows = _once(keys, bad.usable)
    rows, paths = _in_order(manifest, files, file, rows)
    names = _label_names(manifest, paths, rows)
    labels = sorted({names[i] for i in np.unique(manifest.label[rows]).tolist()})
    index = {name: i for i, name in enumerate(labels)}
    to_sorted = np.array([index.get(name, 0) for name in names], np.int32)
    group, given = manifest.group[rows], sets[rows]
    hashed = (
        manifest.groups[number] if number != NONE else path
        for path, number in zip(paths, group.tolist(), strict=True)
    )
    return Matched(
        paths=paths,
        file=file[rows],
        labels=tuple(labels),
        label=to_sorted[manifest.label[rows]] if len(rows) else manifest.label[rows],
        sets=np.where(given != NONE, given, split.assign(hashed, testing, validation)).astype(
            np.int8
        ),
        groups=manifest.groups,
        group=group,
        fixed=given != NONE,
        row=rows,
        bad=bad.rows(),
    )


class _Bad:
    """Collects the rows that are left out."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._rows = list(manifest.bad)
        self.usable: Bools = np.ones(len(manifest), bool)

    def add(self, row: int, reason: str) -> None:
        if self.usable[row]:
            self.usable[row] = False
            manifest = self._manifest
            self._rows.append(BadRow(int(manifest.lines[row]), manifest.paths[row], reason))

    def rows(self) -> tuple[BadRow, ...]:
        return tuple(sorted(self._rows))


def _missing(path: str) -> str:
    text = "there is no such file in the folder of images"
    return text if path.isascii() or path == shown(path) else f"{text}; is the manifest UTF-8?"


def _files_of(manifest: Manifest, files: Texts, bad: _Bad) -> Longs:
    """Find the file of each row; NONE where there is none."""
    import pyarrow.compute as pc

    names = files.arrow()

    def look(paths: object) -> Longs:
        places = pc.fill_null(pc.index_in(paths, value_set=names), NONE)
        return np.asarray(places.to_numpy(zero_copy_only=False), np.int64)

    paths = manifest.paths.arrow()
    file = look(paths)
    open_rows = np.flatnonzero((file == NONE) & (manifest.search != EXACT))
    wanted = paths.take(_indices(open_rows))
    for _ in range(_MOST_FOLDERS):
        if not len(open_rows):
            break
        wanted = pc.replace_substring_regex(wanted, "^[^/]*/", "", max_replacements=1)
        file[open_rows] = look(wanted)
        deeper = np.asarray(pc.match_substring(wanted, "/").to_numpy(zero_copy_only=False), bool)
        again = np.flatnonzero((file[open_rows] == NONE) & deeper)
        open_rows, wanted = open_rows[again], wanted.take(_indices(again))
    uploaded = np.flatnonzero((file == NONE) & (manifest.search == UPLOAD))
    if len(uploaded):
        _find_by_name(manifest, files, file, uploaded, bad)
    return file


def _indices(rows: Rows) -> object:
    import pyarrow as pa

    return pa.Array.from_buffers(
        pa.int64(), len(rows), [None, pa.py_buffer(rows.astype(np.int64).tobytes())]
    )


def _find_by_name(manifest: Manifest, files: Texts, file: Longs, rows: Rows, bad: _Bad) -> None:
    """Find the originals of uploaded files: Label Studio keeps their names, but not their folders."""
    raw = files.raw()
    names = [path.rpartition(b"/")[2] for path in raw]
    count = Counter(names)
    place = {name: i for i, name in enumerate(names)}
    paths = manifest.paths.chosen(rows).raw()
    for row, path in zip(rows.tolist(), paths, strict=True):
        name = _UPLOADED.sub(b"", path.rpartition(b"/")[2])
        if count[name] == 1:
            file[row] = place[name]
        elif count[name]:
            shown_name = shown(name.decode(errors="surrogateescape"))
            bad.add(row, f"{count[name]} files in the folder of images are called {shown_name}")


def _keys(manifest: Manifest, files: Texts, file: Longs, usable: Bools) -> Longs:
    """Number the image of each row: equal numbers are one image; NONE for rows that have none."""
    keys = file.copy()
    alone = np.flatnonzero(usable & (file == NONE))
    numbers: dict[bytes, int] = {}
    for row, path in zip(alone.tolist(), manifest.paths.chosen(alone).raw(), strict=True):
        keys[row] = len(files) + numbers.setdefault(path, len(numbers))
    return keys


def _refuse_second_labels(
    manifest: Manifest, keys: Longs, sets: npt.NDArray[np.int8], bad: _Bad
) -> None:
    """Leave out images of which rows say different labels; settle the set of the others."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] != NONE]
    for rows in _runs(order, keys):
        labels = {int(manifest.label[row]): row for row in reversed(rows)}
        if len(labels) == 1:
            _settle_set(manifest, rows, sets, bad, "it")
            continue
        (one, first), (other, second) = sorted(labels.items(), key=lambda item: item[1])[:2]
        for row in rows:
            label, line = (other, second) if int(manifest.label[row]) == one else (one, first)
            name = shown(manifest.labels[label])
            bad.add(row, f"line {manifest.lines[line]} says that it is {name}")


def _runs(order: Rows, keys: Longs) -> Iterable[list[int]]:
    """Give the rows of each number that several rows have, in the order of the file."""
    if not len(order):
        return
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end].tolist()


def _settle_set(
    manifest: Manifest, rows: list[int], sets: npt.NDArray[np.int8], bad: _Bad, what: str
) -> None:
    """Give all of the rows the set that the first of them names; leave out those that name another."""
    naming = [row for row in rows if sets[row] != NONE and bad.usable[row]]
    if not naming:
        return
    first = naming[0]
    name = split.SETS[sets[first]]
    for row in naming[1:]:
        if sets[row] != sets[first]:
            bad.add(row, f"line {manifest.lines[first]} puts {what} into the {name} set")
    sets[rows] = sets[first]


def _settle_groups(manifest: Manifest, sets: npt.NDArray[np.int8], bad: _Bad) -> None:
    """Put the rows of each group into the set that one of them names."""
    grouped = np.flatnonzero(manifest.group != NONE)
    order = grouped[np.argsort(manifest.group[grouped], kind="stable")]
    for rows in _runs(order, manifest.group.astype(np.int64)):
        group = shown(manifest.groups[manifest.group[rows[0]]])
        _settle_set(manifest, rows, sets, bad, f"its group {group}")


def _once(keys: Longs, usable: Bools) -> Rows:
    """Choose the first usable row of each image."""
    rows = np.flatnonzero(usable)
    _, first = np.unique(keys[rows], return_index=True)
    return rows[first]


def _in_order(manifest: Manifest, files: Texts, file: Longs, rows: Rows) -> tuple[Rows, Texts]:
    """Sort rows by the paths of their images, and give these paths as the store has them."""
    in_store = np.flatnonzero(file[rows] != NONE)
    raw = manifest.paths.chosen(rows).raw()
    stored = files.chosen(file[rows][in_store]).raw()
    for place, path in zip(in_store.tolist(), stored, strict=True):
        raw[place] = path
    order = np.array(sorted(range(len(raw)), key=raw.__getitem__), np.intp)
    return rows[order], Texts([raw[i] for i in order])


def _label_names(manifest: Manifest, paths: Texts, rows: Rows) -> list[str]:
    """Give the labels' names; of numbers those of the folders, if each has one folder of its own."""
    if not manifest.numbered:
        return list(manifest.labels)
    folders: dict[int, set[str]] = {}
    for path, label in zip(paths, manifest.label[rows].tolist(), strict=True):
        folders.setdefault(label, set()).add(path.partition("/")[0] if "/" in path else "")
    alone = {label: min(names) for label, names in folders.items() if len(names) == 1}
    distinct = len(set(alone.values())) == len(folders) and "" not in alone.values()
    if not distinct:
        return list(manifest.labels)
    return [alone.get(label, name) for label, name in enumerate(manifest.labels)]
