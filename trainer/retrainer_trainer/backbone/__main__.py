"""`python -m retrainer_trainer.backbone REQUEST`: makes a backbone's folder, or says what one holds.

Started by `retrainer backbone`. REQUEST is a JSON object whose `do` is one of `_ACTIONS`; what is said
goes to standard output as JSON lines, each one of `{"log": "..."}`, `{"result": {...}}` and
`{"error": "...", "reason": "..."}`. Exit codes as the trainer's.
"""

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from retrainer.api import BackboneSource, RetrainJobSpec, Storage
from retrainer.api.names import EXIT_USER
from retrainer.api.networks import NetworkFacts, NetworkOutput
from retrainer.api.parsing import problems
from retrainer.errors import RetrainerError, UserError
from retrainer.inference.pixels import RejectedError
from retrainer.inference.silence import quiet_environment
from retrainer_trainer.backbone.facts import Graph
from retrainer_trainer.store.opening import open_store

quiet_environment()

Say = Callable[..., None]

_SHOWN = 5
"""Numbers of a bottleneck that are shown."""


def main(request: str) -> int:
    """Do what the request asks; returns the exit code."""
    # Libraries print to standard output: what is said for the reader goes to a copy of it.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        print(json.dumps(event), file=lines, flush=True)

    wanted = json.loads(request)
    try:
        say(result=_ACTIONS[wanted["do"]](wanted, say))
    except RetrainerError as error:
        say(error=str(error), reason=error.reason)
        return error.exit_code
    except Exception as error:  # said in a sentence; the traceback is for a report
        traceback.print_exc()
        say(error=f"{type(error).__name__}: {error}", reason="InternalError")
        return 1
    return 0


def add(wanted: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Write the folder of a network of Keras Applications."""
    from retrainer_trainer.backbone import keras_applications

    store = open_store(wanted["to"], Storage.model_validate(wanted["storage"]), "--to")
    folder = keras_applications.make_files(
        wanted["name"], wanted["weights"], wanted["size"], lambda text: say(log=text)
    )
    for name, body in folder.files.items():
        store.put(name, body)
    facts = graph_facts(folder.graph)
    facts.name, facts.url, facts.size = folder.name, wanted["to"], folder.size
    facts.files = {name: len(body) for name, body in folder.files.items()}
    (output,) = folder.graph.outputs
    facts.output, facts.bottleneck = output.name, output.shape[1] or 0
    return facts.model_dump(by_alias=True)


def show(wanted: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Say what a network's folder or file holds, and run it on an image."""
    from retrainer_trainer.backbone.given import open_given

    spec, source = _spec(wanted)

    def warn(text: str) -> None:
        say(log=text)

    with tempfile.TemporaryDirectory(prefix="retrainer-") as scratch:
        cache = open_store(scratch, Storage(), "spec.cache")
        backbone = open_given(spec, source, cache, warn, warn)
        engine = backbone.start()  # which refuses a network that gives no numbers
    facts = graph_facts(backbone.network.graph)
    facts.name, facts.url = backbone.name, wanted["backbone"]["url"]
    facts.files = {backbone.origin: len(backbone.network.body)}
    facts.size, facts.layout = backbone.size, backbone.network.preprocessing.layout
    facts.output, facts.bottleneck = backbone.network.output, backbone.width
    facts.preprocessing, facts.runs_on = backbone.network.preprocessing.to_dict(), backbone.runs_on
    if wanted["image"] is not None:
        path = Path(wanted["image"])
        try:
            pixels = backbone.pixels(path.read_bytes(), backbone.size)
        except RejectedError as error:
            raise UserError(f"{path}: {error}.") from error
        started = time.monotonic()
        (bottleneck,) = engine([pixels])
        facts.seconds = time.monotonic() - started
        facts.start = [round(float(number), 4) for number in bottleneck[:_SHOWN]]
        facts.norm = float(np.linalg.norm(bottleneck))
    return facts.model_dump(by_alias=True)


def _spec(wanted: Mapping[str, Any]) -> tuple[RetrainJobSpec, BackboneSource]:
    """A job of this backbone alone; nothing else of it is read."""
    try:
        source = BackboneSource.model_validate(wanted["backbone"])
    except ValidationError as error:
        raise UserError("\n".join(problems(error, BackboneSource))) from error
    spec = RetrainJobSpec.model_validate(
        {
            "images": "photos",
            "output": "out",
            "backbone": source.dump(),
            "storage": wanted["storage"],
        }
    )
    return spec, source


def graph_facts(graph: Graph) -> NetworkFacts:
    """What a file says of itself, as `retrainer backbone` shows it."""
    return NetworkFacts(
        name="",
        url="",
        format=graph.format,
        size=graph.size or 0,
        layout=graph.layout or "",
        outputs=[
            NetworkOutput(name=output.name, shape=list(output.shape), dtype=output.dtype)
            for output in graph.outputs
        ],
        multiply_adds=graph.multiply_adds,
        parameters=graph.parameters,
    )


_ACTIONS: dict[str, Callable[[Mapping[str, Any], Say], dict[str, Any]]] = {"add": add, "show": show}


if __name__ == "__main__":
    code = main(sys.argv[1]) if len(sys.argv) > 1 else EXIT_USER
    sys.stdout.flush()
    os._exit(code)
