"""A sample of the fault matrix; all of it is `make faults`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.faults.lives import LIVES
from tests.faults.matrix import PARTS, Matrix
from tests.operator.harness import Bed

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]
POINTS = {"answers": 40, "events": 24, "lists": len(LIVES), "kills": 12}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(bed: Bed) -> AsyncIterator[Matrix]:
    matrix = Matrix(bed)
    await matrix.live_undisturbed()
    yield matrix
    await matrix.close()


@pytest.mark.parametrize("part", PARTS)
async def test_disturbed_lives_end_as_the_undisturbed_ones(matrix: Matrix, part: str) -> None:
    matrix.sample = POINTS[part]
    result = await getattr(matrix, part)()
    assert result.points
    assert not result.problems, str(result)
