"""Where the time of a run goes: the seconds of its stages, and how much each had to do."""

import os
import time
from collections import defaultdict
from pathlib import Path

REST = "rest"
"""What takes the same time whatever the job: starting, opening, exporting, the page."""


class Clock:
    """Adds up a run's seconds by stage.

    Args:
        before: seconds that the run has taken already.

    Attributes:
        seconds: of each stage so far.
        amounts: what each stage had to do, in a unit of its own: images, or multiply-adds.
    """

    def __init__(self, before: float = 0.0) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.amounts: defaultdict[str, float] = defaultdict(float)
        self._last = time.monotonic()
        self.seconds[REST] = before

    def lap(self, stage: str, amount: float = 0) -> None:
        """End a stage that began where the last one ended; without an amount it counts as the rest."""
        now = time.monotonic()
        self.seconds[stage if amount else REST] += now - self._last
        if amount:
            self.amounts[stage] += amount
        self._last = now


def process_seconds() -> float:
    """Seconds since this process began; 0 where the system does not tell (Linux does)."""
    try:
        # Field 22 of proc(5)'s stat: ticks from the machine's start to the process's. The name in
        # field 2 may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0
