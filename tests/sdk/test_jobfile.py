"""Job files: YAML in, RetrainJobs or one clear sentence out."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrainer import jobfile
from retrainer.errors import InvalidJob, NotFound, UserError

GOOD = jobfile.template()


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "job.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_the_template_is_a_valid_job(tmp_path: Path) -> None:
    job = jobfile.load(written(tmp_path, GOOD))
    assert (job.name, job.spec.training.steps) == ("flowers", 500)


def test_every_commented_field_of_the_template_is_valid_too(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    spec = lines.index("spec:")
    field = [line.replace("# ", "", 1) if _is_field(line) else line for line in lines[spec:]]
    text = "\n".join(lines[:spec] + field)
    text = text.replace("weights: imagenet", "weights: /weights")
    job = jobfile.load(written(tmp_path, text))
    assert job.spec.distortions is not None
    assert job.spec.training.early_stopping is not None
    assert job.spec.storage.secret_name == "s3-credentials"
    assert job.spec.cache == "out/.bottlenecks"


def _is_field(line: str) -> bool:
    """Whether a comment is a field that is commented out, and no sentence."""
    word, colon, _ = line.strip().removeprefix("#").strip().partition(":")
    return line.strip().startswith("#") and bool(colon) and word.isalpha() and word[0].islower()


@pytest.mark.parametrize(
    "place",
    ["a b", "a: b", "#x", "s3://bucket/ü", "'", "- a", "true", "123", "~/x", "@home", "{a}"],
)
def test_the_template_quotes_what_yaml_would_misread(tmp_path: Path, place: str) -> None:
    text = jobfile.template(images=place, output="elsewhere")
    assert jobfile.load(written(tmp_path, text)).spec.images == place


BROKEN = [
    ("", "job.yaml is empty"),
    ("---\n---\n", "job.yaml is empty"),
    ("a: [1", "job.yaml: line 1, column 6: a list in [ ] is not closed, or has no comma here."),
    ("a: {b: 1", "line 1, column 9: a mapping in { } is not closed, or has no comma here."),
    ("a:\n\t- b", "job.yaml: line 2, column 1: a tab cannot indent: use spaces."),
    (
        "a: b: c",
        "column 5: a : cannot stand here: check the indentation, or put the text in quotes.",
    ),
    ("a:\n  b: 1\n c: 2", "line 3, column 2: this does not go with what is above: check"),
    ("a: 'x", "line 1, column 6: a quote is not closed."),
    ('a: "C:\\Users"', "line 1, column 9: in double quotes a backslash is written twice."),
    ("a: *.jpg", "line 1, column 5: a text that begins with * must be in quotes."),
    ("a: *jpg", "line 1, column 4: a text that begins with * must be in quotes."),
    ("a: @x", "line 1, column 4: a text that begins with this character must be in quotes."),
    ("a: - b", "line 1, column 4: a list cannot begin here: check the indentation."),
    ("a: 2026-13-45", "column 4: 2026-13-45 looks like a date or a number and is none: put it in"),
    ("<<: 3", "line 1, column 5: this is not YAML."),
    ("a: 1\nb: 2\na: 3\n", "job.yaml: line 3, column 1: a is given twice"),
    ("spec:\n  x: 1\n  x: 2\n", "job.yaml: line 3, column 3: x is given twice"),
    ("? [a]\n: 1", "job.yaml: line 1, column 3: a list or a mapping cannot be a name."),
    (
        "!!python/object/apply:os.system [ls]",
        "column 1: a text that begins with ! must be in quotes.",
    ),
    (b"\xff\xd8\xff\xe0JFIF", "job.yaml is not UTF-8 text"),
    (b"a\x00b", "job.yaml is not YAML: it has characters that no text has."),
    ("[" * 5000, "job.yaml is not YAML of a job: it is nested too deeply."),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN, ids=lambda x: repr(x)[:20])
def test_what_is_no_yaml_is_told_with_line_and_column(
    tmp_path: Path, text: str | bytes, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        jobfile.load(written(tmp_path, text))
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 64


def test_merge_keys_are_understood(tmp_path: Path) -> None:
    text = GOOD.replace("spec:", "x: &t {steps: 7}\nspec:").replace(
        "    steps: 500 ", "    <<: *t #"
    )
    with pytest.raises(InvalidJob, match=r"job.yaml: x: unknown field"):
        jobfile.load(written(tmp_path, text))
    document = jobfile.documents(text, "job.yaml")[0][1]
    assert document["spec"]["training"]["steps"] == 7


def test_a_byte_order_mark_is_no_hindrance(tmp_path: Path) -> None:
    assert jobfile.load(written(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())).name == "flowers"


def test_json_is_yaml_too(tmp_path: Path) -> None:
    import json

    text = json.dumps(yaml.safe_load(GOOD))
    assert jobfile.load(written(tmp_path, text)).name == "flowers"


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no file .*job\.yaml\.") as caught:
        jobfile.load(tmp_path / "job.yaml")
    assert caught.value.command == f"retrainer init {tmp_path}/job.yaml writes one to start from."


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r" is a folder, not a job file\."):
        jobfile.load(tmp_path)


def test_all_documents_of_a_file_are_read(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD + "---\n" + jobfile.template(name="birds") + "---\n")
    assert [j.name for j in jobfile.load_all(file)] == ["flowers", "birds"]


def test_where_one_job_is_wanted_several_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD + "---\n" + jobfile.template(name="birds"))
    with pytest.raises(UserError, match=r"holds 2 jobs \(flowers, birds\); give a file with one"):
        jobfile.load(file)


def test_each_wrong_document_is_named_by_its_number(tmp_path: Path) -> None:
    wrong = GOOD.replace("steps: 500", "steps: 0")
    with pytest.raises(InvalidJob) as caught:
        jobfile.load_all(written(tmp_path, GOOD + "---\n" + wrong + "---\n[]\n"))
    assert [p.removeprefix(f"{tmp_path}/") for p in caught.value.problems] == [
        "job.yaml, document 2: spec.training.steps: must be at least 1, got 0",
        "job.yaml, document 3: must be a mapping with apiVersion, kind, metadata and spec, got []",
    ]


def test_a_job_may_be_given_as_such_as_a_dict_or_as_a_path(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    job = jobfile.load(file)
    assert jobfile.as_job(job) is job
    assert jobfile.as_job(str(file)) == jobfile.as_job(file) == job
    assert jobfile.as_job(job.dump()) == job


def test_what_a_cluster_would_refuse_is_told(tmp_path: Path) -> None:
    job = jobfile.load(written(tmp_path, GOOD.replace("  # weights: imagenet", "  weights: w.h5")))
    assert jobfile.only_here(job) == [
        "spec.images: must be s3://BUCKET/FOLDER in a cluster, got 'flower_photos'",
        "spec.output: must be s3://BUCKET/FOLDER in a cluster, got 'out'",
        "spec.weights: must be imagenet, builtin or s3://BUCKET/FILE_OR_FOLDER in a cluster, "
        "got 'w.h5'",
    ]


def test_a_job_of_urls_runs_on_a_cluster(tmp_path: Path) -> None:
    text = jobfile.template(images="s3://photos/flowers", output="s3://models/flowers")
    assert jobfile.only_here(jobfile.load(written(tmp_path, text))) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200) | st.text("{}[]:,-#&*!|>'\"%@` \n\tab1", max_size=60))
def test_no_text_makes_anything_but_jobs_or_a_users_mistake(text: str) -> None:
    with contextlib.suppress(UserError):
        assert jobfile.documents(text, "job.yaml")
