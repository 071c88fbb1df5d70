"""What the machine can do, and where the real photos and weights are."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run, and no limit to the time of each, on any machine as in CI.
settings.load_profile("ci")

REPOSITORY = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI") == "true"


def _no_cluster_because() -> str:
    """Why no cluster can be started here; empty if one can, or if one is given."""
    if os.environ.get("KUBECONFIG"):
        return ""
    lacks = []
    if sys.platform != "linux":
        lacks.append("Linux")
    elif os.geteuid() != 0:
        lacks.append("root")
    if not shutil.which("go"):
        lacks.append("Go")
    return " and ".join(lacks)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacks = _no_cluster_because()
    marked = [item for item in items if item.get_closest_marker("cluster")]
    if not lacks or not marked:
        return
    if CI:
        raise pytest.UsageError(
            f"{len(marked)} tests need a real cluster, and this machine lacks {lacks}"
        )
    config.stash[_LEFT_OUT] = (
        f"left out: {len(marked)} tests that need a real cluster; this machine lacks {lacks} "
        "(or give a cluster by KUBECONFIG)"
    )
    config.hook.pytest_deselected(items=marked)
    items[:] = [item for item in items if not item.get_closest_marker("cluster")]


_LEFT_OUT = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if text := terminalreporter.config.stash.get(_LEFT_OUT, ""):
        terminalreporter.write_line(text, yellow=True)


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
