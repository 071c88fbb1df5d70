"""The README and the documentation show commands that there are, and help with each message."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.support.run_folder import write_run

from retrainer.api.reasons import REASONS, REPORT_LOST, Kind, Reason
from retrainer.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
# But the signatures of Python and the picture of the files, which are neither.
TYPED_OR_PRINTED = [
    *(page for page in PAGES if page.name not in {"sdk.md", "architecture.md"}),
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "charts" / "retrainer" / "README.md",
]
_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# `retrainer run | submit | get`: a list, not a command.
_IN_LINE = re.compile(r"`(retrainer [^`|]+)`")


def commands() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text()
        blocks = "\n".join(_BLOCK.findall(text)).replace("\\\n", " ")
        lines = [line.strip() for line in blocks.splitlines()]
        command_lines = [line for line in lines if re.match(r"retrainer [a-z]", line)]
        command_lines += _IN_LINE.findall(_BLOCK.sub("", text))
        for command in dict.fromkeys(command_lines):
            yield pytest.param(command, id=f"{page.name}: {command}"[:80])


COMMANDS = list(commands())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documentation_exists_with_its_options(command: str) -> None:
    subcommand: Any = typer.main.get_command(main.build())
    arguments = shlex.split(command, comments=True)[1:]
    while hasattr(subcommand, "commands"):
        assert arguments[0] in subcommand.commands, command
        subcommand = subcommand.commands[arguments.pop(0)]
        if not arguments:
            return
    options = {o for p in subcommand.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    used_options = [w.partition("=")[0] for w in arguments if re.match(r"--?[a-z]", w)]
    assert [o for o in used_options if o not in options] == []


def test_the_tutorial_shows_a_comparison_as_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [{"training": {"steps": steps}} for steps in (500, 4000)]
    first = write_run(tmp_path / "flowers-1", [1], name="flowers", spec=specs[0])
    cached = write_run(tmp_path / "flowers-2", [2], name="flowers", spec=specs[1])
    assert main.run(main.build(), ["compare", str(first), str(cached)]) == 0
    printed = form(capsys.readouterr().out)
    blocks = _BLOCK.findall((REPOSITORY / "docs" / "tutorial.md").read_text())
    # In a terminal a long sentence goes on in lines that begin with two spaces.
    whole = [re.sub(r"\n  (?=\S)", " ", block) for block in blocks if block.startswith("NAME ")]
    assert [form(block) for block in whole] == [printed]


@pytest.mark.parametrize("page", TYPED_OR_PRINTED, ids=lambda page: page.name)
def test_what_is_typed_or_printed_fits_80_columns(page: Path) -> None:
    lines = [line for block in _BLOCK.findall(page.read_text()) for line in block.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


def form(text: str) -> list[str]:
    """The lines of a text without what differs from run to run: names, numbers, widths."""
    names = re.sub(r"flower[\w-]*", "RUN", text)
    networks = re.sub(r"mobilenet_[\d._]+", "NETWORK", names)
    numbers = re.sub(r"\d[\d.,]*", "1", networks)
    return [" ".join(line.split()) for line in numbers.splitlines()]


def test_the_reference_says_what_each_option_takes() -> None:
    text = (REPOSITORY / "docs" / "reference" / "cli.md").read_text()
    sections = dict(
        re.findall(r"^## (retrainer[ \w]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    assert (
        "| `--output`, `-o` | `table` (default), `wide`, `json`, `yaml`, `name` |"
        in (sections["retrainer get"])
    )
    run = sections["retrainer run"]
    assert "| `--steps` | whole number |" in run
    assert "| `--learning-rate` | number |" in run
    assert "| `--optimizer` | `sgd`, `momentum`, `adam` |" in run
    without = re.findall(r"^\| `(--[\w-]+)`(?:, `[\w-]+`)* \|  \|", text, re.MULTILINE)
    assert set(without) == {
        "--all-namespaces", "--decode", "--dry-run", "--flip-left-right", "--follow", "--force",
        "--group-duplicates", "--ignore-not-found", "--insecure", "--local", "--verbose", "--wait",
        "--watch", "--whole", "--cluster",
    }  # fmt: skip


def test_the_documentation_shows_most_of_the_commands() -> None:
    assert len(COMMANDS) > 30


NAMED = [r for r in REASONS if r.kind in (Kind.WAITING, Kind.FAILED) or r is REPORT_LOST]


@pytest.mark.parametrize("reason", NAMED, ids=lambda r: r.name)
def test_troubleshooting_has_a_section_for_each_sentence_that_asks_for_something(
    reason: Reason,
) -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    if reason.sentence == "{detail}":  # no words of its own to search for
        assert reason.name in text
        return
    headings = re.findall(r"^### (.+)", text, re.MULTILINE)
    messages = [message for heading in headings for message in heading.split(" / ")]
    sentence = re.sub(r"{.*?}", "...", reason.sentence)
    assert [m for m in messages if starts(m, sentence)], sentence


def starts(message: str, sentence: str) -> bool:
    """Whether a sentence begins as the message does, `...` standing for one word or several."""
    pieces = map(re.escape, message.removesuffix("...").split("..."))
    return re.match(r"\S.*?".join(pieces), sentence) is not None
