"""Writes the reference pages that come from code: spec, status, architectures, reasons, metrics, CLI.

python tools/reference.py            write docs/reference/*.md
python tools/reference.py --check    exit 1 if a page is not what would be written
"""

import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import retrainer
from retrainer.api import ARCHITECTURES, Evaluation, RetrainJobSpec, RetrainJobStatus
from retrainer.api.fields import inner_model
from retrainer.api.preview import Inspection, Plan
from retrainer.api.prometheus import METRICS
from retrainer.api.reasons import REASONS, Kind
from retrainer.cli import main as cli

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # run as a file, not as a module

from tools.generated import write_or_check  # noqa: E402

FOLDER = REPOSITORY / "docs" / "reference"
HEADER = "<!-- Written by tools/reference.py. -->\n\n"
KINDS = {
    Kind.WAITING: "Waiting: the phase stays, and the job goes on once this is mended",
    Kind.RUNNING: "Running",
    Kind.SUCCEEDED: "Succeeded",
    Kind.FAILED: "Failed, or reported by the trainer before it fails",
}


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(map(_cell, cells)) + " |\n"


def _cell(text: object) -> str:
    one_line = str(text).replace("|", "\\|").replace("\n", " ")
    # Outside of code, Markdown takes <name> for a tag of HTML and shows nothing.
    pieces = re.split(r"(`[^`]*`)", one_line)
    return "".join(p if p.startswith("`") else re.sub("<(?=[a-z])", "&lt;", p) for p in pieces)


