"""Which worker of `make test` runs what: no cluster is used by two of them at once."""

import re
from collections import defaultdict
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.support import workers

_STARTS = re.compile(
    r'\bensure\("(?:control-plane|node)", name="([a-z-]+)"|bring_up\([^"\n]*("\w+")?\)'
)


def _files() -> list[Path]:
    return sorted((REPOSITORY / "tests").rglob("test_*.py"))


def _unit(file: Path) -> str:
    return workers.unit(f"{file.relative_to(REPOSITORY).as_posix()}::test_something[of::it]")


def test_clusters_of_one_name_are_started_by_one_unit() -> None:
    units: dict[str, set[str]] = defaultdict(set)
    for file in _files():
        for name, other in _STARTS.findall(file.read_text()):
            units[name or other.strip('"') or "operator"].add(_unit(file))
    assert len(units) >= 6
    assert {name: places for name, places in units.items() if len(places) > 1} == {}


def test_a_file_that_uses_the_node_is_in_its_unit() -> None:
    uses = re.compile(r"\b(?:here|team): Installation\b|\bshell: Terminal\b|\bnode: DevCluster\b")
    files = [file for file in _files() if uses.search(file.read_text())]
    assert len(files) >= 6
    assert {_unit(file) for file in files} == {workers.NODE}


def test_a_new_file_of_the_cluster_is_taken_to_use_the_node() -> None:
    assert workers.unit("tests/cluster/test_new.py::test_it") == workers.NODE


def test_other_files_are_handed_out_one_by_one() -> None:
    assert workers.unit("tests/sdk/cluster/test_job.py::TestIt::test_it") == (
        "tests/sdk/cluster/test_job.py"
    )
