"""Where things lie: the checkout, the cache that outlives clusters, the state of each cluster."""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GO_MODULES = FOLDER.parent / "go"
CHECKOUT = FOLDER.parents[2]


def cache() -> Path:
    """Binaries and container images, named by what they are made from.

    It lies outside the checkout, so that a fresh clone does not build Kubernetes again.
    """
    path = os.environ.get("RETRAINER_CACHE")
    if path:
        return Path(path).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrainer"


def state() -> Path:
    """One folder per cluster that was brought up; `down` deletes it."""
    path = os.environ.get("RETRAINER_STATE")
    if path:
        return Path(path).resolve()
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "retrainer" / "clusters"


def given_kubeconfig() -> Path | None:
    """KUBECONFIG, where it names a cluster of somebody else's, to be used instead of a node."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    if not first or state() in Path(first).resolve().parents:
        return None
    return Path(first).resolve()
