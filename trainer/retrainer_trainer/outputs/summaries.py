"""TensorBoard summaries: the learning curve and the graph, as event files in the run's folder.

Written with TensorBoard's own messages and without TensorFlow, so that the curve can be watched
before anybody has imported it. A store cannot append to a file: each flush is a file of its own, and
TensorBoard reads them in the order of their names.
"""

import io
import time
from collections.abc import Callable

from retrainer.api import CurvePoint
from retrainer.api.layout import SUMMARIES

TRAIN, VALIDATION = "train", "validation"

FLUSH_SECONDS = 10.0
"""Seconds for which evaluations are gathered: a file for each would be many small ones."""


class Summaries:
    """Event files of one run, in `summaries/train/` and `summaries/validation/`.

    Args:
        put: writes a file of the run's folder: path, content.
        clock: Unix time, seconds.
    """

    def __init__(
        self, put: Callable[[str, bytes], object], clock: Callable[[], float] = time.time
    ) -> None:
        self._put = put
        self._clock = clock
        self._begun = clock()
        self._flushed = self._begun
        self._waiting: dict[str, list[bytes]] = {TRAIN: [], VALIDATION: []}
        self._written = 0

    def point(self, point: CurvePoint) -> None:
        """Add one evaluation; write the gathered ones if the last file is old enough."""
        self._add(TRAIN, point.step, point.training_accuracy, point.cross_entropy)
        self._add(VALIDATION, point.step, point.validation_accuracy, point.validation_cross_entropy)
        if self._clock() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def graph(self, definition: bytes) -> None:
        """Add the network's graph, a serialised GraphDef."""
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=self._clock(), graph_def=definition)
        self._waiting[TRAIN].append(event.SerializeToString())

    def flush(self) -> None:
        """Write the evaluations that were gathered."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._flushed = self._clock()
        for kind, events in self._waiting.items():
            if not events:
                continue
            first = Event(wall_time=self._flushed, file_version="brain.Event:2")
            file = io.BytesIO()
            writer = RecordWriter(file)
            for event in (first.SerializeToString(), *events):
                writer.write(event)
            name = f"events.out.tfevents.{int(self._begun):010d}.retrainer.{self._written:06d}"
            self._put(f"{SUMMARIES}/{kind}/{name}", file.getvalue())
            events.clear()
        self._written += 1

    def _add(self, kind: str, step: int, accuracy: float | None, entropy: float | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag, simple_value=value)
            for tag, value in (("accuracy", accuracy), ("cross_entropy", entropy))
            if value is not None
        ]
        if values:
            event = Event(wall_time=self._clock(), step=step, summary=Summary(value=values))
            self._waiting[kind].append(event.SerializeToString())
