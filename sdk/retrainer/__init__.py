"""Retrainer's Python SDK: describe a RetrainJob, run it here or on a cluster, read its result.

Names are loaded when first used, so `import retrainer` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrainer.api import *  # noqa: F403
    from retrainer.cluster.aio import AsyncClient as AsyncClient
    from retrainer.cluster.aio import AsyncJob as AsyncJob
    from retrainer.cluster.client import Client as Client
    from retrainer.cluster.job import Job as Job
    from retrainer.cluster.stop import Stop as Stop
    from retrainer.errors import *  # noqa: F403
    from retrainer.inference.classifier import Prediction as Prediction
    from retrainer.inference.classifier import predict as predict
    from retrainer.jobfile import load as load
    from retrainer.local.backbones import add_backbone as add_backbone
    from retrainer.local.backbones import list_backbones as list_backbones
    from retrainer.local.backbones import show_backbone as show_backbone
    from retrainer.local.preview import check as check
    from retrainer.local.preview import plan as plan
    from retrainer.local.process import Result as Result
    from retrainer.local.process import run as run
    from retrainer.results.comparison import Comparison as Comparison
    from retrainer.results.comparison import compare as compare
    from retrainer.results.rows import TestPrediction as TestPrediction
    from retrainer.results.run import Run as Run
    from retrainer.sweep import frontier as frontier
    from retrainer.watcher import Watcher as Watcher

__version__ = "0.1.0"

_API = (
    "Distortions", "EarlyStopping", "Export", "Metadata", "Optimizer", "Phase", "Pod", "Resources",
    "RetrainJob", "RetrainJobSpec", "Sampling", "Split", "Storage", "Toleration", "Training",
)  # fmt: skip
_ERRORS = (
    "AlreadyExists", "BucketNotFound", "ClusterError", "Forbidden", "Interrupted", "InvalidJob",
    "JobFailed", "MissingExtra", "NotFound", "RetrainerError", "StorageDenied", "StorageError",
    "UserError", "WaitTimeout",
)  # fmt: skip
# No module of this package may have one of these names: importing it would replace the function.
_HERE = (
    "Prediction", "Result", "add_backbone", "check", "list_backbones", "load", "plan", "predict",
    "run", "show_backbone",
)  # fmt: skip
_CLUSTER = {
    "AsyncClient": "retrainer.cluster.aio",
    "AsyncJob": "retrainer.cluster.aio",
    "Client": "retrainer.cluster.client",
    "Comparison": "retrainer.results.comparison",
    "Job": "retrainer.cluster.job",
    "Run": "retrainer.results.run",
    "Stop": "retrainer.cluster.stop",
    "TestPrediction": "retrainer.results.rows",
    "Watcher": "retrainer.watcher",
    "compare": "retrainer.results.comparison",
    "frontier": "retrainer.sweep",
}
_WHERE = {
    **_CLUSTER,
    **dict.fromkeys(_API, "retrainer.api"),
    **dict.fromkeys(_ERRORS, "retrainer.errors"),
    **dict.fromkeys(
        ("add_backbone", "list_backbones", "show_backbone"), "retrainer.local.backbones"
    ),
    **dict.fromkeys(("check", "plan"), "retrainer.local.preview"),
    "load": "retrainer.jobfile",
    **dict.fromkeys(("Result", "run"), "retrainer.local.process"),
    **dict.fromkeys(("Prediction", "predict"), "retrainer.inference.classifier"),
}

__all__ = [*_API, *_ERRORS, *_HERE, *_CLUSTER]  # noqa: PLE0604  tuples of names


def __getattr__(name: str) -> Any:
    try:
        module = importlib.import_module(_WHERE[name])
    except KeyError:
        raise AttributeError(f"module 'retrainer' has no attribute {name!r}") from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
