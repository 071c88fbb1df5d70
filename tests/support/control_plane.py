"""A real API server for the tests of the CRD and of the chart.

The cluster that KUBECONFIG names, else a development cluster of the tests' own: the control plane, and
simulated nodes where asked for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
_DEVCLUSTER = REPOSITORY / "tests" / "cluster" / "devcluster"
CHART = REPOSITORY / "charts" / "retrainer"


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class ControlPlane:
    """A cluster by its kubeconfig."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; it has to succeed."""
        answer = self.try_kubectl(*arguments, stdin=stdin)
        assert answer.code == 0, f"kubectl {' '.join(arguments)}: {answer.err}"
        return answer.out

    def try_kubectl(self, *arguments: str, stdin: str | None = None) -> Answer:
        """The same for what may be refused."""
        return run("kubectl", "--kubeconfig", str(self.kubeconfig), *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def helm(self, *arguments: str) -> str:
        """What helm prints; it has to succeed."""
        answer = run("helm", *arguments, "--kubeconfig", str(self.kubeconfig))
        assert answer.code == 0, f"helm {' '.join(arguments)}: {answer.err}{answer.out}"
        return answer.out

    def install_crd(self) -> None:
        """As tools/crd.py generates it; RetrainJobs are accepted when this returns."""
        crd = subprocess.run(
            [sys.executable, REPOSITORY / "tools" / "crd.py", "--plain"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd.stdout)
        self.kubectl(
            "wait", "--for=condition=Established", "--timeout=60s", "crd/retrainjobs.retrainer.dev"
        )


@contextlib.contextmanager
def control_plane(name: str, simulated_nodes: int = 0) -> Iterator[ControlPlane]:
    """Up while the block runs; a given cluster is left as it is."""
    given = os.environ.get("KUBECONFIG")
    if given:
        yield ControlPlane(Path(given))
        return
    size = ["--kwok", str(simulated_nodes)] if simulated_nodes else []
    path = _devcluster("up", "--name", name, *size).strip().splitlines()[-1]
    try:
        yield ControlPlane(Path(path))
    finally:
        _devcluster("down", "--name", name)


def run(binary: str, *arguments: str, stdin: str | None = None) -> Answer:
    """Run kubectl or helm of the development cluster's pinned versions."""
    done = subprocess.run(
        [binaries()[binary], *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def rendered(*arguments: str, release: str = "rt", namespace: str = "retrainer") -> list[Any]:
    """The objects that the chart makes of these values."""
    answer = run("helm", "template", release, str(CHART), "--namespace", namespace, *arguments)
    assert answer.code == 0, answer.err
    return [document for document in yaml.safe_load_all(answer.out) if document]


@functools.cache
def binaries() -> dict[str, str]:
    """Paths of kubectl and helm, built when missing (minutes, the first time)."""
    lines = _devcluster("binaries", "kubectl", "helm").splitlines()
    return dict(line.split("\t") for line in lines if "\t" in line)


def _devcluster(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(_DEVCLUSTER), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"devcluster {' '.join(arguments)} failed, see above"
    return done.stdout
