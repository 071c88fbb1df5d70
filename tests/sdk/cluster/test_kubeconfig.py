"""How a kubeconfig and the environment name the cluster, and the messages for their mistakes."""

import json
from pathlib import Path

import pytest
import yaml

from retrainer.cluster.client import Client
from retrainer.errors import ClusterError, UserError


def test_a_kubeconfig_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No kubeconfig at .*nowhere.*set KUBECONFIG"):
        Client(kubeconfig=tmp_path / "nowhere")


KUBECONFIG = (
    "apiVersion: v1\nkind: Config\ncurrent-context: home\n"
    "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
    "users: [{name: u, user: {token: t}}]\n"
    "contexts: [{name: home, context: {cluster: c, user: u, namespace: mine}}]\n"
)


def test_a_context_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    with pytest.raises(UserError, match=r"No context work in .*; it has: home\."):
        Client(context="work", kubeconfig=file)
    assert Client(kubeconfig=file).namespace == "mine"
    with pytest.raises(
        ClusterError, match=r"Cannot reach .*https://127\.0\.0\.1:1: connection refused"
    ):
        Client(kubeconfig=file).list()


def test_a_kubeconfig_without_a_current_context_serves_those_who_name_one(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.replace("current-context: home\n", ""))
    assert Client(context="home", kubeconfig=file).namespace == "mine"
    with pytest.raises(UserError, match=r"^No current context in .*; it has: home\.$"):
        Client(kubeconfig=file)


def test_a_context_whose_user_is_not_there_is_refused_as_by_kubectl(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.replace("name: u,", "name: other,"))
    with pytest.raises(
        UserError, match=r"^Context home of .* names user u, which is not among its users\.$"
    ):
        Client(kubeconfig=file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it has not the form of a kubeconfig"),
        (b"[1, 2]", "it has not the form of a kubeconfig"),
        (b"a: b: c", "it is not YAML from line 1 on"),
        (b"\xae\xff", "it is not YAML"),
        (KUBECONFIG.replace("token", "x: [").encode(), "it is not YAML from line 5 on"),
        (KUBECONFIG.replace("cluster: c", "kluster: c").encode(), "cluster is missing in it"),
        (
            KUBECONFIG.replace("server", "certificate-authority: /nowhere, server").encode(),
            "it names /nowhere, which is missing",
        ),
        (
            KUBECONFIG.replace("server", "certificate-authority-data: x, server").encode(),
            "a certificate or key in it is not base64",
        ),
    ],
)
def test_a_broken_kubeconfig_is_told_in_words_of_ours(
    tmp_path: Path, text: bytes, why: str
) -> None:
    file = tmp_path / "config"
    file.write_bytes(text)
    with pytest.raises(UserError) as caught:
        Client(kubeconfig=file)
    assert str(caught.value) == f"The kubeconfig {file} cannot be used: {why}."


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("[nowhere-at-all]", "plugin nowhere-at-all cannot be started"),
        ("[sh, -c, 'exit 3']", "plugin ended with exit code 3"),
        ("[sh, -c, 'echo Log in. >&2; exit 3']", "plugin ended with exit code 3 and said: Log in"),
        ("[echo, hello]", "plugin gives nothing that is a credential"),
        ("[echo, '{}']", "plugin gives nothing that is a credential"),
    ],
)
def test_a_credential_plugin_that_fails_is_told(tmp_path: Path, command: str, why: str) -> None:
    program, *arguments = yaml.safe_load(command)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program,
        "args": arguments,
        "interactiveMode": "Never",
    }
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.replace("{token: t}", json.dumps({"exec": plugin})))
    with pytest.raises(UserError) as caught:
        Client(kubeconfig=file)
    assert str(caught.value) == f"The kubeconfig {file} gives no credentials: its credential {why}."


def test_a_pod_without_a_token_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(UserError, match=r"^This pod has no credentials .*mount its ServiceAccount"):
        Client()


def test_the_environments_proxy_is_not_for_this_machine_and_needs_no_scheme(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:9")
    file = tmp_path / "config"

    def message(old: str = "", new: str = "") -> str:
        file.write_text(KUBECONFIG.replace(old, new))
        with pytest.raises(ClusterError) as error:
            Client(kubeconfig=file).list()
        return str(error.value).partition(":1: ")[2]

    assert message() == "connection refused (is it running?)."
    proxy = "its proxy does not let this through (check HTTPS_PROXY and NO_PROXY)."
    assert message("127.0.0.1", "192.0.2.1") == proxy
    assert message("server:", "proxy-url: 'http://127.0.0.1:8', server:") == proxy
