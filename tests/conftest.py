"""What the machine can do, and where the real photos and weights are."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tests.cluster.devcluster import tools
from tests.support import devcluster_tool, workers

# The same examples on every run, and no limit to the time of each, on any machine as in CI.
settings.load_profile("ci")

REPOSITORY = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI") == "true"
_LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # A build takes minutes: what it says is shown at once, not kept until the test has failed.
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        devcluster_tool.uncaptured = capture.global_and_fixture_disabled


# Optional: it is asked for only where pytest-xdist is installed and -n is given.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files, and files that share a cluster together."""
    return workers.scheduler(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """In CI, ask for every tool before there are workers: what one of them raises is not shown."""
    advice = {_NAMES[tool]: tools.lacking(tool) for tool in _NAMES} if CI else {}
    if lacking := [f"{name} is not here ({text})" for name, text in advice.items() if text]:
        raise pytest.UsageError("\n".join(lacking))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Take over what a worker left out, to be told at the end."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", [])


# After pytest's own, which has taken away what -m and -k do not choose.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a tool which is not here; in CI, fail instead.

    Where several workers share the tests, those on a cluster come first: they take longest.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=workers.place)
    needed = {item: _tools(item) for item in items}
    advice = {tool: tools.lacking(tool) for tool in sorted(set().union(*needed.values()))}
    without: dict[str, list[pytest.Item]] = {tool: [] for tool in advice if advice[tool]}
    for item in items:
        for tool in sorted(needed[item] & without.keys())[:1]:
            without[tool].append(item)
    left_out = [item for some in without.values() for item in some]
    if not left_out:
        return
    lines = [
        f"left out: {len(some)} tests that need {_NAMES[tool]} ({advice[tool]}): {_files(some)}"
        for tool, some in without.items()
        if some
    ]
    if CI:
        raise pytest.UsageError("\n".join(lines))
    config.stash[_LEFT_OUT] = lines
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = lines
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


_NAMES = {
    "cluster": "a real cluster",
    "helm": "helm",
    "promtool": "promtool",
    "chromium": "the browser chromium",
    "rclone": "the S3 server rclone",
    "versitygw": "the S3 server versitygw",
}


def _tools(item: pytest.Item) -> set[str]:
    """What the test needs beyond Python: its marks say so, and an S3 server is a fixture."""
    tools = {name for mark in item.iter_markers("needs") for name in mark.args}
    if item.get_closest_marker("cluster"):
        tools.add("cluster")
    if "s3" in getattr(item, "fixturenames", ()):
        variant = getattr(item, "callspec", None)
        tools.add(variant.params.get("s3", "versitygw") if variant else "versitygw")
    return tools


def _files(items: list[pytest.Item]) -> str:
    """The files of these tests, each with their number in it."""
    counts = Counter(item.path.relative_to(REPOSITORY).as_posix() for item in items)
    return ", ".join(f"{file} ({count})" for file, count in counts.items())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash.get(_LEFT_OUT, []):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with `flower_photos/` and `weights/`: RETRAINER_TEST_DATA, else beside the checkout."""
    folder = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not (folder / "flower_photos").is_dir():
        text = f"real photos and weights are not in {folder}; set RETRAINER_TEST_DATA"
        if CI:
            pytest.fail(text)
        pytest.skip(text)
    return folder


@pytest.fixture(scope="session")
def flowers(test_data: Path) -> Path:
    """The 1,498 flower photos, a folder per label."""
    return test_data / "flower_photos"


@pytest.fixture(scope="session")
def imagenet_weights(test_data: Path) -> Path:
    """Folder with ImageNet weights of five MobileNets."""
    return test_data / "weights"
