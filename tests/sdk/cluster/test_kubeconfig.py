"""How a kubeconfig and the environment name the cluster, and the messages for their mistakes."""

from pathlib import Path

import pytest

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
    "text", [b"", b"[1, 2]", b"a: b: c", b"\xae\xff", KUBECONFIG.replace("token", "x: [").encode()]
)
def test_a_broken_kubeconfig_is_told_without_a_traceback(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "config"
    file.write_bytes(text)
    with pytest.raises(UserError, match=r"^The kubeconfig .* cannot be used: [^\n]+$"):
        Client(kubeconfig=file)


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
