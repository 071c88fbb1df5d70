"""`make faults`: the fault menus, the matrix of crash points, sequences by chance, and a soak.

python -m tests.faults                      everything
python -m tests.faults menu --times 10      each fault of the operator's menu ten times
python -m tests.faults store                the faults of S3 and of the photos; they need no cluster
python -m tests.faults answers --sample 100 a part of the matrix
python -m tests.faults sequences            320 sequences of what people, pods and machines do
python -m tests.faults soak --minutes 60    an hour of lives, with the watches cut every 30 s
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import matrix, menu, sequences, soak, store
from tests.operator.harness import bring_up

_PARTS = ("store", "menu", *matrix.PARTS, "sequences", "soak")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], help="default: all")
    parser.add_argument("--times", type=int, default=1, help="how often each fault of a menu")
    parser.add_argument(
        "--sample", type=int, help="points of each part of the matrix, evenly spread; sequences"
    )
    parser.add_argument(
        "--only", help="faults of the menu, or lives of the matrix, whose name has this in it"
    )
    parser.add_argument("--cluster", default="faults", help="name of the control plane")
    parser.add_argument("--minutes", type=float, default=5, help="of the soak")
    arguments = parser.parse_args()
    parts = arguments.parts or list(_PARTS)
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
            if rest := [part for part in parts if part in matrix.PARTS]:
                results = asyncio.run(matrix.run(bed, rest, arguments.sample, arguments.only or ""))
                well &= not any(result.problems for result in results)
            if "sequences" in parts:
                started = time.monotonic()
                count = sequences.run(bed, arguments.sample or 320)
                text = f"{count} sequences end in the declared state"
                print(f"{text} ({time.monotonic() - started:.0f} s)", flush=True)
            if "soak" in parts:
                result = asyncio.run(soak.run(bed, arguments.minutes))
                print(result, flush=True)
                well &= not result.problems and result.growth <= soak.GROWTH
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
