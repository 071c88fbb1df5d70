"""Applies corrections of people to the listed images, before anything is read."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from retrainer.api import RetrainJobSpec, reasons
from retrainer.api.corrections import Action, Correction, parsed
from retrainer.api.layout import parent
from retrainer.errors import NotFound
from retrainer_trainer.dataset.listing import Listing
from retrainer_trainer.dataset.texts import Texts, shown
from retrainer_trainer.store.opening import open_store

MOST_BYTES = 64 << 20
_NAMED = 5
_RUN = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class AppliedCorrection:
    """One correction that was applied: to which image, what it was labelled before."""

    correction: Correction
    was: str


@dataclass(frozen=True)
class Corrections:
    """What corrections came to.

    Attributes:
        applied: in the order of their lines.
        absent: lines and paths of those whose image is not there.
        kept: paths of the images whose findings are not shown again.
        run: name of the run that they are of; "" if they say none.
    """

    applied: tuple[AppliedCorrection, ...] = ()
    absent: tuple[tuple[int, str], ...] = ()
    kept: frozenset[str] = frozenset()
    run: str = ""

    def count(self, action: Action) -> int:
        """Count the applied corrections of this kind."""
        return sum(one.correction.action == action for one in self.applied)

    def sentence(self) -> str:
        """Say what was applied, and what was not."""
        parts = [
            f"{self.count(Action.RELABEL)} relabelled",
            f"{self.count(Action.DROP)} dropped",
            f"{self.count(Action.KEEP)} kept",
        ]
        text = f"Corrections: {', '.join(parts)}"
        if self.absent:
            named = ", ".join(f"line {line} ({path})" for line, path in self.absent[:_NAMED])
            more = len(self.absent) - _NAMED
            text += f"; images that are not there: {named}" + (
                f" and {more} more" if more > 0 else ""
            )
        return f"{text}."


NO_CORRECTIONS = Corrections()


def read_corrections(spec: RetrainJobSpec) -> list[tuple[int, Correction]]:
    """Read `spec.corrections`: the number of each row's line, and what it says.

    Raises:
        UserError: it is not there, or no such file.
    """
    url = spec.corrections or ""
    folder, name = parent(url)
    store = open_store(folder, spec.storage, "spec.corrections")
    try:
        if store.head(name).size > MOST_BYTES:
            raise _unreadable(url, f"it has more than {MOST_BYTES:,} bytes")
        return list(parsed(store.get(name).decode("utf-8-sig")))
    except NotFound as error:
        raise _unreadable(url, "there is no such file") from error
    except UnicodeDecodeError as error:
        raise _unreadable(url, "it is not UTF-8 text") from error
    except ValueError as error:
        raise _unreadable(url, str(error)) from error


def _unreadable(url: str, detail: str) -> Exception:
    return reasons.CORRECTIONS_UNREADABLE.error(url=url, detail=detail)


def apply(
    listing: Listing, spec: RetrainJobSpec, log: Callable[[str], None]
) -> tuple[Listing, Corrections]:
    """Apply `spec.corrections`, if there are any: relabel and drop images.

    Raises:
        UserError: the file cannot be read, or a row has another action, or a label that there is not.
    """
    if not spec.corrections:
        return listing, NO_CORRECTIONS
    rows = read_corrections(spec)
    if problems := _problems(rows, listing.labels):
        more = len(problems) - _NAMED
        detail = "; ".join(problems[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise _unreadable(spec.corrections, detail)
    corrected, corrections = applied(listing, rows)
    log(corrections.sentence())
    return corrected, corrections


def _problems(rows: list[tuple[int, Correction]], labels: tuple[str, ...]) -> list[str]:
    """Say of each row that cannot be applied why, by its line."""
    names = set(map(shown, labels))
    first: dict[str, tuple[int, Correction]] = {}
    problems = []
    for line, row in rows:
        if row.action not in set(Action):
            problems.append(f"line {line}: its action is {row.action!r}; use relabel, drop or keep")
        elif row.action == Action.RELABEL and row.label not in names:
            problems.append(f"line {line}: there is no label {row.label!r}")
        elif row.run and not _RUN.fullmatch(row.run):
            problems.append(f"line {line}: {row.run!r} is no name of a run's folder")
        elif row.action != Action.KEEP:
            number, other = first.setdefault(row.path, (line, row))
            if (other.action, other.label) != (row.action, row.label):
                problems.append(f"line {line}: line {number} corrects the same image otherwise")
    return problems


def applied(listing: Listing, rows: list[tuple[int, Correction]]) -> tuple[Listing, Corrections]:
    """Apply rows that can be applied; those whose image is not there are counted.

    Args:
        listing: of the job.
        rows: line and correction of each.
    """
    wanted = {row.path for _, row in rows}
    place: dict[str, int] = {}
    for number, path in enumerate(listing.paths):
        name = path if path.isprintable() and path in wanted else shown(path)
        if name in wanted:
            place[name] = number
    names = {shown(label): i for i, label in enumerate(listing.labels)}
    label = listing.label.copy()
    stays = np.ones(len(label), bool)
    done: dict[tuple[str, str], AppliedCorrection] = {}
    for _, row in rows:
        if row.path not in place:
            continue
        image = place[row.path]
        was = shown(listing.labels[listing.label[image]])
        if row.action == Action.RELABEL:
            label[image] = names[row.label]
        elif row.action == Action.DROP:
            stays[image] = False
        done.setdefault((row.path, row.action), AppliedCorrection(row, was))
    corrections = Corrections(
        applied=tuple(done.values()),
        absent=tuple((line, row.path) for line, row in rows if row.path not in place),
        kept=frozenset(path for path, action in done if action == Action.KEEP),
        run=next((row.run for _, row in reversed(rows) if row.run), ""),
    )
    return _without(replace(listing, label=label), stays), corrections


def _without(listing: Listing, stays: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Listing:
    """Leave out the images that do not stay; labels stay, even without an image."""
    if stays.all():
        return listing
    rows = np.flatnonzero(stays)
    paths: Texts = listing.paths.chosen(rows)
    return replace(
        listing,
        paths=paths,
        etags=listing.etags.chosen(rows),
        sizes=listing.sizes[rows],
        label=listing.label[rows],
        sets=listing.sets[rows],
        identities=listing.identities[rows],
        group=listing.group[rows],
        fixed=listing.fixed[rows],
    )
