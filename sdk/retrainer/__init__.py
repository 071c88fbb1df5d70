"""Retrainer's Python SDK: describe a RetrainJob, run it here or on a cluster, read its result.

Names are loaded when first used, so `import retrainer` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrainer._cluster import Stop as Stop
    from retrainer._compare import Comparison as Comparison
    from retrainer._compare import compare as compare
    from retrainer._frontier import frontier as frontier
    from retrainer._predict import Prediction as Prediction
    from retrainer._predict import predict as predict
    from retrainer._runs import Run as Run
    from retrainer.aio import AsyncClient as AsyncClient
    from retrainer.aio import AsyncJob as AsyncJob
    from retrainer.api import *  # noqa: F403
    from retrainer.client import Client as Client
    from retrainer.errors import *  # noqa: F403
    from retrainer.job import Job as Job
    from retrainer.jobfile import load as load
    from retrainer.local import Result as Result
    from retrainer.local import run as run

__version__ = "0.1.0"

_API = (
    "Distortions", "EarlyStopping", "Export", "Metadata", "Optimizer", "Phase", "Pod", "Resources",
    "RetrainJob", "RetrainJobSpec", "Sampling", "Split", "Storage", "Toleration", "Training",
)  # fmt: skip
_ERRORS = (
    "AlreadyExists", "ClusterError", "Forbidden", "Interrupted", "InvalidJob", "JobFailed",
    "MissingExtra", "NotFound", "RetrainerError", "StorageDenied", "StorageError", "UserError",
    "WaitTimeout",
)  # fmt: skip
# No module of this package may have one of these names: importing it would replace the function.
_HERE = ("Prediction", "Result", "load", "predict", "run")
_CLUSTER = {
    "AsyncClient": "retrainer.aio",
    "AsyncJob": "retrainer.aio",
    "Client": "retrainer.client",
    "Comparison": "retrainer._compare",
    "Job": "retrainer.job",
    "Run": "retrainer._runs",
    "Stop": "retrainer._cluster",
    "compare": "retrainer._compare",
    "frontier": "retrainer._frontier",
}
_WHERE = {
    **_CLUSTER,
    **dict.fromkeys(_API, "retrainer.api"),
    **dict.fromkeys(_ERRORS, "retrainer.errors"),
    "load": "retrainer.jobfile",
    **dict.fromkeys(("Result", "run"), "retrainer.local"),
    **dict.fromkeys(("Prediction", "predict"), "retrainer._predict"),
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
