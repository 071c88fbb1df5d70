"""`retrainer verify`: runs every export of a run with whatever is installed, and compares them."""

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.api import Export
from retrainer.api.layout import EXPORT_PATHS
from retrainer.cli.output import print_table, say
from retrainer.cli.reach import Reach, RunOrJob, reaching
from retrainer.errors import RetrainerError, UserError
from retrainer.views.text import near

if TYPE_CHECKING:
    from retrainer.inference.preparing import MakePixels
    from retrainer.inference.runners import Runner
    from retrainer.inference.tflite import Pixels, Scores

MADE_UP = 16
"""Pictures that are made up where no images are given: what is compared is files, not accuracy."""

MOST_DIFFERENT = 0.01
"""Share of the guesses that may differ; a trainer refuses an export above it."""


@reaching
def verify(
    run: RunOrJob,
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Images, or folders of images; made-up ones if none are given."),
    ] = None,
    *,
    reach: Reach,
) -> None:
    """Run every export of a finished run, and say which give the same scores.

    Each is compared with the first of the table. An export whose library is not installed is left out.

    [dim]retrainer verify out photos/[/]
    """
    from retrainer.inference.runners import LIBRARIES, SAVED_MODEL_BYTES, open_runners
    from retrainer.inference.silence import quiet

    run_folder = reach.run(run)
    formats = [form for form in Export if form in run_folder.artifacts()]
    if not formats:
        raise UserError(f"{near(run_folder.url)} has no exports.")
    say(f"Exports of {near(run_folder.url)}.")
    runners: dict[str, tuple[Export, Runner]] = {}
    missing: dict[Export, str] = {}
    with tempfile.TemporaryDirectory(prefix="retrainer-verify-") as name:
        folder = run_folder.download(name)
        for form in formats:
            if importlib.util.find_spec(LIBRARIES[form]) is None:
                missing[form] = LIBRARIES[form]
                continue
            with quiet():
                opened = open_runners(folder, form)
            runners |= {each: (form, runner) for each, runner in opened.items()}
        if not runners:
            libraries = ", ".join(dict.fromkeys(missing.values()))
            raise UserError(f"No export can be run here: {libraries} is not installed.")
        pixels, bodies = _pictures(images, *_input(folder))
        scores: dict[str, Scores] = {}
        for each, (_, runner) in runners.items():
            with quiet():
                scores[each] = runner(pixels, bodies)
    different = {each: _different(its_scores, scores) for each, its_scores in scores.items()}
    rows = [
        (each, EXPORT_PATHS[form], LIBRARIES[form], f"{_apart(scores[each], scores):.1g}",
         f"{different[each]} of {len(pixels)}")
        for each, (form, _) in runners.items()
    ]  # fmt: skip
    rows += [
        (form.value, EXPORT_PATHS[form], f"{library} is not installed", "", "not run")
        for form, library in missing.items()
    ]
    columns = ("EXPORT", "FILE", "RUN BY", "LARGEST DIFFERENCE", "OTHER GUESSES")
    print_table(columns, rows, right="LARGEST DIFFERENCE")
    lenient = {Export.TFLITE_INT8.value, SAVED_MODEL_BYTES}
    wrong = [
        each
        for each, count in different.items()
        if each not in lenient and count > MOST_DIFFERENT * len(pixels)
    ]
    if wrong:
        raise RetrainerError(
            f"{', '.join(wrong)} guesses otherwise than {next(iter(scores))}: export the run again, "
            "and if that does not help report it as a fault of Retrainer."
        )


def _input(folder: Path) -> "tuple[int, MakePixels]":
    """Height and width that the run's exports take, and what decodes images for them."""
    from retrainer.api import Evaluation, architecture
    from retrainer.api.layout import EVALUATION
    from retrainer.inference import pixels
    from retrainer.inference.preparing import pixels_of_export

    evaluation = Evaluation.model_validate_json((folder / EVALUATION).read_bytes())
    size = evaluation.size or architecture(evaluation.architecture).size
    return size, pixels_of_export(folder) if evaluation.backbone else pixels.pixels


def _pictures(
    paths: list[Path] | None, size: int, make_pixels: "MakePixels"
) -> "tuple[Pixels, list[bytes]]":
    """Pixels (images, size, size, 3) and the files they come from."""
    import cv2
    import numpy as np

    from retrainer.inference.classifier import files
    from retrainer.inference.pixels import RejectedError

    if not paths:
        generator = np.random.default_rng(0)
        coarse = generator.integers(0, 256, (MADE_UP, 6, 6, 3), dtype=np.uint8)
        smooth = [cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse]
        encoded = [cv2.imencode(".png", picture[..., ::-1])[1].tobytes() for picture in smooth]
        return np.stack(smooth), encoded
    bodies: list[bytes] = []
    squares: list[Pixels] = []
    for path in (Path(str(image)).expanduser() for image in files(paths)):
        try:
            bodies.append(path.read_bytes())
            squares.append(make_pixels(bodies[-1], size))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        except RejectedError as error:
            raise UserError(f"{path}: {error}") from error
    return np.stack(squares), bodies


def _apart(scores: "Scores", among: "dict[str, Scores]") -> float:
    """Compute the largest difference from the first export's scores."""
    first = next(iter(among.values()))
    return float(abs(scores - first).max())


def _different(scores: "Scores", among: "dict[str, Scores]") -> int:
    """Count the guesses that differ from the first export's."""
    first = next(iter(among.values()))
    return int((scores.argmax(axis=1) != first.argmax(axis=1)).sum())