def table(*heads: str) -> str:
    """Write the first two lines of a Markdown table."""
    return row(*heads) + "|" + "---|" * len(heads) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`" if value else ""
    return f"`{value}`" if value != {} else ""


def fields(model: type[BaseModel], path: str, *, defaults: bool = True) -> Iterator[str]:
    """Write a table row for every field of `model`, those of inner objects under their path."""
    for name, field in model.model_fields.items():
        at = f"{path}.{field.alias or name}".lstrip(".")
        default = [_default(field)] if defaults else []
        yield row(f"`{at}`", *default, field.description or "")
        inner = inner_model(field.annotation)
        if inner is not None:
            kind = str(field.annotation)
            inside = "[]" if "list" in kind else ".NAME" if "dict" in kind else ""
            yield from fields(inner, at + inside, defaults=defaults)


def retrainjob() -> str:
    """Write the page of the spec and the status."""
    return (
        "# RetrainJob\n\nAPI `retrainer.dev/v1alpha1`, namespaced, short name `rj`. "
        "`kubectl explain retrainjob.spec` says the same.\n\n## Spec\n\n"
        "Immutable but for `suspend`, `activeDeadlineSeconds` and `ttlSecondsAfterFinished`.\n\n"
        + table("field", "default", "meaning")
        + "".join(fields(RetrainJobSpec, "spec"))
        + "\n## Status\n\n"
        + table("field", "", "meaning")
        + "".join(fields(RetrainJobStatus, "status"))
    )


def evaluation() -> str:
    """Write the page of `evaluation.json`."""
    return (
        "# evaluation.json\n\nThe figures of a run on its test images, in the run's folder; "
        "`Run.evaluation` has the same as an object with these names in snake_case.\n\n"
        + table("field", "meaning")
        + "".join(fields(Evaluation, "", defaults=False))
    )


def preview() -> str:
    """Write the page of what is told of a job before it runs."""
    return (
        "# Before a run\n\nWhat `retrainer check -o json` and `retrainer plan -o json` print; "
        "`retrainer.check` and `retrainer.plan` give objects with these names in snake_case.\n\n"
        "## retrainer check\n\n"
        + table("field", "meaning")
        + "".join(fields(Inspection, "", defaults=False))
        + "\n## retrainer plan\n\n"
        + table("field", "meaning")
        + "".join(fields(Plan, "", defaults=False))
    )


def architectures() -> str:
    """Write the page of all networks and what they cost."""
    lines = [
        row(
            f"`{a.name}`",
            a.size,
            a.bottleneck,
            f"{a.multiply_adds / 1e6:.0f}",
            f"{a.parameters / 1e6:.2f}",
        )
        for a in ARCHITECTURES.values()
        if not a.quantized
    ]
    return (
        "# Architectures\n\nEach `mobilenet_*` also exists with `_quantized` at the end: the same "
        "network, and an int8 TensorFlow Lite file is exported beside the float one.\n\n"
        + table(
            "name",
            "input, pixels",
            "bottleneck, floats",
            "multiply-adds, millions",
            "parameters, millions",
        )
        + "".join(lines)
    )


def reasons() -> str:
    """Write the page of all reasons, with sentence and advice."""
    parts = ["# Reasons and conditions\n\n", _CONDITIONS]
    for kind, title in KINDS.items():
        parts += [f"\n## {title}\n\n", table("reason", "sentence", "what to do")]
        parts += [
            row(f"`{r.name}`", _filled_in(r.sentence), _filled_in(r.advice))
            for r in REASONS
            if r.kind is kind
        ]
    return "".join(parts)


def _filled_in(sentence: str) -> str:
    """The sentence with its fields in italics, without their formats: *rate* for {rate:g}."""
    return re.sub(r"\{(\w+)[^}]*\}", r"*\1*", sentence)


_CONDITIONS = (
    "Conditions: `Suspended`, `BottlenecksReady`, `Complete`, `Failed`; "
    "`kubectl wait --for=condition=Complete rj/NAME` works. `status.reason` is one word for scripts, "
    "`status.message` its sentence; what is in italics is filled in.\n"
)


def metrics() -> str:
    """Write the page of all metrics."""
    lines = [
        row(
            f"`{m.name}{'_total' if m.kind == 'counter' else ''}`",
            m.kind,
            ", ".join(f"`{label}`" for label in m.labels),
            m.help,
        )
        for m in METRICS
    ]
    return (
        "# Metrics\n\n`retrainer_job_*` and the operator's own are on the operator's `:8080/metrics`, "
        "`retrainer_task_*` on each trainer pod's `:9464/metrics`.\n\n"
        + table("name", "type", "labels", "meaning")
        + "".join(lines)
    )


def commands() -> str:
    """Write the page of the command line: every command with its options."""
    group = typer.main.get_command(cli.build())
    return "# Command line\n\n" + "".join(_command(group, "retrainer"))


def plain(text: str) -> str:
    """`text` of a command's help in Markdown: what the terminal dims is code here."""
    return re.sub(r"\[[a-z ]+\](.*?)\[/\]", r"`\1`", text.strip())


_TYPE_NAMES = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}


def _value(option: Any) -> str:
    """Write what an option takes: its choices with the default marked, or the type of its value."""
    kind = option.type_descriptor.annotation
    several = get_origin(kind) is list
    kind = get_args(kind)[0] if several else kind
    if issubclass(kind, Enum):
        default = option.default
        choices = (f"`{c.value}`" + (" (default)" if c is default else "") for c in kind)
        text = ", ".join(choices)
    elif option.param_type_name == "option" and option.metavar:
        text = option.metavar
    else:
        text = _TYPE_NAMES[kind]
        if option.default not in (None, "", False):
            text += f", `{option.default}` if not given"
    return f"{text}; may be given several times" if several and option.opts[0][0] == "-" else text


def _command(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if path != "retrainer":
        yield f"## {path}\n\n{plain(command.help or '')}\n\n"
        options = [
            p
            for p in command.params
            if getattr(p, "help", None) is not None or p.param_type_name == "argument"
        ]
        if options and not children:
            yield table("option", "value", "meaning")
            for option in options:
                names = ", ".join(f"`{n}`" for n in [*option.opts, *option.secondary_opts])
                if option.param_type_name == "argument":
                    names = f"`{(option.metavar or option.name).rstrip('.').upper()}`"
                yield row(names, _value(option), getattr(option, "help", None) or "")
            yield "\n"
    for name, child in sorted(children.items()):
        if not child.hidden:
            yield from _command(child, f"{path} {name}")


SDK = (
    "Client",
    "Job",
    "Run",
    "Comparison",
    "check",
    "plan",
    "run",
    "load",
    "predict",
    "compare",
    "frontier",
    "add_backbone",
    "show_backbone",
    "list_backbones",
    "Stop",
    "Watcher",
    "TestPrediction",
)


def sdk() -> str:
    """Write the page of the names of `retrainer`, with signatures and docstrings."""
    parts = [
        "# Python SDK\n\n`AsyncClient` and `AsyncJob` have the same methods, awaited. "
        "Every name below is in `retrainer`.\n"
    ]
    for name in SDK:
        thing = getattr(retrainer, name)
        parts.append(_entry(f"## {name}", thing))
        for method, member in _members(thing).items() if inspect.isclass(thing) else ():
            if not method.startswith("_") and (callable(member) or isinstance(member, property)):
                parts.append(_entry(f"### {name}.{method}", member))
    return "".join(parts)


def _members(kind: type) -> dict[str, Any]:
    """What a class has of its own and from the classes of Retrainer that it is made of."""
    ours = [c for c in kind.__mro__ if c.__module__.startswith("retrainer")]
    return {name: member for each in reversed(ours) for name, member in vars(each).items()}


def _entry(heading: str, thing: Any) -> str:
    signature = ""
    if not isinstance(thing, property):
        what = re.sub(r"'([A-Za-z][^']*)'", r"\1", str(inspect.signature(thing)))
        # The name says what it is, the module does not.
        modules = r"\b(?:retrainer|_progress|collections|typing|pathlib)[\w.]*\.(?=[A-Z])"
        what = re.sub(modules, "", what)
        # Not what differs from one machine to the next.
        what = re.sub(r"<.* at 0x\w+>", "...", what).replace(sys.executable, "python")
        signature = f"\n```python\n{heading.rsplit(maxsplit=1)[-1]}{what}\n```\n"
    return f"\n{heading}\n{signature}\n```text\n{inspect.getdoc(thing) or ''}\n```\n"


PAGES = {
    "sdk.md": sdk,
    "retrainjob.md": retrainjob,
    "evaluation.md": evaluation,
    "preview.md": preview,
    "architectures.md": architectures,
    "reasons.md": reasons,
    "metrics.md": metrics,
    "cli.md": commands,
}


def main() -> int:
    """Write or check the pages."""
    files = {FOLDER / name: HEADER + page() for name, page in PAGES.items()}
    return write_or_check(files, "Write the reference pages that come from code.")


if __name__ == "__main__":
    sys.exit(main())
