"""A run's folder, read: its report, learning curve, predictions and files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from retrainer.api import Evaluation, Report, Storage
from retrainer.api.corrections import Correction
from retrainer.api.interval import wilson
from retrainer.api.layout import (
    CATALOG,
    EVALUATION,
    FINDINGS,
    HISTORY,
    JOB,
    LABELS,
    PREDICTIONS,
    RESULT,
    SWEEP,
    join,
)
from retrainer.api.parsing import problems
from retrainer.api.status import CurvePoint
from retrainer.errors import NotFound, UserError
from retrainer.results.history import COLUMNS, History
from retrainer.results.rows import CatalogRow, Combination, Finding, TestPrediction
from retrainer.results.suggestions import suggested
from retrainer.store.folder import Folder
from retrainer.store.s3 import Access

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure

    from retrainer.inference.classifier import Image, Prediction


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of test images.

    Attributes:
        labels: in the order of rows and columns.
        counts: (labels, labels) of int; `counts[i, j]` images are `labels[i]` and were guessed to be
            `labels[j]`.
    """

    labels: list[str]
    counts: "npt.NDArray[np.int64]"

    @property
    def accuracy(self) -> float | None:
        """Share of images on the diagonal, 0 to 1; None if there are none."""
        images = int(self.counts.sum())
        return float(self.counts.trace() / images) if images else None

    def to_pandas(self) -> "pd.DataFrame":
        """Make a frame with labels as index (what they are) and as columns (what was guessed)."""
        from retrainer.extras import import_pandas

        pandas = import_pandas()
        frame: pd.DataFrame = pandas.DataFrame(
            self.counts,
            index=pandas.Index(self.labels, name="label"),
            columns=pandas.Index(self.labels, name="guess"),
        )
        return frame

    def plot(self, path: str | None = None) -> "Figure":
        """Draw the matrix; also written to `path` if given."""
        from retrainer.results import plots

        return plots.confusion(self.labels, self.counts, path)

    def _repr_html_(self) -> str:
        from retrainer.results import notebook

        return notebook.confusion(self.labels, self.counts.tolist())


