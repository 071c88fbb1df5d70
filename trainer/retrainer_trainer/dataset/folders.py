"""Images in a folder per label: what a listing of them says."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from retrainer.api import RetrainJobSpec, reasons
from retrainer.inference.leftovers import is_leftover, is_sidecar
from retrainer_trainer.arrays import Longs
from retrainer_trainer.dataset import split
from retrainer_trainer.dataset.listing import (
    Listing,
    listed_names,
    no_groups,
    no_identities,
)
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.store.store import Entry, Store

_CHUNK = 50_000
# Folders of these names hold sets, not images of one label, if label folders are inside.
_SET_FOLDERS = frozenset({
    "train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval",
})  # fmt: skip


class _Gathered:
    """Collects the listed images, in arrays that take little memory."""

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.paths: list[Texts] = []
        self.etags: list[Texts] = []
        self.sizes: list[Longs] = []
        self.label: list[npt.NDArray[np.int32]] = []
        self.count = 0
        self.beside = 0
        self.sidecars = 0
        self.sidecar_kinds: set[str] = set()
        self.first_sidecar = ""
        # Of folders that may be sets: what is in them.
        self._inside: dict[str, set[str]] = {}

    def add(self, entries: list[Entry]) -> None:
        """Add some of the files and folders."""
        kept = []
        labels = []
        for entry in entries:
            parts = entry.path.split("/")
            if any(is_leftover(part) for part in parts if part):
                self.beside += not entry.path.endswith("/")
            elif len(parts) == 1:
                self.beside += 1
            elif is_sidecar(parts[-1]):
                self._add_sidecar(entry.path)
            else:
                number = self.labels.setdefault(parts[0], len(self.labels))
                if parts[0].casefold() in _SET_FOLDERS:
                    inside = self._inside.setdefault(parts[0], set())
                    inside.add(parts[1] if len(parts) > 2 else "")
                if not entry.path.endswith("/"):
                    kept.append(entry)
                    labels.append(number)
        self.paths.append(Texts.of(entry.path for entry in kept))
        self.etags.append(Texts.of(entry.etag or "" for entry in kept))
        self.sizes.append(np.array([e.size for e in kept], np.int64))
        self.label.append(np.array(labels, np.int32))
        self.count += len(kept)

    def _add_sidecar(self, path: str) -> None:
        self.first_sidecar = self.first_sidecar or path
        self.sidecars += 1
        self.sidecar_kinds.add("." + path.rsplit(".", 1)[1].casefold())

    def set_folders(self) -> list[str]:
        """Find folders on top that are sets (train, test, ...): the same label folders are in them."""
        inside = {top: names - {""} for top, names in self._inside.items()}
        return sorted(
            top
            for top, names in inside.items()
            if any(names & others for other, others in inside.items() if other != top)
        )

    def nothing(self) -> str:
        """Say what is there instead of images, as the end of a sentence."""
        if self.sidecars:
            return f"its files are no images, such as {shown(self.first_sidecar)}"
        if self.labels:
            return "all of its label folders are empty"
        if self.beside:
            return "it has files but no label folders"
        return "it is empty"


def list_folders(store: Store, spec: RetrainJobSpec, log: Callable[[str], None]) -> Listing:
    """List the images of every label folder.

    Args:
        store: of `spec.images`.
        spec: its split is used.
        log: told what was listed and what was left out.

    Raises:
        UserError: there is no image, or the folders on top are sets.
    """
    gathered = _gathered(store)
    names = sorted(gathered.labels)
    if not gathered.count:
        raise reasons.NO_IMAGES.error(url=spec.images, detail=gathered.nothing())
    if sets_on_top := gathered.set_folders():
        raise reasons.SETS_ON_TOP.error(
            url=spec.images.rstrip("/"),
            folders=listed_names(sets_on_top),
            first=shown(sets_on_top[0]),
        )
    raw = [path for chunk in gathered.paths for path in chunk.raw()]
    order = sorted(range(len(raw)), key=raw.__getitem__)
    paths = Texts([raw[i] for i in order])
    raw = [etag for chunk in gathered.etags for etag in chunk.raw()]
    etags = Texts([raw[i] for i in order])
    del raw
    places = np.array(order)
    index = {name: i for i, name in enumerate(names)}
    to_sorted = np.array([index[name] for name in gathered.labels], np.int32)
    log(f"{len(paths)} images of {len(names)} labels under {spec.images}.")
    if gathered.beside:
        log(f"{gathered.beside} files are left out: hidden, or beside the label folders.")
    if gathered.sidecars:
        kinds = ", ".join(sorted(gathered.sidecar_kinds))
        log(
            f"{gathered.sidecars} files beside the images are left out ({kinds}), such as "
            f"{shown(gathered.first_sidecar)}: the label is the folder's name, nothing else is read."
        )
    return Listing(
        labels=tuple(names),
        paths=paths,
        etags=etags,
        sizes=np.concatenate(gathered.sizes)[places],
        label=to_sorted[np.concatenate(gathered.label)[places]],
        sets=split.assign(paths, spec.split.testing_percentage, spec.split.validation_percentage),
        identities=no_identities(len(paths)),
        groups=(),
        group=no_groups(len(paths)),
        fixed=np.zeros(len(paths), bool),
    )


def _gathered(store: Store) -> _Gathered:
    listing = _Gathered()
    pending: list[Entry] = []
    for entry in store.list():
        pending.append(entry)
        if len(pending) == _CHUNK:
            listing.add(pending)
            pending = []
    listing.add(pending)
    return listing
