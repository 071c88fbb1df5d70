"""frontier: one job per architecture."""

import threading
from pathlib import Path

import pytest
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run

from retrainer import frontier
from retrainer.api import Export, RetrainJob, parse_job
from retrainer.cluster.client import Client
from retrainer.cluster.requests import Cluster
from retrainer.errors import InvalidJob, JobFailed, UserError
from retrainer.sweep import jobs_for, jobs_for_backbones, matching


def base(name: str = "flowers", weights: str = "imagenet") -> RetrainJob:
    return parse_job({
        "apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob", "metadata": {"name": name},
        "spec": {"architecture": "mobilenet_0.50_160", "images": "s3://photos/flowers",
                 "output": "s3://models/flowers", "weights": weights},
    })  # fmt: skip


def test_a_pattern_matches_the_plain_names_cheapest_first() -> None:
    names = matching("mobilenet_*")
    assert len(names) == 16
    assert names[0] == "mobilenet_0.25_128"
    assert names[-1] == "mobilenet_1.0_224"


def test_several_patterns_and_quantized_names() -> None:
    assert matching("mobilenet_1.0_*_quantized, inception_v3")[-1] == "inception_v3"
    assert matching(["mobilenet_0.25_128", "mobilenet_0.25_128"]) == ["mobilenet_0.25_128"]


def test_a_pattern_that_matches_nothing_says_where_the_names_are() -> None:
    with pytest.raises(UserError, match="No architecture matches 'resnet_\\*'") as caught:
        matching("mobilenet_*,resnet_*")
    assert caught.value.command == "retrainer architectures lists them."


def test_each_job_has_its_own_name_and_the_same_everything_else() -> None:
    jobs = jobs_for(base(), ["mobilenet_0.25_128", "inception_v3"])
    assert [j.name for j in jobs] == ["flowers-mobilenet-025-128", "flowers-inception-v3"]
    assert [j.spec.architecture for j in jobs] == ["mobilenet_0.25_128", "inception_v3"]
    assert {j.spec.images for j in jobs} == {"s3://photos/flowers"}


def test_each_backbone_has_a_job_in_its_own_format() -> None:
    job = base(weights="s3://weights/mobilenets").model_copy(deep=True)
    job.spec.export = [Export.KERAS]
    jobs = jobs_for_backbones(
        job,
        ["s3://networks/vit_s,token=cls,size=448", {"url": "s3://networks/vit_s", "token": "mean"},
         "s3://networks/Lite.0/model.onnx", "s3://other/Lite.0"],
    )  # fmt: skip
    assert [j.name for j in jobs] == [
        "flowers-vit-s-cls", "flowers-vit-s-mean", "flowers-lite-0", "flowers-lite-0x",
    ]  # fmt: skip
    assert jobs[0].spec.backbone is not None
    assert jobs[0].spec.backbone.dump() == {
        "url": "s3://networks/vit_s", "token": "cls", "size": 448,
    }  # fmt: skip
    for one in jobs:
        assert (one.spec.architecture, one.spec.weights, one.spec.export) == (
            None,
            "imagenet",
            None,
        )
        parse_job(one.dump())


def test_a_wrong_field_of_a_backbone_is_named() -> None:
    with pytest.raises(InvalidJob, match="must be 'cls' or 'mean', got 'first'"):
        jobs_for_backbones(base(), ["s3://networks/vit_s,token=first"])


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(UserError, match=r"Give architectures or backbones to compare\."):
        frontier(base())


def test_a_long_name_is_cut_to_what_kubernetes_allows() -> None:
    (job,) = jobs_for(base("a" * 46), ["mobilenet_0.25_128_quantized"])
    assert len(job.name) == 46
    assert job.name.endswith("-mobilenet-025-128-quantized")


def test_builtin_weights_are_refused_for_other_architectures() -> None:
    job = base().model_copy(deep=True)
    job.spec.weights = "builtin"
    with pytest.raises(UserError, match=r"The weights builtin exist only for mobilenet_0.25_128"):
        jobs_for(job, ["mobilenet_0.25_128", "mobilenet_1.0_224"])


def test_the_jobs_are_submitted_waited_for_and_compared(tmp_path: Path) -> None:
    server = FakeApiServer()
    client = Client._on(Cluster(server))
    ends = {
        "flowers-mobilenet-025-128": (range(9), "mobilenet_0.25_128"),
        "flowers-mobilenet-050-128": (range(3), "mobilenet_0.50_128"),
    }
    for name, (wrong, network) in ends.items():
        write_run(tmp_path / name, wrong, name=name, architecture=network)

    def operate() -> None:
        server.wait_for_watch()
        for name in ends:
            server.status(name, phase="Succeeded", run=str(tmp_path / name), message="done.")
        server.status(
            "flowers-mobilenet-075-128", phase="Failed", reason="OOMKilled", message="Too large."
        )

    operator = threading.Thread(target=operate)
    operator.start()
    lines: list[str] = []
    names = "mobilenet_0.25_128,mobilenet_0.50_128,mobilenet_0.75_128"
    result = frontier(base(), names, client, timeout=20, log=lines.append)
    operator.join()
    assert [row.architecture for row in result.rows] == ["mobilenet_0.50_128", "mobilenet_0.25_128"]
    assert result.notes[0] == "Left out: flowers-mobilenet-075-128: Too large."
    assert "run side by side" in result.notes[1], "what their images per second are worth"
    assert lines[0] == "submitted 3 jobs to default"


def test_when_every_job_fails_so_does_the_frontier() -> None:
    server = FakeApiServer()
    client = Client._on(Cluster(server))
    client.submit(jobs_for(base(), ["inception_v3"])[0])
    server.status("flowers-inception-v3", phase="Failed", message="No images.")
    with pytest.raises(JobFailed) as caught:
        frontier(base(), "inception_v3", client)
    assert str(caught.value) == (
        "No job of the frontier succeeded:\n  flowers-inception-v3: No images."
    )