class Run:
    """One run's folder, on this machine or in S3; files are read when asked for, and once.

    Methods raise `NotFound` while there is no such file (`result.json` is written last), and
    `StorageError` or `StorageDenied` when the store does not give it.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        name: str = "",
        architecture: str = "",
        storage: Storage | Mapping[str, Any] | None = None,
        access: Access | None = None,
    ) -> None:
        """Name the folder; nothing is read yet.

        Args:
            url: of the run's folder: `s3://bucket/flowers/flowers-1a2b3c4d` or a path.
            name: the name to show; the report's if "".
            architecture: that of its job; what the run says if "".
            storage: endpoint and region, as in the job's spec.
            access: another endpoint or other credentials for this machine.
        """
        if not isinstance(url, (str, Path)):
            raise TypeError(f"Give the path or URL of a run, not {url!r}.")
        self.url = str(url).rstrip("/")
        self._given_name = name
        self._given_architecture = architecture
        self._storage = storage if isinstance(storage, Storage) else _storage(storage)
        self._access = access

    def __repr__(self) -> str:
        return f"<Run {self.url}>"

    @cached_property
    def folder(self) -> Folder:
        """The folder on disk or in S3."""
        return Folder(self.url, self._storage, self._access)

    @property
    def name(self) -> str:
        """Name of its job."""
        return self._given_name or self.report.name

    @property
    def architecture(self) -> str:
        """Architecture of its job; "" if the run does not say."""
        return self._given_architecture or self.evaluation.architecture

    @property
    def network(self) -> str:
        """Name of its network: its architecture, or the name of its backbone."""
        return self.architecture or self.evaluation.network

    @property
    def reached_by(self) -> tuple[Storage | None, Access | None]:
        """How its store is reached: the job's endpoint and region, or what this machine uses instead."""
        return self._storage, self._access

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The spec of its job, defaults filled in (`job.yaml`); empty in a run that has none."""
        import yaml

        try:
            document = yaml.safe_load(self._read(JOB))
        except (NotFound, yaml.YAMLError):
            return {}
        spec = document.get("spec") if isinstance(document, dict) else None
        return spec if isinstance(spec, dict) else {}

    # --- figures ---
    @cached_property
    def report(self) -> Report:
        """`result.json`: final metrics, counts, warnings; its presence means the run is whole."""
        return self._parsed(Report, RESULT)

    @cached_property
    def evaluation(self) -> Evaluation:
        """`evaluation.json`: accuracy with its interval, figures per label and per export."""
        return self._parsed(Evaluation, EVALUATION)

    @property
    def test_accuracy(self) -> float | None:
        """Share (0 to 1) of test images guessed right; None without test images."""
        return self.report.metrics.test_accuracy

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% Wilson interval of the test accuracy; None without test images."""
        images = self.report.metrics.test_images or 0
        if self.test_accuracy is None or not images:
            return None
        return wilson(self.test_accuracy, images)

    @cached_property
    def labels(self) -> list[str]:
        """`labels.txt`, in the order of the network's output."""
        return self._read(LABELS).decode().rstrip("\n").split("\n")

    def history(self) -> History:
        """Read every evaluation of the training (`history.parquet`)."""
        table = self._parquet(HISTORY)
        rows = (
            dict(zip(COLUMNS, row, strict=True))
            for row in zip(*_columns(table, COLUMNS), strict=True)
        )
        return History([CurvePoint(**row) for row in rows], self.name)

    @cached_property
    def _predictions(self) -> list[TestPrediction]:
        table = self._parquet(PREDICTIONS)
        # An older run has no identities.
        names = [name for name in TestPrediction.__dataclass_fields__ if name in table.column_names]
        rows = zip(*_columns(table, names), strict=True)
        return [TestPrediction(**dict(zip(names, row, strict=True))) for row in rows]

    def predictions(self) -> list[TestPrediction]:
        """The guess for each test image (`predictions.parquet`), by path."""
        return sorted(self._predictions, key=lambda p: p.path)

    def misclassified(self) -> list[TestPrediction]:
        """Test images guessed wrong, the surest guess first."""
        wrong = (p for p in self._predictions if not p.right)
        return sorted(wrong, key=lambda p: (-p.score, p.path))

    def catalog(self) -> list[CatalogRow]:
        """List every image with its label and set, and what was rejected (`catalog.parquet`)."""
        table = self._parquet(CATALOG)
        names = list(CatalogRow.__dataclass_fields__)
        return [CatalogRow(*row) for row in zip(*_columns(table, names), strict=True)]

    def findings(self) -> list[Finding]:
        """List what stands out among the images (`findings.parquet`), the clearest of a kind first."""
        table = self._parquet(FINDINGS)
        names = list(Finding.__dataclass_fields__)
        rows = zip(*_columns(table, names), strict=True)
        return [Finding(**dict(zip(names, row, strict=True))) for row in rows]

    def suggested_corrections(self) -> list[Correction]:
        """Suggest a correction for each finding; look at each before it is applied.

        Write them by `retrainer.api.corrections.csv_text`, and name the file in the next job's
        `corrections`.
        """
        run = self.url.rsplit("/", 1)[-1]
        return [suggested(finding, run) for finding in self.findings()]

    def sweep(self) -> list[Combination]:
        """List every combination that a sweep tried (`sweep.parquet`), in the order of their values.

        Raises:
            NotFound: the job had no sweep.
        """
        try:
            table = self._parquet(SWEEP)
        except NotFound as error:
            raise NotFound(
                f"{self.url} has no {SWEEP}: its job had no sweep, or the run is not finished."
            ) from error
        names = list(Combination.__dataclass_fields__)
        rows = zip(*_columns(table, names), strict=True)
        return [Combination(**dict(zip(names, row, strict=True))) for row in rows]

    def confusion_matrix(self) -> ConfusionMatrix:
        """Read the counts of test images: rows are what they are, columns what was guessed."""
        import numpy as np

        return ConfusionMatrix(self.labels, np.array(self.evaluation.confusion, np.int64))

    # --- files ---
    def artifacts(self) -> dict[str, str]:
        """List the files of the run, name to URL."""
        return {name: join(self.url, path) for name, path in self.report.artifacts.items()}

    def download(self, path: str | Path = ".") -> Path:
        """Download everything into `<path>/<name of the folder>`; returns that path.

        Raises:
            NotFound: there is nothing, or not all of it yet.
        """
        if not self.folder.exists(RESULT):
            raise NotFound(self._lacks(RESULT))
        target = Path(path).expanduser() / self.url.rsplit("/", 1)[-1]
        self.folder.download(target, self.folder.entries())
        return target

    def predict(
        self, images: "Iterable[Image] | Image", top: int | None = None
    ) -> "list[Prediction]":
        """Label images on this machine; nothing is sent anywhere.

        Args:
            images: paths of images or of folders of them, or an image's bytes; one or several.
            top: keep so many scores of each, the best; None keeps all.

        Returns:
            One prediction per image, in order; that of an image that cannot be read says so in its
            `error`.

        Raises:
            UserError: no image can be read; the message names each.
            NotFound: the run is not whole, or was exported without a TensorFlow Lite file.
        """
        from retrainer.inference.classifier import Classifier, files

        classifier = Classifier.open(self.url, self._storage, self._access)
        return classifier.each(files(images), top)

    def _parquet(self, path: str) -> Any:
        import pyarrow
        from pyarrow import parquet

        # Without pyarrow's threads: one that still releases these bytes when the program ends kills it
        # with "terminate called without an active exception", one time in nine.
        body = pyarrow.BufferReader(self._read(path))
        return parquet.ParquetFile(body, pre_buffer=False).read(use_threads=False)

    def _parsed(self, model: type[T], path: str) -> T:
        try:
            return model.model_validate_json(self._read(path))
        except ValidationError as error:
            raise UserError(
                f"{join(self.url, path)} is damaged, or of another version of Retrainer."
            ) from error

    def _read(self, path: str) -> bytes:
        try:
            return self.folder.read(path)
        except NotFound as error:
            raise NotFound(self._lacks(path)) from error

    def _lacks(self, path: str) -> str:
        return f"{self.url} has no {path}: the run is not finished, or its folder was deleted."


def _columns(table: Any, names: Iterable[str]) -> list[list[Any]]:
    return [table.column(name).to_pylist() for name in names]


def _storage(storage: Mapping[str, Any] | None) -> Storage | None:
    try:
        return Storage.model_validate(storage) if storage else None
    except ValidationError as error:
        raise UserError("\n".join(f"storage.{p}" for p in problems(error, Storage))) from error
