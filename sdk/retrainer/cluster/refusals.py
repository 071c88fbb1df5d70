"""Turns an API server's refusal (HTTP status and Status object) into one of `retrainer.errors`."""

import json
import re
from dataclasses import dataclass
from typing import Any

from retrainer.errors import (
    ClusterError,
    Forbidden,
    InvalidJob,
    NotFound,
    RetrainerError,
    UserError,
)


class Gone(ClusterError):
    """The version to watch from is too old (410): list again."""


class Conflict(ClusterError):
    """Such an object exists, or it changed in between (409)."""


@dataclass(frozen=True)
class Asked:
    """What was asked of the server.

    Attributes:
        verb: as RBAC has it: get, list, watch, create, patch, delete.
        resource: plural with its group, such as `retrainjobs.retrainer.dev` or `pods/log`.
        namespace: "" for all.
        name: of the object, "" if none.
        server: URL of the API server.
    """

    verb: str
    resource: str
    namespace: str
    name: str
    server: str


def refusal(status: int, body: bytes, asked: Asked) -> RetrainerError:
    """Give the error for an answer whose HTTP status is 400 or more."""
    answer = _status_object(body)
    message = str(answer.get("message") or body.decode(errors="replace").strip() or status)
    where = f"in namespace {asked.namespace}" if asked.namespace else "in all namespaces"
    if status == 422 or (status == 400 and "strict decoding error" in message):
        return InvalidJob(_causes(answer) or _unknown_fields(message), where=asked.name)
    match status:
        case 400 if answer and asked.verb in {"list", "watch"}:
            error: RetrainerError = UserError(f"The label selector cannot be read: {message}.")
        case 401:
            error = Forbidden(
                f"The Kubernetes API server {asked.server} refused these credentials for "
                f"{asked.verb} {asked.resource}: log in again, or choose another context."
            )
        case 403:
            error = Forbidden(f"Not allowed to {asked.verb} {asked.resource} {where}: {message}.")
        case 404:
            error = _not_found(answer, asked, where, message)
        case 409:
            error = Conflict(message)
        case 410:
            error = Gone(message)
        case _:
            error = ClusterError(
                f"The Kubernetes API server {asked.server} answered {status} to {asked.verb} "
                f"{asked.resource}: {message}"
            )
    return error


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _not_found(answer: dict[str, Any], asked: Asked, where: str, message: str) -> RetrainerError:
    """Tell apart the three meanings of 404: no such object, no such namespace, no such kind."""
    details = answer.get("details") or {}
    if details.get("kind") == "namespaces":
        return NotFound(f"No namespace {details.get('name')} at {asked.server}.")
    if details.get("name"):
        title = {"retrainjobs.retrainer.dev": "RetrainJob"}.get(asked.resource, asked.resource)
        return NotFound(f"No {title} {asked.name or details['name']} {where}.")
    if asked.resource.startswith("retrainjobs"):
        return ClusterError(
            f"The cluster at {asked.server} has no RetrainJobs: install Retrainer there first "
            "(helm install retrainer charts/retrainer)."
        )
    return ClusterError(message)


# Matches `Invalid value: "string": what is wrong`, `Required value`, `Too long: may not be more ...`.
_CAUSE = re.compile(
    r"^(?P<kind>Invalid value|Unsupported value|Required value|Too long|Too many|Forbidden|Duplicate "
    r"value)(?:: (?P<value>\"(?:[^\"\\]|\\.)*\"|[^:\s]+))?(?:: (?P<detail>.*))?$",
    re.DOTALL,
)
# The server writes the type instead of the value where a CEL rule refuses an object.
_TYPES = {'"object"', '"string"', '"integer"', '"number"', '"array"', '"boolean"', "null"}


def _causes(answer: dict[str, Any]) -> list[str]:
    """Write one sentence per cause, each starting with the field's YAML path."""
    causes = (answer.get("details") or {}).get("causes") or []
    sentences = []
    for cause in causes:
        message = str(cause.get("message", ""))
        # The server adds this cause whenever a field's own check failed; it says nothing more.
        if "some validation rules were not checked" in message:
            continue
        field = str(cause.get("field") or "").replace("<nil>", "")
        sentence = _cause(message)
        sentences.append(f"{field}: {sentence}" if field else sentence)
    return list(dict.fromkeys(sentences))


def _cause(message: str) -> str:
    match = _CAUSE.match(message)
    if not match:
        return message
    kind, value, detail = match["kind"], match["value"], match["detail"]
    if kind == "Required value":
        return detail or "is required"
    if not detail:
        return message[0].lower() + message[1:]
    detail = re.sub(r"^\S+ in body ", "", detail)
    if value and value not in _TYPES and ", got " not in detail:
        return f"{detail}, got {value}"
    return detail


def _unknown_fields(message: str) -> list[str]:
    fields = re.findall(r'unknown field "([^"]+)"', message)
    return [f"{field}: unknown field" for field in fields] or [message]
