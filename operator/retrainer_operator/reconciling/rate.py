"""How often progress is written, of all jobs together."""

import math

OVERALL_RATE = 20.0
"""Such writes per second, of all jobs together: a quarter of what the API server takes on 2 cores."""


class OverallLimit:
    """A token bucket over all jobs' progress writes."""

    def __init__(self, rate: float = OVERALL_RATE) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = -math.inf

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if self._at > -math.inf:
            passed = max(0.0, now - self._at)  # none, if the clock was set back
            self._tokens = min(self._rate, self._tokens + passed * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
