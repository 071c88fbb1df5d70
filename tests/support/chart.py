"""The chart and the CRD, for tests: rendered by helm, installed into a development cluster."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support import devcluster_tool
from tests.support.devcluster_client import DevCluster

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "retrainer"
WITH_IMAGES = (
    str(CHART),
    "--set=operator.image.repository=retrainer/operator",
    "--set=trainer.image.repository=retrainer/trainer",
)
"""The chart with the values that it cannot do without, as arguments of helm."""


@dataclass(frozen=True)
class Answer:
    """Exit code, output and error output of a command."""

    code: int
    out: str
    err: str


def kubectl(cluster: DevCluster, *arguments: str, stdin: str | None = None) -> Answer:
    """Run kubectl; a refusal is an answer too, not an error."""
    return _run(
        cluster.kubectl_program, "--kubeconfig", str(cluster.kubeconfig), *arguments, stdin=stdin
    )


def get(cluster: DevCluster, *arguments: str) -> Any:
    """`kubectl get ... -o json`, parsed."""
    return json.loads(cluster.kubectl("get", *arguments, "-o", "json"))


def helm(*arguments: str, cluster: DevCluster | None = None) -> Answer:
    """Run helm, of the development cluster's pinned version."""
    where = ["--kubeconfig", str(cluster.kubeconfig)] if cluster else []
    return _run(_helm(), *arguments, *where)


def helm_well(*arguments: str, cluster: DevCluster | None = None) -> str:
    """Run helm, which has to succeed; return what it printed."""
    answer = helm(*arguments, cluster=cluster)
    assert answer.code == 0, f"helm {' '.join(arguments)}: {answer.err}{answer.out}"
    return answer.out


def rendered(*arguments: str, release: str = "rt", namespace: str = "retrainer") -> list[Any]:
    """The objects that the chart makes of these values."""
    text = helm_well("template", release, *WITH_IMAGES, "--namespace", namespace, *arguments)
    return [document for document in yaml.safe_load_all(text) if document]


def install_crd(cluster: DevCluster) -> None:
    """Install the CRD that tools/crd.py generates; when this returns, RetrainJobs are accepted."""
    tool = [sys.executable, str(REPOSITORY / "tools" / "crd.py"), "--plain"]
    crd = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd)
    until_established(cluster)


def until_established(cluster: DevCluster) -> None:
    """Wait until every custom resource that is defined is served."""
    wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]
    end = time.monotonic() + 60
    # kubectl wait fails at once on a definition that has no conditions yet.
    while (answer := kubectl(cluster, *wait)).code != 0:
        assert time.monotonic() < end, answer.err


@functools.cache
def _helm() -> str:
    """The path of helm, which is built when it is missing (this takes minutes)."""
    return str(devcluster_tool.binary("helm"))


def _run(*command: str, stdin: str | None = None) -> Answer:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)
