"""Client: create, list, watch and change RetrainJobs, and how refusals read."""

import inspect
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_apiserver import Answer, FakeApiServer, refused

import retrainer
from retrainer.cluster.aio import AsyncClient, AsyncJob
from retrainer.cluster.client import Client
from retrainer.cluster.connection import unreachable
from retrainer.cluster.job import Job
from retrainer.cluster.requests import Cluster
from retrainer.errors import (
    AlreadyExists,
    ClusterError,
    Forbidden,
    InvalidJob,
    NotFound,
    UserError,
)


def manifest(name: str = "flowers", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": name},
        "spec": {
            "architecture": "mobilenet_0.50_160",
            "images": "s3://photos/flowers",
            "output": "s3://models/flowers",
            **spec,
        },
    }


@pytest.fixture
def server() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
def client(server: FakeApiServer) -> Client:
    return Client._on(Cluster(server))


def test_submit_sends_what_was_set_and_asks_for_strict_validation(
    server: FakeApiServer, client: Client
) -> None:
    job = client.submit(manifest(training={"steps": 500}))
    assert (job.name, job.namespace, job.phase) == ("flowers", "default", "Pending")
    method, path, query = server.requests[0]
    assert method == "POST"
    assert path == "/apis/retrainer.dev/v1alpha1/namespaces/default/retrainjobs"
    assert query["fieldValidation"] == "Strict"
    sent = server.objects["retrainjobs"]["default", "flowers"]
    assert sent["spec"]["training"] == {"steps": 500}
    assert "shards" not in sent["spec"], "defaults are the server's to fill in"


def test_a_field_changed_after_the_job_was_made_is_sent(
    server: FakeApiServer, client: Client
) -> None:
    job = retrainer.RetrainJob.model_validate(manifest())
    job.spec.training.steps = 123
    client.submit(job)
    assert server.objects["retrainjobs"]["default", "flowers"]["spec"]["training"]["steps"] == 123


def test_submit_takes_a_path_and_the_namespace_of_the_file(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "apiVersion: retrainer.dev/v1alpha1\nkind: RetrainJob\n"
        "metadata: {name: birds, namespace: zoo}\n"
        "spec: {architecture: inception_v3, images: 's3://photos/birds', output: 's3://models/b'}\n"
    )
    assert client.submit(file).namespace == "zoo"
    assert client.submit(file, namespace="lab").namespace == "lab"


def test_the_same_job_twice_is_one_job(client: Client) -> None:
    first = client.submit(manifest(training={"steps": 4000}))
    second = client.submit(manifest(shards=1))  # both are defaults written out
    assert first.uid == second.uid


def test_the_same_name_with_another_spec_names_the_fields(client: Client) -> None:
    client.submit(manifest())
    with pytest.raises(AlreadyExists) as error:
        client.submit(manifest(shards=4, training={"steps": 500}, cache="s3://cache/x"))
    assert str(error.value) == (
        "RetrainJob flowers exists in namespace default with another spec: spec.cache is unset, not "
        "s3://cache/x; spec.shards is 1, not 4; spec.training.steps is 4000, not 500. Delete it, or "
        "give this one another name."
    )


