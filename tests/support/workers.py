"""How the workers of `make test` share the tests: a file in one of them, and a cluster in one."""

from pathlib import PurePosixPath
from typing import Any

import pytest

NODE = "node"
_ALONE = frozenset({"test_fresh_machine.py", "test_kueue.py", "test_monitoring.py"})
"""The files of tests/cluster that start a control plane of their own, or none."""
_CONTROL_PLANE = frozenset({"test_credential_plugin.py", "test_crd.py", "test_sdk.py"})


def unit(nodeid: str) -> str:
    """Name what a test is handed out with: its file, or the cluster that its file shares with others.

    There is one node on a machine: a file of tests/cluster that is not named here is taken to use it.
    """
    file = PurePosixPath(nodeid.partition("::")[0])
    if file.parent.name != "cluster" or file.parent.parent.name != "tests":
        return str(file)
    if file.name in _ALONE:
        return str(file)
    if file.name in _CONTROL_PLANE:
        return "control plane"
    return "operator" if file.name.startswith("test_operator_") else NODE


def place(item: pytest.Item) -> int:
    """Rank a test in the queue: the node's first, then other clusters', whose tests mostly wait."""
    if unit(item.nodeid) == NODE:
        return 0
    return 1 if item.get_closest_marker("cluster") else 2


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Make the scheduler that hands out units in the order in which they are collected."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    config.option.loadscopereorder = False
    units = LoadScopeScheduling(config, log)
    units._split_scope = unit  # all that its own subclasses (loadfile, loadgroup) change
    return units
