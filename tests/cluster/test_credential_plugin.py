"""Credentials that a program gives (`users[].user.exec`), as on EKS, GKE and AKS."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.devcluster_client import DevCluster

from retrainer import Client
from retrainer.errors import UserError

pytestmark = pytest.mark.cluster


@pytest.fixture
def kubeconfig(control_plane: DevCluster, tmp_path: Path) -> Callable[[str], Path]:
    """A kubeconfig whose credentials a shell command prints; the admin's are in $CREDENTIAL."""
    config: dict[str, Any] = yaml.safe_load(control_plane.kubeconfig.read_text())
    user = config["users"][0]["user"]
    credential = tmp_path / "credential.json"
    status = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    form = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    credential.write_text(json.dumps({**form, "status": status}))

    def write(script: str) -> Path:
        config["users"][0]["user"] = {
            "exec": {
                "apiVersion": form["apiVersion"],
                "command": "sh",
                "args": ["-c", script],
                "env": [{"name": "CREDENTIAL", "value": str(credential)}],
                "interactiveMode": "Never",
            }
        }
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def test_a_program_gives_the_credentials(kubeconfig: Callable[[str], Path]) -> None:
    client = Client("default", kubeconfig=kubeconfig('cat "$CREDENTIAL"'))
    assert [job.name for job in client.list()] == []


def test_a_program_that_gives_none_is_told(
    kubeconfig: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError, match=r"The kubeconfig .*config gives no credentials: its .*code 3\.$"
    ):
        Client(kubeconfig=kubeconfig("exit 3"))
    assert capfd.readouterr().err == ""
