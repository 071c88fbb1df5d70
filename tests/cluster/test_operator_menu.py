"""The menu's quick faults once, a batch of sequences, a short soak; the rest is `make faults`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.faults import sequences, soak
from tests.faults.menu import MENU
from tests.faults.operators import Behind
from tests.faults.scene import Entry, actors, set_scene
from tests.operator.harness import Bed, bring_up

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = bring_up(tmp_path_factory.mktemp("operator"), "faults")
    with bed.cluster:
        yield bed


@pytest.fixture(scope="class")
def behind(bed: Bed) -> Iterator[Behind]:
    with actors(bed) as behind:
        yield behind


class TestOneOperator:
    """One operator for all of these; the others start their own, which could not lead beside it."""

    @pytest.mark.parametrize(
        "entry", [e for e in MENU if e.in_ci and not e.clock], ids=lambda entry: entry.name
    )
    def test_it_does_useful_work_again(self, bed: Bed, behind: Behind, entry: Entry) -> None:
        """How soon depends on the machine, so only `make faults` holds it to a limit."""
        with set_scene(bed, behind) as scene:
            entry.play(scene)


@pytest.mark.parametrize("entry", [e for e in MENU if e.clock], ids=lambda entry: entry.name)
def test_a_wrong_clock_fails_no_deadline(bed: Bed, entry: Entry) -> None:
    with actors(bed, entry.clock) as behind, set_scene(bed, behind) as scene:
        entry.play(scene)


def test_whatever_happens_in_whatever_order_the_end_is_the_declared_state(bed: Bed) -> None:
    assert sequences.run(bed, sequences.BATCH) == sequences.BATCH


def test_lives_with_watches_cut_leave_no_task_and_miss_nothing(bed: Bed) -> None:
    """Whether memory grows is seen in an hour, not in half a minute."""
    result = asyncio.run(soak.run(bed, 0.6))
    assert result.lives
    assert result.cuts
    assert not result.problems, str(result)
