"""Libraries that `pip install retrainer` alone does not bring, and the command that installs each."""

import importlib.util
from collections.abc import Callable
from typing import Any

from retrainer.errors import MissingExtra


def import_pandas() -> Any:
    """Import pandas.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra("Install pandas for this: pip install 'retrainer[pandas]'.") from error
    return pandas


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(
            "This run's network is an ONNX file, which ONNX Runtime runs: pip install 'retrainer[onnx]'."
        ) from error
    return onnxruntime


def require_trainer(
    find: Callable[[str], object] = importlib.util.find_spec, *, what: str = "h5py"
) -> None:
    """Raise MissingExtra unless the trainer's libraries are installed."""
    if find(what) is None:
        raise MissingExtra(
            f"This needs {what}, which is not installed here: pip install 'retrainer[trainer]'."
        )
