"""What the chart says of itself: its version, and a README with every value."""

import tomllib

import yaml
from tools.chart import CHART, REPOSITORY, files, values

from retrainer import __version__

TEXT = """
# Further labels of
# every object.
labels: {}

operator:
  # 1, or 2.
  replicas: 1
  image:
    # Where it lies.
    repository: ""
  # What it asks for.
  resources:
    requests: {cpu: 100m}
"""


def test_a_value_is_listed_with_its_default_and_the_comment_above_it() -> None:
    rows = [(value.path, value.default, value.meaning) for value in values(TEXT)]

    assert rows == [
        ("labels", "{}", "Further labels of every object."),
        ("operator.replicas", "1", "1, or 2."),
        ("operator.image.repository", '""', "Where it lies."),
        ("operator.resources", "", "What it asks for."),
        ("operator.resources.requests", "{cpu: 100m}", "What it asks for."),
    ]


def test_the_readme_and_the_version_are_what_the_tool_would_write() -> None:
    for path, text in files().items():
        assert path.read_text() == text, f"{path} is old: run make generate"


def test_every_value_of_the_chart_says_what_it_is_for() -> None:
    assert not [v.path for v in values((CHART / "values.yaml").read_text()) if not v.meaning]


def test_the_version_is_written_in_one_place() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

    assert chart["appVersion"] == chart["version"] == __version__
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "sdk/retrainer/__init__.py"
