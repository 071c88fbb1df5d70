"""What a fault of the menu has to play with, and how it is written down."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.operators import Behind, operator_behind_proxy
from tests.operator.harness import Bed, Namespace, Operator, eventually

Body = dict[str, Any]
PATIENCE = 240.0
"""Seconds after which a fault of the menu has not been recovered from at all."""


@dataclass
class Scene:
    """What a fault has to play with."""

    bed: Bed
    behind: Behind
    team: Namespace

    @property
    def operator(self) -> Operator:
        return self.behind.operator

    def seconds_to_a_job(self, name: str = "next", since: float | None = None) -> float:
        """Apply a RetrainJob, and wait for its Job; seconds since then, or since this moment."""
        started = time.monotonic() if since is None else since
        self.team.apply(name, annotations={"delay": "never"})
        what = f"the Job of {name}"
        eventually(lambda: self.team.child(f"{name}-train"), within=PATIENCE, what=what)
        return time.monotonic() - started

    def start_a_job(self, name: str = "job", **spec: Any) -> None:
        """A RetrainJob whose pod runs until it is ended."""
        self.team.apply(name, annotations={"delay": "never"}, **spec)
        self.team.until(name, reason="Running")

    def seconds_until(self, holds: Callable[[], object], what: str) -> float:
        """Seconds from now until this holds."""
        started = time.monotonic()
        eventually(lambda: bool(holds()), within=PATIENCE, what=what)
        return time.monotonic() - started

    def finish(self, name: str = "job") -> None:
        """End the pod of a job that runs; then it must succeed."""
        self.team.end_pods(name)
        self.team.until(name, within=PATIENCE, phase="Succeeded")


@dataclass(frozen=True)
class Entry:
    """A fault of the menu: what it is called, what is done, and the most seconds it may take.

    With a `clock`, the operator's own is off by so many seconds. Those not `in_ci` take half a minute or
    more, or have a test of their own in tests/cluster.
    """

    name: str
    play: Callable[[Scene], float]
    limit: float
    clock: float = 0.0
    in_ci: bool = True


@contextmanager
def actors(bed: Bed, clock: float = 0.0) -> Iterator[Behind]:
    """An operator behind a proxy, whose clock is off by so many seconds, until the block ends."""
    path = os.environ.get("PYTHONPATH", "")
    if clock:
        path = str(_wrong_clock(bed.folder, clock))
    with operator_behind_proxy(bed, f"menu-{secrets.token_hex(3)}", PYTHONPATH=path) as behind:
        yield behind


@contextmanager
def set_scene(bed: Bed, behind: Behind) -> Iterator[Scene]:
    """An empty namespace, and this operator as the leader, until the block ends."""
    behind.proxy.clear()
    eventually(behind.operator.leads, within=PATIENCE, what="the operator leads")
    team = bed.team("menu")
    try:
        yield Scene(bed, behind, team)
    finally:
        bed.cluster.kubectl("delete", "namespace", team.name, "--wait=false")


def _wrong_clock(folder: Path, seconds: float) -> Path:
    """A folder that, on Python's path, sets a process's clock off."""
    place = folder / f"clock{seconds:+.0f}"
    place.mkdir(exist_ok=True)
    text = f"import time\n_true = time.time\ntime.time = lambda: _true() + {seconds}\n"
    (place / "sitecustomize.py").write_text(text)
    return place
