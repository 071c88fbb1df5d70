"""The API server's clock, which the times in all objects come from.

Deadlines, ages and times to live compare those times with now. By this machine's own clock, ten minutes
ahead, each job with a shorter deadline failed at once.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime


class ServerClock:
    """Unix time by the API server's clock, kept right by the Date header of its answers.

    A Date has whole seconds and was written at some moment between request and answer. So each answer
    gives bounds for the difference of the two clocks, and the difference moves only when it is outside.
    """

    def __init__(
        self,
        *,
        local: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`local` measures how time passes; `wall` is believed until the first answer."""
        self._local = local
        self._offset = wall() - local()

    def __call__(self) -> float:
        """Unix time now."""
        return self._local() + self._offset

    def moment(self) -> float:
        """The moment of a request, for `correct`."""
        return self._local()

    def correct(self, date: str | None, asked: float) -> None:
        """Take in the Date header of the answer to a request that was sent at the moment `asked`."""
        try:
            server = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = server - self._local(), server + 1 - asked
        self._offset = min(max(self._offset, least), most)
