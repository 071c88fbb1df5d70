"""The exception tree: kinds, exit codes, and what an InvalidJob says."""

import pytest

from retrainer import errors
from retrainer.errors import InvalidJob, RetrainerError, UserError

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, RetrainerError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_has_a_reason_of_one_word_and_a_docstring(kind: type[RetrainerError]) -> None:
    assert kind.reason.isalnum()
    assert kind.reason[0].isupper()
    assert kind.__doc__


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_a_users_mistake_exits_with_64_and_nothing_else_does(kind: type[RetrainerError]) -> None:
    assert (kind.exit_code == 64) == issubclass(kind, UserError)


def test_a_reason_can_be_given() -> None:
    assert UserError("x", reason="TooFewLabels").reason == "TooFewLabels"
    assert UserError("x").reason == "InvalidInput"


def test_one_problem_is_one_line() -> None:
    assert str(InvalidJob(["spec.images: is required"])) == "spec.images: is required"
    assert str(InvalidJob(["a: b"], where="job.yaml")) == "job.yaml: a: b"


def test_several_problems_are_a_list() -> None:
    text = str(InvalidJob(["a: is required", "b: is required"], where="job.yaml"))
    assert text == "job.yaml: 2 problems\n  a: is required\n  b: is required"


def test_a_timeout_is_a_timeout_error_for_python_too() -> None:
    assert issubclass(errors.WaitTimeout, TimeoutError)
