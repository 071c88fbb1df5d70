"""`pip install retrainer` brings what the SDK imports: a notebook needs nothing else."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = {"retrainer"}
NOT_NEEDED = {
    "pandas",  # for to_pandas() alone, which names the extra where it is missing
    "tensorflow",
    "keras",
    "onnxruntime",  # verify leaves out by name the exports whose library is missing
    "IPython",  # looked for to tell a notebook from a terminal
}


def imported() -> Iterator[tuple[str, str]]:
    """Every library that some file of the SDK imports, and the file."""
    for file in (REPOSITORY / "sdk" / "retrainer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            yield from ((name.split(".")[0], file.name) for name in names)


def installed_with(names: set[str]) -> set[str]:
    """The names of these distributions and of all that they require without an extra."""
    installed: set[str] = set()
    open_ = set(names)
    while open_:
        name = open_.pop()
        installed.add(name)
        needed = [
            text for text in importlib.metadata.requires(name) or () if "extra ==" not in text
        ]
        open_ |= {_name(text) for text in needed if _installed(_name(text))} - installed
    return installed


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False  # of another platform
    return True


def test_the_base_install_has_every_library_that_the_sdk_imports() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    base = installed_with({_name(text) for text in project["dependencies"]})
    distributions = importlib.metadata.packages_distributions()
    missing = {
        (library, file)
        for library, file in imported()
        if library not in sys.stdlib_module_names | OURS | NOT_NEEDED
        and not {_name(name) for name in distributions.get(library, [library])} & base
    }
    assert not missing


def test_the_demo_installs_the_trainer_and_the_digits_but_no_tensorflow() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["trainer"]]
    lock = (REPOSITORY / "requirements" / "demo.txt").read_text()
    locked = {_name(line) for line in lock.splitlines() if "==" in line}
    assert {_name(text) for text in needed} | {"scikit-learn"} <= locked
    assert not locked & {"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "pytest", "mypy"}
