"""`evaluation.json`, read: what the trainer writes and nothing less."""

import json
from pathlib import Path

import pytest
from tests.support.run_folder import write_run

from retrainer.api import Evaluation
from retrainer.errors import UserError
from retrainer.results.run import Run


def test_the_evaluation_has_every_figure_of_the_file_by_name(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", wrong=[0, 7, 9]))
    assert run.evaluation.accuracy == 57 / 60
    assert run.evaluation.images == 60
    low, high = run.evaluation.interval or (0, 0)
    assert low < 57 / 60 < high
    daisy = run.evaluation.labels[0]
    assert (daisy.label, daisy.images, daisy.guesses) == ("daisy", 20, 18)
    assert daisy.recall == 18 / 20
    assert daisy.precision == 1.0
    assert run.evaluation.confusion == [[18, 2, 0], [0, 19, 1], [0, 0, 20]]


def test_the_model_writes_what_it_read_and_drops_nothing(tmp_path: Path) -> None:
    written = json.loads((write_run(tmp_path / "run") / "evaluation.json").read_text())
    rewritten = json.loads(Evaluation.model_validate(written).to_json())
    assert {name: rewritten[name] for name in written} == written


@pytest.mark.parametrize("body", ["{", '{"images": "many"}', "[]"])
def test_a_damaged_file_is_named_in_a_sentence(tmp_path: Path, body: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.json").write_text(body)
    with pytest.raises(UserError) as caught:
        assert Run(folder).evaluation
    assert str(caught.value) == (
        f"{folder}/evaluation.json is damaged, or of another version of Retrainer."
    )
