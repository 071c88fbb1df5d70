"""How fast machines were with one backbone, kept beside its bottlenecks for `retrainer plan`."""

import hashlib
import platform
from pathlib import Path

from pydantic import ValidationError

from retrainer.api.fields import Wire
from retrainer.api.layout import SPEEDS
from retrainer.errors import NotFound
from retrainer_trainer.runtime.clock import REST, Clock
from retrainer_trainer.runtime.cores import cores
from retrainer_trainer.store.store import Store, UnreadableError

LEAST = 20
"""Images under which a stage says too little of its speed."""


class Stage(Wire):
    """What one stage of a run took: `seconds` for `amount` of images or multiply-adds."""

    seconds: float
    amount: float


class Speed(Wire):
    """How fast one machine was in the last run that had something to do in each stage.

    Attributes:
        processor: name of its processor.
        cores: that the run could use.
        stages: by name.
        rest: seconds of all that does not depend on the number of images.
        memory: bytes that the run took at most.
        matrix: bytes of its bottlenecks, which are part of that.
    """

    processor: str
    cores: int
    stages: dict[str, Stage]
    rest: float
    memory: int
    matrix: int

    def predict(self, amounts: dict[str, float]) -> float | None:
        """Seconds that a run with these amounts takes; None if one of its stages is unknown."""
        seconds = self.rest
        for stage, amount in amounts.items():
            if amount:
                if stage not in self.stages:
                    return None
                seconds += self.stages[stage].seconds * amount / self.stages[stage].amount
        return seconds

    def bytes_for(self, matrix: int) -> int:
        """Bytes of memory that a run with a matrix of so many bytes takes: findings need a copy."""
        return max(0, self.memory - 2 * self.matrix) + 2 * matrix


def remember(store: Store, fingerprint: str, clock: Clock, *, memory: int, matrix: int) -> None:
    """Keep what this run took, for this machine; what it had nothing to do of stays as it was."""
    path = _path(fingerprint, processor(), cores())
    earlier = _read(store, path)
    stages = dict(earlier.stages) if earlier else {}
    for stage, amount in clock.amounts.items():
        if amount >= LEAST:
            stages[stage] = Stage(seconds=clock.seconds[stage], amount=amount)
    speed = Speed(
        processor=processor(),
        cores=cores(),
        stages=stages,
        rest=clock.seconds[REST],
        memory=memory,
        matrix=matrix,
    )
    store.put(path, speed.model_dump_json(by_alias=True).encode())


def recall(store: Store, fingerprint: str) -> tuple[Speed | None, bool]:
    """Read how fast this machine was, else any other; returns it and whether it is this one."""
    if here := _read(store, _path(fingerprint, processor(), cores())):
        return here, True
    for entry in sorted(store.list(f"{fingerprint}/{SPEEDS}")):
        if not entry.path.endswith("/") and (other := _read(store, entry.path)):
            return other, False
    return None, False


def processor() -> str:
    """Name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _path(fingerprint: str, name: str, count: int) -> str:
    digest = hashlib.sha256(f"{name}\n{count}".encode()).hexdigest()[:16]
    return f"{fingerprint}/{SPEEDS}/{digest}.json"


def _read(store: Store, path: str) -> Speed | None:
    try:
        return Speed.model_validate_json(store.get(path))
    except (NotFound, UnreadableError, ValidationError):
        return None
