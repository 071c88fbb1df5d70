"""What `retrainer` says, and exits with, where a real cluster cannot do what was asked."""

import pytest
from tests.support.installation import Installation
from tests.support.terminal import Terminal

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def suspended_file(shell: Terminal, team: Installation) -> str:
    """A file with a job that is there, suspended."""
    document = team.manifest("held", {"suspend": True})
    file = shell.write("held.yaml", document)
    shell("submit", "-f", file)
    return file


LOST = {
    "apiVersion": "retrainer.dev/v1alpha1",
    "kind": "RetrainJob",
    "metadata": {"name": "lost"},
    "spec": {
        "architecture": "mobilenet_0.25_128",
        "images": "s3://photos/digits",
        "output": "s3://models/lost",
    },
}
ABOUT_ONE_JOB = [
    ["get", "nothing"],
    ["describe", "nothing"],
    ["wait", "nothing"],
    ["logs", "nothing"],
    ["metrics", "nothing"],
    ["plot", "nothing"],
    ["compare", "nothing"],
    ["download", "nothing"],
    ["suspend", "nothing"],
    ["resume", "nothing"],
    ["delete", "nothing"],
    ["predict", "rj/nothing", "photo.jpg"],
    ["tensorboard", "rj/nothing"],
]


@pytest.mark.parametrize("arguments", ABOUT_ONE_JOB, ids=lambda arguments: arguments[0])
def test_a_job_that_is_not_there_is_one_sentence(
    shell: Terminal, team: Installation, arguments: list[str]
) -> None:
    output = shell(*arguments, code=64)
    assert output.out == ""
    no_job = f"error: No RetrainJob nothing in namespace {team.namespace}."
    where_a_run_may_stand = {"describe", "metrics", "plot", "compare", "download"}
    no_run = (
        " There is no folder nothing here either." if arguments[0] in where_a_run_may_stand else ""
    )
    assert output.err == f"{no_job}{no_run}\n"


def test_a_namespace_that_is_not_there_is_named(shell: Terminal) -> None:
    file = shell.write("lost.yaml", LOST)
    assert "error: No namespace nowhere at https://" in shell(
        "submit", "-f", file, "-n", "nowhere", code=64
    ).err  # fmt: skip


def test_an_api_server_that_cannot_be_reached_is_named(shell: Terminal) -> None:
    shell.add_context("nowhere", server="https://127.0.0.1:1")
    for arguments in (["get"], ["get", "-w"], ["describe", "held"], ["logs", "held", "-f"]):
        output = shell(*arguments, "--context", "nowhere", code=1)
        assert output.err == (
            "error: Cannot reach the Kubernetes API server https://127.0.0.1:1: connection refused "
            "(is it running?).\n"
        )
    unknown = shell("get", "--context", "elsewhere", code=64)
    assert "error: No context elsewhere in " in unknown.err
    assert "nowhere" in unknown.err.split("it has: ")[1]


@pytest.fixture(scope="module")
def reader(shell: Terminal, team: Installation) -> str:
    """A context of somebody who may look at jobs, and no more."""
    team.kubectl("create", "serviceaccount", "reader")
    team.kubectl(
        "create", "role", "reader", "--verb=get,list,watch", "--resource=retrainjobs.retrainer.dev"
    )
    team.kubectl(
        "create", "rolebinding", "reader", "--role=reader",
        f"--serviceaccount={team.namespace}:reader",
    )  # fmt: skip
    shell.add_context("reader", token=team.kubectl("create", "token", "reader").strip())
    return "reader"


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ("logs held", "list pods"),
        ("describe held", "list events"),
        ("suspend held", "patch retrainjobs.retrainer.dev"),
        ("resume held", "patch retrainjobs.retrainer.dev"),
        ("delete held", "delete retrainjobs.retrainer.dev"),
        ("submit -f held.yaml", "create retrainjobs.retrainer.dev"),
    ],
)
def test_a_person_without_the_right_is_told_the_verb_and_the_resource(
    shell: Terminal, suspended_file: str, reader: str, arguments: str, refused: str
) -> None:
    assert "held" in shell("get", "--context", reader).out
    output = shell(*arguments.split(), "--context", reader, code=1)
    last = output.err.splitlines()[-1]
    assert last.startswith(f"error: Not allowed to {refused} in namespace team-")
    assert "system:serviceaccount:team-" in last


def test_someone_who_may_not_even_look_is_told_so(shell: Terminal, reader: str) -> None:
    output = shell("get", "-A", "--context", reader, code=1)
    assert output.err.startswith(
        "error: Not allowed to list retrainjobs.retrainer.dev in all namespaces: "
    )
