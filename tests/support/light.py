"""A Python that has what an extra of pyproject.toml brings, and nothing else that is installed here."""

import os
import re
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from tests.conftest import REPOSITORY


def light_python(folder: Path, extra: str = "trainer") -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a Python with the base install and `extra`.

    The interpreter is the one that the virtual environment was made from; the packages are linked
    into `folder`, file by file, since OpenCV does not bear a link to its folder.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    linked: set[str] = set()
    folder.mkdir(parents=True)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        extras = requirement.extras or {""}
        if name in linked or (
            requirement.marker
            and not any(requirement.marker.evaluate({"extra": e}) for e in extras)
        ):
            continue
        linked.add(name)
        package = metadata.distribution(name)
        waiting += package.requires or []
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            _link(Path(str(package.locate_file(top))), folder / top)
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    paths = [folder, REPOSITORY / "sdk", REPOSITORY / "trainer"]
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONNOUSERSITE": "1"}
    return [str(Path(sys.base_prefix) / "bin" / "python3")], environment


def _link(source: Path, place: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, place, copy_function=_link_file, ignore=ignored, dirs_exist_ok=True)
    elif not place.exists():
        _link_file(str(source), str(place))


def _link_file(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except FileExistsError:
        return
    except OSError:  # on another file system
        shutil.copy2(source, place)
