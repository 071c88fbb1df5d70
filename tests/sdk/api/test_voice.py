"""One voice for every error: a sentence that begins with a capital, or a name, and ends with a stop."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retrainer import errors
from retrainer.api.reasons import REASONS, Reason
from retrainer.errors import RetrainerError

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDERS = ("sdk/retrainer", "operator/retrainer_operator", "trainer/retrainer_trainer")
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, RetrainerError)
} - {"InvalidJob"}  # it takes one sentence per field, each after the field's path
NAME = re.compile(r"^(spec|storage|metadata)\.|^--|^[A-Z]|^\{|^retrainer ")
"""Starts: a capital, a name that is filled in, a field, an option, a command."""


def written(node: ast.expr) -> str | None:
    """The text as it is written, with {} for what is filled in; None if it is composed elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = written(node.left), written(node.right)
        return None if left is None else left + (right if right is not None else "{}")
    return None


def sentences() -> Iterator[tuple[str, str]]:
    """Where each error is made, and its sentence."""
    for folder in FOLDERS:
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                if called in ERRORS and (text := written(node.args[0])) is not None:
                    yield f"{file.relative_to(REPOSITORY)}:{node.lineno}", text


SENTENCES = dict(sentences())


def test_there_are_sentences_to_look_at() -> None:
    assert len(SENTENCES) > 100


@pytest.mark.parametrize("where", SENTENCES)
def test_an_error_is_a_sentence(where: str) -> None:
    text = SENTENCES[where]
    assert NAME.match(text), text
    assert text.rstrip().endswith((".", "?", "{}")), text


@pytest.mark.parametrize("reason", REASONS, ids=lambda r: r.name)
def test_a_reason_is_a_sentence(reason: Reason) -> None:
    sentence = re.sub(r"\{(\w+)[^}]*\}", r"{\1}", reason.sentence)  # numbers as texts
    values = dict.fromkeys(re.findall(r"\{(\w+)\}", sentence), "Something")
    text = replace(reason, sentence=sentence)(**values)
    assert NAME.match(text), text
    assert text.endswith("."), text
    assert replace(reason, sentence="{detail}")(detail="Known causes.") == "Known causes."
