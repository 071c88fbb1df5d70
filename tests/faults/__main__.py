"""`make faults`: the fault menus, and the matrix of crash points on a real API server.

python -m tests.faults                      everything
python -m tests.faults menu --times 10      each fault of the menu ten times
python -m tests.faults store                the faults of S3 and of the photos; they need no cluster
python -m tests.faults matrix --sample 100  a part of the matrix
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.faults import matrix, menu, store
from tests.operator.harness import bring_up


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "parts", nargs="*", choices=["store", "menu", *matrix.PARTS, []], help="default: all"
    )
    parser.add_argument("--times", type=int, default=1, help="how often each fault of the menu")
    parser.add_argument(
        "--sample", type=int, help="points of each part of the matrix, evenly spread"
    )
    parser.add_argument(
        "--only", help="faults of the menu, or lives of the matrix, whose name has this in it"
    )
    parser.add_argument("--cluster", default="faults", help="name of the control plane")
    arguments = parser.parse_args()
    parts = arguments.parts or ["store", "menu", *matrix.PARTS]
    well = True
    with tempfile.TemporaryDirectory() as folder:
        if "store" in parts:
            well &= store.run(Path(folder) / "store", arguments.times, arguments.only or "")
            parts = [part for part in parts if part != "store"]
        if not parts:
            return 0 if well else 1
        bed = bring_up(Path(folder), arguments.cluster)
        with bed.cluster:
            if "menu" in parts:
                well &= menu.run(bed, arguments.times, arguments.only or "")
            if rest := [part for part in parts if part != "menu"]:
                results = asyncio.run(matrix.run(bed, rest, arguments.sample, arguments.only or ""))
                well &= not any(result.problems for result in results)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
