"""Processes that outlive this tool: recorded by pid and start time, ended by nothing else.

A pid alone may belong to somebody else by the time we end it; a pid with the time at which the
process started (clock ticks since boot, /proc/<pid>/stat) does not.
"""

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Component:
    """What to start, and the URL that answers 200 when it is well."""

    name: str
    command: list[str]
    health: str = ""


@dataclass(frozen=True)
class Record:
    """What was started: enough to tell it from every other process, and to show its state."""

    name: str
    pid: int
    started: int
    since: float
    health: str
    command: list[str]


def is_alive(record: Record) -> bool:
    return _started(record.pid) == record.started


def start(component: Component, records: Path, logs: Path) -> Record:
    """Start it with its log appended to `logs`; one that runs already is left alone."""
    earlier = read(records, component.name)
    if earlier is not None and is_alive(earlier):
        return earlier
    records.mkdir(parents=True, exist_ok=True)
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{component.name}.log").open("ab") as log:
        # Own session: Ctrl-C in the terminal that brought the cluster up must not end it.
        process = subprocess.Popen(
            component.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    record = Record(
        component.name,
        process.pid,
        _started(process.pid),
        time.time(),
        component.health,
        component.command,
    )
    (records / f"{component.name}.json").write_text(json.dumps(asdict(record), indent=1))
    return record


def read(records: Path, name: str) -> Record | None:
    try:
        return Record(**json.loads((records / f"{name}.json").read_text()))
    except FileNotFoundError:
        return None


def read_all(records: Path) -> list[Record]:
    """In the order in which they were started."""
    names = [file.stem for file in records.glob("*.json")]
    records_read = [
        record for record in (read(records, name) for name in names) if record is not None
    ]
    return sorted(records_read, key=lambda record: record.since)


def end(pid: int, started: int, patience: float) -> None:
    """SIGTERM, then SIGKILL once patience is over; returns when the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle stays with the process it was opened for: checked once, right ever after.
        if _started(pid) != started:
            return
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        for sign, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 10.0)):
            try:
                signal.pidfd_send_signal(handle, sign)
            except ProcessLookupError:
                return
            if poll.poll(seconds * 1000):
                return
    finally:
        os.close(handle)


def stop(record: Record, records: Path, patience: float) -> None:
    end(record.pid, record.started, patience)
    (records / f"{record.name}.json").unlink(missing_ok=True)


def in_namespace(namespace: str) -> list[int]:
    """Pids of the processes in a PID namespace (as /proc/<pid>/ns/pid names it)."""
    pids: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str((folder / "ns" / "pid").readlink()) == namespace:
                pids.append(int(folder.name))
        except OSError:  # ended while we looked
            continue
    return pids


def _started(pid: int) -> int:
    """Start time in clock ticks since boot; -1 when it is gone or waits to be reaped."""
    try:
        # The command's name, in brackets, may hold spaces: count fields from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])
