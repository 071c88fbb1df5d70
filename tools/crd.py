"""Write the CustomResourceDefinition of the chart from `retrainer.api`.

python tools/crd.py            write charts/retrainer/templates/crd.yaml
python tools/crd.py --check    exit 1 with the difference when that file is out of date
python tools/crd.py --plain    print the same without Helm, for `kubectl apply -f -`
"""

import argparse
import difflib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from retrainer.api import RetrainJob, RetrainJobSpec, RetrainJobStatus
from retrainer.api.fields import inner_model
from retrainer.api.names import GROUP, KIND, PLURAL, SHORT, VERSION
from retrainer.api.rules import MUTABLE, RULES, VALIDATIONS, immutable
from retrainer.api.status import UNSEEN

TEMPLATE = Path(__file__).parent.parent / "charts" / "retrainer" / "templates" / "crd.yaml"

HEAD = """\
{{- /* Generated from retrainer.api by tools/crd.py: change that and run `make generate`. */ -}}
{{- if .Values.crds.install }}
"""
LABELS = '    {{- include "retrainer.labels" . | nindent 4 }}\n'
TAIL = "{{- end }}\n"

COLUMNS = [
    ("Phase", "string", ".status.phase", "Where the job is.", 0),
    ("Progress", "string", ".status.progress.complete", "Of the whole job.", 0),
    ("Accuracy", "string", ".status.metrics.accuracy", "On the test images.", 0),
    ("Cached", "string", ".status.progress.cached", "Of the bottlenecks.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was created.", 0),
    ("Architecture", "string", ".spec.architecture", "What is retrained.", 1),
    ("Backbone", "string", ".spec.backbone.url", "What is retrained, if of one's own.", 1),
    ("Output", "string", ".spec.output", "Where the run goes.", 1),
    ("Findings", "integer", ".status.findings.total", "Among its images.", 1),
    ("Message", "string", ".status.message", "Why it is there.", 1),
]

# What a structural schema takes over from pydantic's JSON schema as it is.
_KEPT = (
    "description", "type", "format", "enum", "required", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "maxProperties",
)  # fmt: skip
_EXTENSION = "x-kubernetes-"


def crd() -> dict[str, Any]:
    """Build the CustomResourceDefinition."""
    spec = structural(RetrainJobSpec.model_json_schema())
    add_defaults(spec, RetrainJobSpec)
    status = structural(RetrainJobStatus.model_json_schema())
    # A job that no operator sees would else be a line of blanks in `kubectl get`.
    status["default"] = UNSEEN.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    root = {
        "description": RetrainJob.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # Named, so that a rule can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec,
            "status": status,
        },
    }
    for rule in RULES:
        _at(root, rule.at).setdefault(VALIDATIONS, []).append(rule.schema)
    _keep(spec, except_for=MUTABLE)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "selectableFields": [
                        {"jsonPath": ".spec.architecture"},
                        {"jsonPath": ".status.phase"},
                    ],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _keep(schema: dict[str, Any], except_for: Collection[str] = ()) -> None:
    """Rules that every field of this object, which is always there, stays as it was created."""
    for name, inner in schema["properties"].items():
        if name in except_for:
            continue
        always_there = _always_there(schema, name)
        if always_there and any(_always_there(inner, f) for f in inner.get("properties", ())):
            _keep(inner)
            continue
        rule = immutable(name, always_there=always_there)
        (inner if always_there else schema).setdefault(VALIDATIONS, []).append(rule.schema)


def _always_there(schema: dict[str, Any], field: str) -> bool:
    return field in schema.get("required", ()) or "default" in schema["properties"][field]


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """Make a structural schema of pydantic's: no $ref, no null, no union but int-or-string."""
    return _structural(schema, schema.get("$defs", {}))


def _structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _flat(schema, definitions)
    result = {key: schema[key] for key in schema if key in _KEPT or key.startswith(_EXTENSION)}
    if "properties" in schema:
        result["properties"] = {
            name: _structural(inner, definitions) for name, inner in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
    return result


def _flat(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`schema` with what it refers to put in its place; its own keys win."""
    own = {k: v for k, v in schema.items() if k not in ("$ref", "anyOf")}
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return {**_flat(definitions[name], definitions), **own}
    if "anyOf" not in schema:
        return own
    kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**_flat(kinds[0], definitions), **own}
    if [kind["type"] for kind in kinds] != ["integer", "string"]:
        raise ValueError(f"no structural schema for a union of {kinds}")
    return {**own, "x-kubernetes-int-or-string": True}


def add_defaults(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the defaults of `model` into its structural schema.

    An object whose fields have defaults gets `{}`, else the API server would not look inside.
    """
    for name, field in model.model_fields.items():
        inner = schema["properties"][field.alias or name]
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            inner["default"] = {}
        elif default is not None and not field.is_required():
            inner["default"] = to_jsonable_python(default)
        nested = inner_model(field.annotation)
        if nested:
            add_defaults(inner.get("items", inner), nested)


def _at(root: dict[str, Any], path: str) -> dict[str, Any]:
    """Find the schema at a path such as `spec.pod.tolerations[]` (items) or `limits{}` (values)."""
    for name in filter(None, path.split(".")):
        root = root["properties"][name.rstrip("[]{}")]
        if name.endswith("[]"):
            root = root["items"]
        elif name.endswith("{}"):
            root = root["additionalProperties"]
    return root


def _column(name: str, kind: str, path: str, description: str, priority: int) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


class _Dumper(yaml.SafeDumper):
    """A dumper that writes no anchors, which are hard to read."""

    def ignore_aliases(self, *_: Any) -> bool:
        return True


def plain() -> str:
    """Write the CustomResourceDefinition as YAML."""
    return yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def template() -> str:
    """The definition as a template of the chart, with the chart's labels; a value leaves it out."""
    text = plain()
    if "{{" in text:
        raise ValueError("Helm would take {{ in a description for its own")
    head, spec = text.split("  annotations:\n", 1)
    return HEAD + head + "  labels:\n" + LABELS + "  annotations:\n" + spec + TAIL


def main() -> int:
    """Write, compare or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="exit 1 if the file is out of date")
    mode.add_argument("--plain", action="store_true", help="print without Helm")
    arguments = parser.parse_args()
    if arguments.plain:
        print(plain(), end="")
        return 0
    if not arguments.check:
        TEMPLATE.write_text(template())
        return 0
    current = TEMPLATE.read_text() if TEMPLATE.exists() else ""
    difference = difflib.unified_diff(
        current.splitlines(keepends=True),
        template().splitlines(keepends=True),
        "crd.yaml",
        "generated",
    )
    text = "".join(difference)
    if text:
        print(text, end="")
        print("charts/retrainer/templates/crd.yaml is out of date: run python tools/crd.py")
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main())
