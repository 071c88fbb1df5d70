"""What corrections changed: this head and the one before, on the test images that both have."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from retrainer.api.evaluation import HeadBefore
from retrainer.results.significance import mcnemar


class Guess(NamedTuple):
    """What a head makes of one test image: its label then, and the guess."""

    label: str
    guess: str


def guesses_of(body: bytes) -> dict[str, Guess]:
    """Read `predictions.parquet` of a run: the guess for each test image by its identity.

    Raises:
        ValueError: it is none, or of a version that wrote no identities.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(body), pre_buffer=False) as file:
            columns: Any = file.read(["identity", "label", "guess"], use_threads=False)
        rows = zip(
            *(columns.column(name).to_pylist() for name in columns.column_names), strict=True
        )
        return {str(identity): Guess(str(label), str(guess)) for identity, label, guess in rows}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def compare(run: str, before: dict[str, Guess], now: dict[str, Guess]) -> HeadBefore:
    """Compare two heads on the images that both were tested on, by the labels of now.

    What the corrected labels alone change is told apart: the head before is judged by its own labels
    and by those of now.

    Args:
        run: name of the run before.
        before, now: guesses by the identity of the image; copies of an image count once.
    """
    common: Sequence[str] = sorted(before.keys() & now.keys())
    images = len(common)
    right_then = sum(before[i].guess == before[i].label for i in common)
    only_before = sum(_before(before[i], now[i]) and not _right(now[i]) for i in common)
    only_now = sum(_right(now[i]) and not _before(before[i], now[i]) for i in common)
    right_before = sum(_before(before[i], now[i]) for i in common)
    right_now = sum(_right(now[i]) for i in common)

    def share(right: int) -> float | None:
        return right / images if images else None

    return HeadBefore(
        run=run,
        images=images,
        relabelled=sum(before[i].label != now[i].label for i in common),
        accuracy_then=share(right_then),
        accuracy_by_corrected_labels=share(right_before),
        accuracy=share(right_now),
        only_before=only_before,
        only_now=only_now,
        p=mcnemar(only_before, only_now),
    )


def _right(now: Guess) -> bool:
    return now.guess == now.label


def _before(before: Guess, now: Guess) -> bool:
    return before.guess == now.label
