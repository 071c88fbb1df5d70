"""The pages that lead through the code name files that are there."""

import re

import pytest
from tests.support.devcluster_tool import CHECKOUT

TOP = "sdk|operator|trainer|tests|charts|tools|docs"
OPERATOR = CHECKOUT / "operator" / "retrainer_operator"


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/security.md"])
def test_every_path_is_there(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    paths = set(re.findall(rf"(?<![\w/.-])((?:{TOP})/[\w./*-]*[\w*])", text))

    assert paths
    assert not [path for path in sorted(paths) if not any(CHECKOUT.glob(path))]


def test_the_picture_names_modules_of_the_operator_that_are_there() -> None:
    text = (CHECKOUT / "docs" / "architecture.md").read_text()
    picture = text[text.index("```text") : text.index("- - |")]
    modules = set(re.findall(r"(?:watching|reconciling|planning)/\w+\.py", picture))

    assert len(modules) >= 8
    assert not [module for module in sorted(modules) if not (OPERATOR / module).exists()]


def test_every_folder_of_the_three_packages_is_in_the_readmes_tree() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    tree = readme[readme.index("## How it is built") :].split("```")[1]
    packages = ("sdk/retrainer", "operator/retrainer_operator", "trainer/retrainer_trainer")
    folders = [
        init.parent.name
        for package in packages
        for init in (CHECKOUT / package).glob("*/__init__.py")
    ]

    assert not [folder for folder in folders if f"{folder}/" not in tree]
