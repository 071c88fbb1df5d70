"""docs/security.md names, beside each claim, a test that is there."""

import re

from tests.support.devcluster_tool import CHECKOUT


def test_every_claim_names_a_test_that_is_there() -> None:
    page = (CHECKOUT / "docs" / "security.md").read_text()
    claims = [
        line.split("|")[-2]
        for line in page.splitlines()
        if line.startswith("| ") and "tests/" in line
    ]

    assert len(claims) >= 20
    for claim in claims:
        sources = [(CHECKOUT / file).read_text() for file in re.findall(r"`(tests/[^`]*)`", claim)]
        for name in re.findall(r"\btest_\w+\b(?!\.py)", re.sub(r"`[^`]*`", "", claim)):
            assert any(f"def {name}(" in source for source in sources), (
                f"{name} is in none of {claim}"
            )
