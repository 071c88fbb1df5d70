"""What the machine of a measurement is, so that its figures can be compared with those of another.

Seconds differ twofold from one machine to the next; a ratio within one run, or a share of the machine's
own rate of multiplying matrices, does not.
"""

import platform
import time
from functools import cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "sve")
_SIDE = 1024
_SECONDS = 0.5


def processor() -> str:
    """Name of the processor, and those of its instruction sets that decide about speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    fields = {name.strip(): value for name, value in fields.items()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", platform.machine())
    return f"{name} ({' '.join(flag for flag in _FLAGS if flag in flags) or 'no vectors named'})"


@cache
def sgemm_gflops() -> float:
    """Rate at which one thread multiplies float32 matrices of 1,024 x 1,024, 10^9 operations a second.

    The best of many: other programs on the machine only make it slower.
    """
    matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    out = np.empty_like(matrix)
    best = 0.0
    with threadpool_limits(1, user_api="blas"):
        ends = time.perf_counter() + _SECONDS
        while time.perf_counter() < ends:
            begun = time.perf_counter()
            np.matmul(matrix, matrix, out=out)
            best = max(best, 2 * _SIDE**3 / (time.perf_counter() - begun) / 1e9)
    return best


def described() -> str:
    """One line to print above a measurement."""
    return f"{processor()}, sgemm {sgemm_gflops():.0f} GFLOP/s on one thread"
