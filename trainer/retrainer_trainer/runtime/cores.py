"""How many cores this process may use."""

import math
import os
from pathlib import Path

ENV_THREADS = "RETRAINER_THREADS"


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """RETRAINER_THREADS if set, else the cores of the affinity mask, at most the cgroup's quota.

    A pod with a CPU limit of 2 on a machine of 64 cores sees all 64, but is stopped for the rest of
    each period once it has used its share: more threads than the limit only make it slower.
    """
    given = os.environ.get(ENV_THREADS, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, math.ceil(_quota(cgroup) or count)))


def _quota(cgroup: Path) -> float | None:
    """Cores that the cgroup (version 2 or 1) allows; None if it sets no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)
