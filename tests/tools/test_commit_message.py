"""The form of a commit's message."""

import pytest
from tools.commit_message import mistake


@pytest.mark.parametrize(
    "message",
    [
        "Say how far a long build is\n\nIt was silent for 19 minutes.\n",
        "Say how far a long build is\n# Please enter the commit message for your changes.\n",
        "Merge branch 'main' into a-branch-with-a-name-that-is-longer-than-one-line-of-seventy-two\n",
    ],
)
def test_a_subject_and_a_reason_are_taken(message: str) -> None:
    assert mistake(message) == ""


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("# only comments\n", "The message has no subject"),
        ("Say " + "very " * 14 + "much\n", "The subject has 78 characters, and 72 fit"),
        ("Rename this; mend that\n", "The subject names several changes"),
        ("say how far it is\n", "The subject begins with a capital"),
        ("Say how far it is.\n", "The subject begins with a capital"),
        ("Say how far it is\nIt was silent.\n", "The line after the subject has to be empty"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(message: str, sentence: str) -> None:
    assert mistake(message).startswith(sentence)
