"""Which worker of `make test` runs what: no cluster is used by two of them at once."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.support import workers

_STARTS = re.compile(r'\bensure\("(?:control-plane|node)", name="([a-z-]+)"')
# The fixtures of tests/cluster/conftest.py, as tests ask for them.
_USES = {
    workers.NODE: r"\b(?:here|team): Installation\b|\bshell: Terminal\b|\bnode: DevCluster\b",
    "operator": r"\bbed: Bed\b",
    "control plane": r"\bcontrol_plane: DevCluster\b",
}


def _files() -> list[Path]:
    return sorted((REPOSITORY / "tests").rglob("test_*.py"))


def _unit(file: Path) -> str:
    return workers.unit(f"{file.relative_to(REPOSITORY).as_posix()}::test_something[of::it]")


def test_clusters_of_one_name_are_started_by_one_unit() -> None:
    units: dict[str, set[str]] = defaultdict(set)
    for file in _files():
        for name in _STARTS.findall(file.read_text()):
            units[name].add(_unit(file))
    assert len(units) >= 4
    assert {name: places for name, places in units.items() if len(places) > 1} == {}


@pytest.mark.parametrize("name", _USES)
def test_the_files_that_use_a_shared_cluster_are_in_its_unit(name: str) -> None:
    texts = {file: file.read_text() for file in _files()}
    users = {file for file, text in texts.items() if re.search(_USES[name], text)}
    users -= {file for file, text in texts.items() if "def bed(" in text}  # it has its own
    assert len(users) >= 2
    assert {_unit(file) for file in users} == {name}


def test_a_new_file_of_the_cluster_is_taken_to_use_the_node() -> None:
    assert workers.unit("tests/cluster/test_new.py::test_it") == workers.NODE


def test_other_files_are_handed_out_one_by_one() -> None:
    assert workers.unit("tests/sdk/cluster/test_job.py::TestIt::test_it") == (
        "tests/sdk/cluster/test_job.py"
    )
