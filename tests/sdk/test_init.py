"""`import retrainer`: quick, lazy, and every name there."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import retrainer

HEAVY = (
    "kubernetes", "boto3", "botocore", "obstore", "tensorflow", "numpy", "pyarrow", "kopf", "aiohttp",
    "rich", "typer", "yaml", "cv2", "ai_edge_litert", "retrainer_trainer", "retrainer_operator",
)  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh Python after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    run = [sys.executable, "-c", code]
    return set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_api_loads_pydantic_and_nothing_heavier() -> None:
    loaded = loaded_by("import retrainer.api")
    assert "pydantic" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_package_loads_not_even_pydantic() -> None:
    assert loaded_by("import retrainer").isdisjoint({*HEAVY, "pydantic"})


def test_the_command_line_starts_without_the_trainer_or_a_store() -> None:
    loaded = loaded_by("import retrainer.cli.main; retrainer.cli.main.build()")
    assert loaded.isdisjoint(
        {"tensorflow", "numpy", "boto3", "obstore", "cv2", "retrainer_trainer"}
    )


def test_the_package_imports_in_a_few_times_what_python_takes_to_start() -> None:
    # Of the processor, so that what else the machine does is not counted; 1.4 times, measured.
    code = """
from time import process_time
started = process_time()
import retrainer
print((process_time() - started) / started)
"""
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 8


PUBLIC = {
    "AlreadyExists", "AsyncClient", "AsyncJob", "BucketNotFound", "Client", "ClusterError",
    "Comparison", "Distortions", "EarlyStopping", "Export", "Forbidden", "Interrupted", "InvalidJob",
    "Job", "JobFailed", "Metadata", "MissingExtra", "NotFound", "Optimizer", "Phase", "Pod",
    "Prediction", "Resources", "Result", "RetrainJob", "RetrainJobSpec", "RetrainerError", "Run",
    "Sampling", "Split", "Stop", "Storage", "StorageDenied", "StorageError", "TestPrediction",
    "Toleration", "Training", "UserError", "WaitTimeout", "Watcher",
    "add_backbone", "check", "compare", "frontier", "list_backbones", "load", "plan", "predict",
    "run", "show_backbone",
}  # fmt: skip


def test_every_public_name_is_there_and_is_listed() -> None:
    assert set(retrainer.__all__) == PUBLIC
    for name in retrainer.__all__:
        assert getattr(retrainer, name) is not None
        assert name in dir(retrainer)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'retrainer' has no attribute 'trian'$"):
        retrainer.trian  # noqa: B018


def test_no_module_takes_the_place_of_a_function() -> None:
    modules = {m.name for m in pkgutil.iter_modules(retrainer.__path__)}
    for name in modules:
        importlib.import_module(f"retrainer.{name}")
    assert modules.isdisjoint(retrainer.__all__)
    assert callable(retrainer.run)
    assert callable(retrainer.predict)
    assert callable(retrainer.load)


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert retrainer.__version__ == version("retrainer")
