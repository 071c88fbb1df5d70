"""Event files: TensorBoard's own reader finds in them what was put there."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from retrainer.api import CurvePoint
from retrainer_trainer.outputs.summaries import FLUSH_SECONDS, Summaries


class Clock:
    """Unix time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def put_into(folder: Path):  # type: ignore[no-untyped-def]
    def put(path: str, body: bytes) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        assert not target.exists(), "an event file is never written twice"
        target.write_bytes(body)

    return put


def point(step: int) -> CurvePoint:
    return CurvePoint(
        step=step,
        training_accuracy=step / 100,
        validation_accuracy=step / 200,
        cross_entropy=1.5,
        validation_cross_entropy=2.5,
    )


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_tensorboard_reads_both_curves_under_train_and_validation(tmp_path: Path) -> None:
    summaries = Summaries(put_into(tmp_path), Clock())
    for step in range(0, 50, 10):
        summaries.point(point(step))
    summaries.flush()
    train, validation = (read(tmp_path / "summaries" / k) for k in ("train", "validation"))
    assert train.Tags()["scalars"] == ["accuracy", "cross_entropy"]
    assert [(e.step, round(e.value, 4)) for e in train.Scalars("accuracy")] == [
        (0, 0.0), (10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)
    ]  # fmt: skip
    assert {e.value for e in validation.Scalars("cross_entropy")} == {2.5}
    assert [round(e.value, 4) for e in validation.Scalars("accuracy")][-1] == 0.2


def test_points_are_written_during_the_run_every_few_seconds(tmp_path: Path) -> None:
    clock = Clock()
    summaries = Summaries(put_into(tmp_path), clock)
    summaries.point(point(0))
    assert not list(tmp_path.rglob("*tfevents*"))
    clock.now += FLUSH_SECONDS
    summaries.point(point(10))
    assert [e.step for e in read(tmp_path / "summaries/train").Scalars("accuracy")] == [0, 10]
    clock.now += FLUSH_SECONDS
    summaries.point(point(20))
    files = sorted((tmp_path / "summaries/train").iterdir())
    assert len(files) == 2
    assert [e.step for e in read(tmp_path / "summaries/train").Scalars("accuracy")] == [0, 10, 20]


def test_a_missing_validation_set_writes_no_validation_file(tmp_path: Path) -> None:
    summaries = Summaries(put_into(tmp_path), Clock())
    summaries.point(CurvePoint(step=0, training_accuracy=0.5, cross_entropy=1.0))
    summaries.flush()
    assert sorted(p.name for p in (tmp_path / "summaries").iterdir()) == ["train"]


def test_tensorboard_reads_the_graph(tmp_path: Path) -> None:
    graph = GraphDef()
    graph.node.add(name="input", op="Placeholder")
    summaries = Summaries(put_into(tmp_path), Clock())
    summaries.graph(graph.SerializeToString())
    summaries.flush()
    events = read(tmp_path / "summaries/train")
    assert [node.name for node in events.Graph().node] == ["input"]


def test_a_second_flush_without_points_writes_nothing(tmp_path: Path) -> None:
    summaries = Summaries(put_into(tmp_path), Clock())
    summaries.point(point(0))
    summaries.flush()
    before = sorted(tmp_path.rglob("*tfevents*"))
    summaries.flush()
    assert sorted(tmp_path.rglob("*tfevents*")) == before
