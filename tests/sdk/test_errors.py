"""The exception tree: kinds, exit codes, and what an InvalidJob says."""

import re

import pytest

from retrainer import errors
from retrainer.api import reasons
from retrainer.errors import (
    BucketNotFound,
    InvalidJob,
    JobFailed,
    NotFound,
    RetrainerError,
    UserError,
)

KINDS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, RetrainerError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_has_a_reason_of_one_word_and_a_docstring(kind: type[RetrainerError]) -> None:
    assert kind.reason.isalnum()
    assert kind.reason[0].isupper()
    assert kind.__doc__


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_a_users_mistake_exits_with_64_and_nothing_else_does(kind: type[RetrainerError]) -> None:
    assert (kind.exit_code == 64) == issubclass(kind, UserError)


def test_the_tree_at_the_top_of_the_module_is_that_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.fullmatch(r" {4}([│ ]*(?:[├└]── )?)(\w+)(  .*)?", line):
            depth, name = len(match[1]) // 4, match[2]
            parents[depth:] = [name]
            drawn[name] = parents[depth - 1] if depth else "Exception"
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}
    assert drawn == bases


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


def test_a_reason_makes_the_error_that_says_its_sentence() -> None:
    error = reasons.BUCKET_NOT_FOUND.error(
        bucket="photos", field="spec.images", endpoint="http://s3"
    )
    assert type(error) is BucketNotFound
    assert str(error) == "Bucket photos (spec.images) does not exist at http://s3."
    assert error.reason == "BucketNotFound"


def test_whoever_waits_for_a_file_does_not_wait_for_a_bucket_that_is_not_there() -> None:
    assert not issubclass(BucketNotFound, NotFound)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_an_error_with_a_reason_of_its_own_is_the_one_that_this_reason_makes(
    kind: type[RetrainerError],
) -> None:
    classes = [
        r.error_class
        for r in reasons.REASONS
        if r.name == kind.reason and r.error_class is not RetrainerError
    ]
    assert classes in ([], [kind], [kind.__base__])


def test_a_reason_that_a_process_ended_with_gives_back_its_error() -> None:
    assert reasons.error_class("ImagesNotFound", JobFailed) is NotFound
    assert reasons.error_class("BucketNotFound", JobFailed) is BucketNotFound
    assert reasons.error_class("TooFewLabels", JobFailed) is JobFailed
    assert reasons.error_class("a word of a later version", UserError) is UserError
