"""Checks a dict (parsed YAML or JSON) and makes a RetrainJob; errors name the wrong field."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from retrainer.api.fields import inner_model
from retrainer.api.v1alpha1 import RetrainJob
from retrainer.errors import InvalidJob

SHOWN_MAX = 60


def parse_job(document: object, *, where: str = "") -> RetrainJob:
    """Check a document and make a RetrainJob.

    Args:
        document: what the YAML or JSON file holds.
        where: named at the front of the error, such as the file's name.

    Raises:
        InvalidJob: one sentence per wrong field, each with its YAML path.
    """
    if not isinstance(document, Mapping):
        raise InvalidJob(
            [f"must be a mapping with apiVersion, kind, metadata and spec, got {_shown(document)}"],
            where=where or "job",
        )
    try:
        return RetrainJob.model_validate(document)
    except ValidationError as error:
        raise InvalidJob(problems(error, RetrainJob), where=where) from error


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Write a sentence per error of pydantic: `spec.training.steps: must be at least 1, got 0`."""
    sentences = (f"{_path(e['loc'])}: {_sentence(e, model)}" for e in error.errors())
    return list(dict.fromkeys(sentences))


def _path(loc: Iterable[str | int]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path or "job"


# pydantic's error types and what we say instead; {got} and pydantic's own context fill it in.
_SENTENCES = {
    "missing": "is required",
    "greater_than_equal": "must be at least {ge:.10g}, got {got}",
    "less_than_equal": "must be at most {le:.10g}, got {got}",
    "string_pattern_mismatch": "must match {pattern}, got {got}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "too_few": "must have at least {min_length} entries, got {actual_length}",
    "too_long": "must have at most {max_length} entries, got {actual_length}",
    "enum": "must be {expected}, got {got}",
    "int_type": "must be a whole number, got {got}",
    "int_parsing": "must be a whole number, got {got}",
    "int_from_float": "must be a whole number, got {got}",
    "float_type": "must be a number, got {got}",
    "float_parsing": "must be a number, got {got}",
    "finite_number": "must be a number, got {got}",
    "bool_type": "must be true or false, got {got}",
    "bool_parsing": "must be true or false, got {got}",
    "string_type": "must be text, got {got}",
    "list_type": "must be a list, got {got}",
    "model_type": "must be a mapping, got {got}",
    "model_attributes_type": "must be a mapping, got {got}",
    "dict_type": "must be a mapping, got {got}",
    "value_error": "{error}",
}


def _sentence(error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(error["loc"], model)
    kind = error["type"]
    if kind == "too_short" and error["ctx"]["min_length"] > 1:
        kind = "too_few"
    template = _SENTENCES.get(kind, "must be something else, got {got}")
    return template.format(got=_shown(error["input"]), **error.get("ctx", {}))


def _unknown(loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """Say that there is no such field, with the most similar one of the same object."""
    fields = _fields(model, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.6)
    return "unknown field" + (
        f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(sorted(fields))}"
    )


def _fields(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    for part in loc:
        if isinstance(part, str):
            field = next(
                (f for n, f in model.model_fields.items() if part in (n, f.alias)),
                None,
            )
            inner = inner_model(field.annotation) if field else None
            if inner is None:
                return []
            model = inner
    return [f.alias or name for name, f in model.model_fields.items()]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."
