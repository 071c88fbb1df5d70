"""Manifests of one line per row: CSV and TSV of any program, Vertex AI's CSV, SageMaker's .lst."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import chain

from retrainer_trainer.dataset.rows import Columns, ManifestError, Row, find_columns, one_label

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
# An image's number, its label's number, its path.
_LST_CELLS = 3
Line = tuple[int, list[str]]


def text_rows(stream: io.TextIOBase, first_line: str) -> Iterator[Row]:
    """Read the rows of a text with a line per row.

    Args:
        stream: the whole text; line ends are as they are in the file.
        first_line: of the text, by which the delimiter is told.

    Raises:
        ManifestError: its columns are not known, or a quote is never closed.
    """
    tab, semicolon = "\t" in first_line, ";" in first_line and "," not in first_line
    lines = _lines(stream, "\t" if tab else ";" if semicolon else ",")
    first = next(lines, None)
    if first is None:
        raise ManifestError("it is empty")
    number, cells = first
    if tab and len(cells) >= _LST_CELLS and _is_number(cells[0]) and _is_number(cells[1]):
        return _lst_rows(chain([first], lines))
    if any(map(_is_path, cells)):
        return _rows_without_header(chain([first], lines))
    try:
        columns = find_columns(cells)
    except ManifestError as error:
        raise ManifestError(f"line {number}: {error}") from error
    return _rows(lines, columns)


def _lines(stream: io.TextIOBase, delimiter: str) -> Iterator[Line]:
    """Give the cells of each line that is not empty, with the number of the line it begins at."""
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    number = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ManifestError(
                f"line {number}: its quotes are wrong, or one is never closed ({error})"
            ) from error
        if cells is None:
            return
        if any(cells):
            yield number, [cell.strip() for cell in cells]
        number = reader.line_num + 1


def _rows(lines: Iterator[Line], columns: Columns) -> Iterator[Row]:
    for number, cells in lines:
        row = columns.row(number, cells)
        # Label Studio writes several choices as JSON into the cell.
        if row.label.startswith('{"choices"'):
            try:
                label, problem = one_label(json.loads(row.label))
            except ValueError:
                continue
            row = row._replace(label=label, problem=problem)
        yield row


def _rows_without_header(lines: Iterator[Line]) -> Iterator[Row]:
    """Read `[split,]path,label`, as Vertex AI has it."""
    for number, cells in lines:
        start = 1 if cells[0] == "" or (len(cells) > 1 and not _is_path(cells[0])) else 0
        labels = [cell for cell in cells[start + 1 :] if cell]
        label, problem = one_label(labels)
        path = cells[start] if start < len(cells) else ""
        yield Row(number, path, label, cells[0] if start else "", problem=problem)


def _lst_rows(lines: Iterator[Line]) -> Iterator[Row]:
    """Read `index<TAB>label<TAB>path`, as SageMaker's and MXNet's tools write it; labels are numbers."""
    for number, cells in lines:
        labels = cells[1:-1]
        if len(labels) != 1:
            problem = f"it has {len(labels)} labels, and one is needed"
            yield Row(number, cells[-1], problem=problem)
        elif not _is_number(labels[0]):
            problem = f"its label {labels[0]!r} is no number, as in a .lst file"
            yield Row(number, cells[-1], problem=problem)
        else:
            yield Row(number, cells[-1], whole(labels[0]))


def whole(number: str) -> str:
    """Write a label's number without the decimals that im2rec adds: 3 for 3.000000."""
    value = float(number)
    return str(int(value)) if value.is_integer() else number


def _is_number(cell: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return value - value == 0  # neither infinite nor nan


def _is_path(cell: str) -> bool:
    return "://" in cell or cell.casefold().endswith(_PICTURES)
