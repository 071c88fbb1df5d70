"""Manifests of JSON: a line per row, or one list; of any program, and of those that are known."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from retrainer_trainer.dataset.rows import (
    Columns,
    ManifestError,
    Row,
    find_columns,
    one_label,
    text,
)

_VERTEX_PATH = "imageGcsUri"
_VERTEX_SPLIT = "aiplatform.googleapis.com/ml_use"
_SAGEMAKER_PATH = "source-ref"


def is_numbered(first: object) -> bool:
    """Say whether labels are numbers without names, as SageMaker's own training takes them."""
    if not isinstance(first, dict) or _SAGEMAKER_PATH not in first:
        return False
    label, _problem = _sagemaker_label(first)
    return label.isdigit() and not any(_class_name(value) for value in first.values())


def lines_of_json(lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """Give number and value of each line that is not empty; a line that is not JSON is a ValueError."""
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"it is not JSON ({str(error).partition(':')[0]})")


def items_of_json(whole: str) -> Iterator[tuple[int, Any]]:
    """Give each item of a JSON list, with the number of the line that it begins at.

    They are decoded one by one: all of a long list at once would take ten times its size.

    Raises:
        ManifestError: it is not JSON from some line on.
    """
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    place = whole.index("[") + 1
    while True:
        place = _skip(whole, place, " \t\r\n,")
        line += whole.count("\n", counted, place)
        counted = place
        if whole[place : place + 1] == "]":
            return
        try:
            value, place = decoder.raw_decode(whole, place)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"line {line}: it is not JSON from here on ({error})") from error
        yield line, value


def _skip(whole: str, place: int, characters: str) -> int:
    while place < len(whole) and whole[place] in characters:
        place += 1
    return place


def json_rows(values: Iterable[tuple[int, Any]]) -> Iterator[Row]:
    """Read a row of each value; each may be of another form.

    Raises:
        ManifestError: the keys of the first are not known.
    """
    columns: dict[tuple[str, ...], Columns | ManifestError] = {}
    first = True
    for line, value in values:
        if isinstance(value, ValueError):
            yield Row(line, problem=str(value))
        elif not isinstance(value, dict):
            yield Row(line, problem="it is no JSON object")
        elif _VERTEX_PATH in value:
            yield _vertex_row(line, value)
        elif _SAGEMAKER_PATH in value:
            label, problem = _sagemaker_label(value)
            yield Row(line, text(value[_SAGEMAKER_PATH]), label, problem=problem)
        else:
            keys = tuple(value)
            if keys not in columns:
                columns[keys] = _columns(value, keys)
            which = columns[keys]
            if not isinstance(which, ManifestError):
                yield which.row(line, list(value.values()))
            elif first:
                raise ManifestError(f"line {line}: {which}") from which
            else:
                yield Row(line, problem=str(which).partition(";")[0])
        first = False


def _columns(value: dict[str, Any], keys: tuple[str, ...]) -> Columns | ManifestError:
    if isinstance(value.get("annotations"), list):
        return ManifestError(
            "it is Label Studio's whole JSON; export the project as JSON-MIN or CSV instead"
        )
    try:
        return find_columns(keys)
    except ManifestError as error:
        return error


def _vertex_row(line: int, value: dict[str, Any]) -> Row:
    """Read a row of Vertex AI's import file for the classification of images."""
    several = value.get("classificationAnnotations")
    one = value.get("classificationAnnotation")
    annotations = several if isinstance(several, list) else [one] if one else []
    names = [a.get("displayName") if isinstance(a, dict) else a for a in annotations]
    label, problem = one_label(names)
    resource = value.get("dataItemResourceLabels")
    split = text(resource.get(_VERTEX_SPLIT)) if isinstance(resource, dict) else ""
    return Row(line, text(value[_VERTEX_PATH]), label, split, problem=problem)


def _sagemaker_label(value: dict[str, Any]) -> tuple[str, str]:
    """Read the label of an augmented manifest: the name in the metadata, else the only other value."""
    names = [name for name in map(_class_name, value.values()) if name]
    if names:
        return one_label(names)
    others = [
        label
        for key, label in value.items()
        if key != _SAGEMAKER_PATH and not key.endswith("-metadata")
    ]
    return one_label(value.get("class", others))


def _class_name(metadata: object) -> str:
    return text(metadata.get("class-name")) if isinstance(metadata, dict) else ""
