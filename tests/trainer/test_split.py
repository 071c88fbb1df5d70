import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from retrainer_trainer.dataset import split

PATHS = st.lists(st.text(min_size=1, max_size=40), max_size=30)


def retrain_py(path: str, testing: int, validation: int) -> int:
    """The rule of TensorFlow's retrain.py, in its own words: the whole hash as one number."""
    name = re.sub(r"_nohash_.*$", "", path)
    number = int(hashlib.sha1(name.encode(errors="surrogateescape")).hexdigest(), 16)
    percentage = (number % (2**27 - 1 + 1)) * (100.0 / (2**27 - 1))
    if percentage < validation:
        return split.VALIDATION
    if percentage < testing + validation:
        return split.TESTING
    return split.TRAINING


@given(PATHS, st.integers(0, 50), st.integers(0, 49))
def test_every_path_gets_the_set_that_retrain_py_gives_it(
    paths: list[str], testing: int, validation: int
) -> None:
    got = split.assign(paths, testing, validation)
    assert got.tolist() == [retrain_py(p, testing, validation) for p in paths]


@given(PATHS, PATHS)
def test_an_image_stays_in_its_set_when_others_are_added(few: list[str], more: list[str]) -> None:
    assert (
        split.assign(few + more, 10, 10)[: len(few)].tolist() == split.assign(few, 10, 10).tolist()
    )


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="\n")))
def test_what_follows_nohash_does_not_matter(stem: str, rest: str) -> None:
    assert split.hashed(f"{stem}_nohash_{rest}") == split.hashed(f"{stem}_nohash_")


def test_the_shares_are_those_asked_for() -> None:
    sets = split.assign((f"label/{i}.jpg" for i in range(20_000)), 20, 10)
    shares = [float((sets == which).mean()) for which in (0, 1, 2)]
    assert [round(s, 1) for s in shares] == [0.7, 0.1, 0.2]


def test_zero_percent_leaves_a_set_empty() -> None:
    sets = split.assign((f"label/{i}.jpg" for i in range(2000)), 0, 0)
    assert not sets.any()


def test_a_name_that_is_no_unicode_has_a_set_too() -> None:
    assert split.assign([b"a/\xff.jpg".decode(errors="surrogateescape")], 10, 10).shape == (1,)