def test_a_job_that_is_still_being_deleted_is_not_taken_for_the_new_one(
    server: FakeApiServer, client: Client
) -> None:
    client.submit(manifest())
    document = server.objects["retrainjobs"]["default", "flowers"]
    document["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:06Z"
    with pytest.raises(AlreadyExists, match="still being deleted: submit it again once it is gone"):
        client.submit(manifest())


def test_a_wrong_field_is_refused_before_anything_is_sent(
    server: FakeApiServer, client: Client
) -> None:
    with pytest.raises(
        InvalidJob, match=r"spec.training.stps: unknown field; did you mean steps\?"
    ):
        client.submit(manifest(training={"stps": 5}))
    assert server.requests == []


def test_a_path_of_this_machine_is_refused_for_a_cluster(
    server: FakeApiServer, client: Client, tmp_path: Path
) -> None:
    with pytest.raises(InvalidJob, match=r"flowers: spec\.images: must be s3://"):
        client.submit(manifest(images=str(tmp_path)))
    assert server.requests == []


def test_the_servers_refusal_reads_as_one_sentence_per_field(
    server: FakeApiServer, client: Client
) -> None:
    causes = [
        {
            "field": "spec.shards",
            "message": "Invalid value: 0: spec.shards in body should be greater than or equal to 1",
        },
        {
            "field": "spec.split",
            "message": 'Invalid value: "object": percentages must leave images for training',
        },
        {"field": "spec.images", "message": "Required value"},
        {
            "field": "<nil>",
            "message": 'Invalid value: "null": some validation rules were not checked because ...',
        },
    ]
    server.fail("POST", refused(422, "RetrainJob is invalid: a lot of text", causes=causes))
    with pytest.raises(InvalidJob) as error:
        client.submit(manifest())
    assert error.value.problems == [
        "spec.shards: should be greater than or equal to 1, got 0",
        "spec.split: percentages must leave images for training",
        "spec.images: is required",
    ]


def test_a_field_that_only_the_server_does_not_know_is_named(
    server: FakeApiServer, client: Client
) -> None:
    message = 'strict decoding error: unknown field "spec.sampling", unknown field "spec.x"'
    server.fail("POST", refused(400, message, reason="BadRequest"))
    with pytest.raises(InvalidJob) as error:
        client.submit(manifest())
    assert error.value.problems == ["spec.sampling: unknown field", "spec.x: unknown field"]


def test_forbidden_names_the_verb_and_the_resource(server: FakeApiServer, client: Client) -> None:
    message = 'User "ann" cannot list resource "retrainjobs" in API group "retrainer.dev"'
    server.fail("GET", refused(403, message, reason="Forbidden"))
    with pytest.raises(Forbidden) as error:
        client.list()
    assert str(error.value) == (
        f"Not allowed to list retrainjobs.retrainer.dev in namespace default: {message}."
    )
    assert error.value.exit_code == 1


def test_expired_credentials_say_to_log_in(server: FakeApiServer, client: Client) -> None:
    server.fail("GET", refused(401, "Unauthorized"))
    with pytest.raises(Forbidden, match=r"refused these credentials.*log in again"):
        client.get("flowers")


def test_a_wrong_selector_is_named(server: FakeApiServer, client: Client) -> None:
    server.fail("GET", refused(400, "found '=', expected: ','", reason="BadRequest"))
    with pytest.raises(UserError) as error:
        client.list(label_selector="a=b=c")
    assert str(error.value) == "The label selector cannot be read: found '=', expected: ','."


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (": CERTIFICATE_VERIFY_FAILED] certificate has expired", "its certificate has expired."),
        (
            ": CERTIFICATE_VERIFY_FAILED] certificate is not valid for '127.0.0.1'",
            "its certificate is for another host name.",
        ),
        (
            ": CERTIFICATE_VERIFY_FAILED] self-signed certificate",
            "its certificate is not signed by the kubeconfig's authority.",
        ),
        ("] PEM lib (_ssl.c:3905)", "the kubeconfig's certificate or key cannot be read."),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(message: str, why: str) -> None:
    assert str(unreachable("https://c", ssl.SSLError(f"[SSL{message}"))).endswith(
        f"https://c: {why}"
    )


def test_an_unreachable_server_is_named(server: FakeApiServer, client: Client) -> None:
    refusal = ConnectionRefusedError("[Errno 111] Connection refused")
    server.fail("GET", unreachable("https://10.0.0.1:6443", refusal))
    with pytest.raises(ClusterError) as error:
        client.get("flowers")
    assert str(error.value) == (
        "Cannot reach the Kubernetes API server https://10.0.0.1:6443: connection refused "
        "(is it running?)."
    )


def test_a_cluster_without_the_definition_says_to_install_retrainer(
    server: FakeApiServer, client: Client
) -> None:
    server.fail("GET", Answer(404, b"404 page not found"))
    with pytest.raises(ClusterError, match="has no RetrainJobs: install Retrainer there first"):
        client.list()


def test_a_missing_job_and_a_missing_namespace_are_told_apart(
    server: FakeApiServer, client: Client
) -> None:
    with pytest.raises(NotFound, match=r"^No RetrainJob flowers in namespace default\.$"):
        client.get("flowers")
    server.fail(
        "POST", refused(404, 'namespaces "default" not found', name="default", kind="namespaces")
    )
    with pytest.raises(NotFound, match=r"^No namespace default at https://fake\.$"):
        client.submit(manifest())


def test_list_filters_by_phase_and_label_oldest_first(
    server: FakeApiServer, client: Client
) -> None:
    for name, day, team in (("b", 2, "x"), ("a", 3, "x"), ("c", 1, "y")):
        server.now = f"2026-01-0{day}T00:00:00Z"
        document = manifest(name)
        document["metadata"]["labels"] = {"team": team}
        server.put("retrainjobs", document)
    server.status("a", phase="Succeeded")
    assert [job.name for job in client.list()] == ["c", "b", "a"]
    assert [job.name for job in client.list(label_selector="team=x")] == ["b", "a"]
    assert [job.name for job in client.list("Succeeded")] == ["a"]
    assert [job.name for job in client.list(phase="Pending", label_selector="team=y")] == ["c"]


def test_an_unknown_phase_names_the_known_ones(client: Client) -> None:
    with pytest.raises(UserError, match="There is no phase 'Done': give one of Pending, Suspended"):
        client.list("Done")


def test_a_long_list_is_read_in_pages(server: FakeApiServer, client: Client) -> None:
    for i in range(1100):
        server.put("retrainjobs", manifest(f"job-{i:04d}"))
    assert len(client.list()) == 1100
    assert [q.get("continue") for _, _, q in server.requests] == [None, "500", "1000"]


def test_a_job_of_another_version_does_not_break_the_list(
    server: FakeApiServer, client: Client
) -> None:
    odd = manifest("odd", newField=1, architecture="resnet_9000")
    odd["status"] = {"phase": "Training", "newStatus": {"a": 1}}
    server.put("retrainjobs", odd)
    server.put("retrainjobs", manifest("plain"))
    jobs = client.list()
    assert [(job.name, job.phase) for job in jobs] == [("odd", "Training"), ("plain", "Pending")]
    with pytest.raises(InvalidJob, match=r"spec\.newField: unknown field"):
        _ = jobs[0].spec


def test_watch_tells_what_is_there_and_then_each_change(
    server: FakeApiServer, client: Client
) -> None:
    client.submit(manifest("one"))
    changes = client.watch(timeout=20)
    first = next(changes)
    assert (first.kind, first.job.name) == ("Added", "one")
    server.status("one", phase="Training")
    second = next(changes)
    assert (second.kind, second.job.phase) == ("Modified", "Training")
    server.remove("retrainjobs", "one")
    assert next(changes).kind == "Deleted"


def test_suspend_and_resume_patch_only_that_field(server: FakeApiServer, client: Client) -> None:
    client.submit(manifest())
    assert client.suspend("flowers").to_dict()["spec"]["suspend"] is True
    assert client.resume("flowers").to_dict()["spec"]["suspend"] is False


def test_a_finished_job_cannot_be_suspended(server: FakeApiServer, client: Client) -> None:
    client.submit(manifest())
    server.status("flowers", phase="Succeeded")
    with pytest.raises(UserError, match=r"flowers has ended \(Succeeded\) and cannot be suspended"):
        client.suspend("flowers")


def test_delete_removes_the_job(client: Client) -> None:
    client.submit(manifest())
    client.delete("flowers")
    with pytest.raises(NotFound):
        client.delete("flowers")


@pytest.mark.parametrize(("sync", "later"), [(Client, AsyncClient), (Job, AsyncJob)])
def test_the_asynchronous_form_has_the_same_methods_with_the_same_arguments(
    sync: type, later: type
) -> None:
    def public(kind: type) -> dict[str, Any]:
        return {n: m for n, m in vars(kind).items() if not n.startswith("_") and callable(m)}

    def arguments(method: Any) -> list[str]:
        return [p for p in inspect.signature(method).parameters if p != "stop"]

    sync_methods, async_methods = public(sync), public(later)
    assert sync_methods.keys() == async_methods.keys()
    assert {n: arguments(m) for n, m in sync_methods.items()} == {
        n: arguments(m) for n, m in async_methods.items()
    }
    properties = {n for n, m in vars(sync).items() if isinstance(m, property)}
    assert properties <= {n for n, m in vars(later).items() if isinstance(m, property)}
