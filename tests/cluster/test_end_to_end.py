"""Real photos through a real cluster: from `kubectl apply` to the network in the store."""

import io
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support.installation import Installation, kill_processes

import retrainer
from retrainer.api import RetrainJob
from retrainer.cli import main

pytestmark = pytest.mark.cluster
FLOWERS = 1498


def _guesses(table: bytes) -> dict[str, str]:
    rows = pq.read_table(io.BytesIO(table)).to_pylist()
    return {row["path"]: row["guess"] for row in rows}


def test_a_job_ends_in_the_same_guesses_as_the_local_run(
    here: Installation,
    flowers: Path,
    imagenet_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here.submit("flowers", training={"steps": 500, "seed": 7})
    status = here.complete("flowers")

    local = retrainer.run(
        RetrainJob.model_validate(
            here.manifest(
                "flowers",
                {
                    "images": str(flowers),
                    "output": str(tmp_path / "out"),
                    "weights": str(imagenet_weights),
                    "training": {"steps": 500, "seed": 7},
                    "storage": {},
                },
            )
        )
    )
    assert local.test_accuracy is not None
    assert local.test_accuracy > 0.8
    assert status["metrics"]["testAccuracy"] == pytest.approx(local.test_accuracy, abs=1e-4)
    on_cluster = _guesses(here.run_file(status, "predictions.parquet"))
    assert on_cluster == _guesses((Path(local.url) / "predictions.parquet").read_bytes())

    prefix = status["run"].removeprefix(f"s3://{here.bucket.name}/") + "/"
    keys = [key.removeprefix(prefix) for key in here.bucket.keys(prefix)]
    for artifact in status["artifacts"].values():
        assert any(key == artifact or key.startswith(f"{artifact}/") for key in keys), artifact
    assert {"result.json", "report.html", "labels.txt", "model.tflite"} <= set(keys)

    photo = next((flowers / "sunflowers").glob("*.jpg"))
    folder = tmp_path / "fetched"
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(here.bucket.read(prefix + key))
    assert main.run(main.build(), ["predict", str(folder), str(photo)]) == 0
    assert "sunflowers" in capsys.readouterr().out


def test_two_shards_give_the_same_head_and_a_second_job_computes_nothing(
    here: Installation,
) -> None:
    cache = f"s3://{here.bucket.name}/cache/{here.namespace}"
    here.submit("sharded", shards=2, cache=cache)
    sharded = here.complete("sharded")
    assert sharded["progress"]["imagesTotal"] == FLOWERS
    assert here.get("job", "sharded-bottlenecks")["status"]["succeeded"] == 2

    here.submit("alone", cache=f"{cache}-of-its-own")
    alone = here.complete("alone")
    heads = [here.run_file(status, "head.npz") for status in (sharded, alone)]
    assert heads[0] == heads[1]

    here.submit("again", cache=cache, training={"steps": 500, "learningRate": 0.02})
    second = here.complete("again")
    assert second["progress"]["imagesCached"] == FLOWERS
    assert second["progress"].get("imagesComputed", 0) == 0
    line = here.kubectl("get", "rj", "again").splitlines()[1]
    assert "Succeeded" in line
    assert line.split()[4] == "100%", line


def test_two_jobs_at_once_share_one_cache(here: Installation) -> None:
    cache = f"s3://{here.bucket.name}/cache/{here.namespace}"
    for name, rate in (("slow", 0.005), ("quick", 0.02)):
        here.submit(name, cache=cache, training={"steps": 300, "learningRate": rate})
    for name in ("slow", "quick"):
        status = here.complete(name)
        done = status["progress"]
        assert done["imagesCached"] + done["imagesComputed"] == FLOWERS
        assert status["metrics"]["testAccuracy"] > 0.8


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("s3://photos/no_such_folder", "no_such_folder"),
        ("s3://no-such-bucket/flower_photos", "no-such-bucket"),
    ],
)
def test_a_wrong_place_fails_once_with_a_sentence(
    here: Installation, images: str, sentence: str
) -> None:
    here.submit("lost", images=images)
    status = here.until("lost", lambda s: s.get("phase") == "Failed")
    assert sentence in status["message"]
    assert "Traceback" not in status["message"]
    assert len(here.pods("lost")) == 1, "it was tried again"
    assert here.get("job", "lost-train")["status"]["failed"] == 1
    assert sentence in here.kubectl("get", "rj", "lost", "-o", "wide")


def test_a_missing_secret_is_waited_for_and_the_job_goes_on(here: Installation) -> None:
    secret = here.get("secret", "s3-credentials")
    here.kubectl("delete", "secret", "s3-credentials")
    here.submit("patient", training={"steps": 100})
    waiting = here.until("patient", lambda s: s.get("reason") == "SecretMissing")
    assert waiting["phase"] == "Pending"
    assert "s3-credentials" in waiting["message"]

    secret["metadata"] = {"name": "s3-credentials", "namespace": here.namespace}
    here.cluster.apply(secret)
    assert here.complete("patient")["metrics"]["testAccuracy"] > 0.7


def _computing(here: Installation, name: str) -> int:
    """Wait until the job's pod has computed some hundred bottlenecks; how many."""
    report = here.eventually(
        lambda: here.report(name),
        lambda r: r is not None and (r.progress.images_computed or 0) > 100,
        240,
        lambda: here.story(name),
        every=0.1,
    )
    computed: int = report.progress.images_computed
    return computed


SLOW: dict[str, Any] = {"architecture": "mobilenet_1.0_224", "training": {"steps": 300}}


def test_suspend_and_resume_lose_no_finished_bottleneck(here: Installation) -> None:
    here.submit("paused", **SLOW)
    computed = _computing(here, "paused")
    here.kubectl("patch", "rj", "paused", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    suspended = here.until("paused", lambda s: s.get("phase") == "Suspended")
    assert "startTime" not in suspended
    here.eventually(lambda: here.pods("paused"), lambda pods: not pods, 120)

    here.kubectl("patch", "rj", "paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    progress = here.complete("paused")["progress"]
    assert progress["imagesCached"] >= computed
    assert progress["imagesCached"] + progress["imagesComputed"] == FLOWERS


@pytest.mark.parametrize("when", ["Pending", "Bottlenecks", "Training"])
def test_an_operator_killed_in_any_phase_makes_no_second_job(here: Installation, when: str) -> None:
    here.submit("orphan", **SLOW)
    if when == "Bottlenecks":
        _computing(here, "orphan")
    elif when == "Training":
        here.until("orphan", lambda s: s.get("phase") in ("Training", "Succeeded"))
    assert kill_processes("retrainer_operator") >= 1
    status = here.complete("orphan")
    assert status["metrics"]["testAccuracy"] > 0.8
    jobs = here.get("jobs")["items"]
    assert [job["metadata"]["name"] for job in jobs] == ["orphan-train"]
    assert len(here.pods("orphan")) == 1


def test_a_killed_trainer_is_replaced_and_goes_on(here: Installation) -> None:
    here.submit("hardy", **SLOW)
    _computing(here, "hardy")
    assert kill_processes("retrainer_trainer") >= 1
    status = here.complete("hardy")
    assert status["progress"]["imagesTotal"] == FLOWERS
    assert len(here.pods("hardy")) == 2


def test_images_beyond_the_memory_limit_stream_through(here: Installation, tmp_path: Path) -> None:
    """64 photos of 36 MB each, 2.3 GB in all, in a pod that may have 2 GiB."""
    import numpy as np

    header = _bitmap_header(4000, 3000)
    for label, tint in (("dark", 60), ("light", 190)):
        for number in range(32):
            noise = np.random.default_rng((tint, number)).integers(0, 60, 3000 * 12000)
            body = header + (noise + tint).astype(np.uint8).tobytes()
            key = f"large/{label}/{number:02}.bmp"
            here.bucket.client.put_object(Bucket=here.bucket.name, Key=key, Body=body)
    here.submit(
        "large",
        images=f"s3://{here.bucket.name}/large",
        training={"steps": 20},
        export=["tflite"],
        split={"testingPercentage": 20, "validationPercentage": 20},
        pod={"resources": {"limits": {"memory": "2Gi"}, "requests": {"memory": "512Mi"}}},
    )
    status = here.complete("large")
    assert status["progress"]["imagesComputed"] == 64
    for key in here.bucket.keys("large/"):
        here.bucket.client.delete_object(Bucket=here.bucket.name, Key=key)


def _bitmap_header(width: int, height: int) -> bytes:
    size = width * height * 3
    return (
        b"BM" + (54 + size).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
        + (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
        + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(4)
        + size.to_bytes(4, "little") + bytes(16)
    )  # fmt: skip


def test_trainer_pods_have_no_token_and_the_operator_reads_no_secret(here: Installation) -> None:
    here.submit("quiet", training={"steps": 50})
    here.complete("quiet")
    (pod,) = here.pods("quiet")
    volumes = [next(k for k in volume if k != "name") for volume in pod["spec"]["volumes"]]
    assert "projected" not in volumes
    assert pod["spec"]["automountServiceAccountToken"] is False
    operator = "system:serviceaccount:retrainer:retrainer-operator"
    with pytest.raises(RuntimeError, match=r"failed"):
        here.kubectl("auth", "can-i", "get", "secrets", f"--as={operator}")
    assert here.kubectl("auth", "can-i", "create", "jobs", f"--as={operator}").strip() == "yes"
    spec = str(here.get("job", "quiet-train")) + str(here.get("retrainjob", "quiet"))
    assert here.cluster.s3 is not None
    assert here.cluster.s3.secret_key not in spec + here.kubectl("logs", "job/quiet-train")


def test_jobs_and_namespaces_go_while_the_operator_is_away(here: Installation) -> None:
    deployment = "deployment/retrainer-operator"
    here.submit("leaving", **SLOW)
    _computing(here, "leaving")
    here.cluster.kubectl("-n", "retrainer", "scale", deployment, "--replicas=0")
    try:
        here.kubectl("delete", "rj", "leaving", "--timeout=30s")
        here.eventually(lambda: here.get("jobs,pods")["items"], lambda left: not left, 60)
        here.submit("leaving-too", **SLOW)
        here.cluster.kubectl("delete", "namespace", here.namespace, "--timeout=60s")
    finally:
        here.cluster.kubectl("-n", "retrainer", "scale", deployment, "--replicas=1")
        here.cluster.kubectl("-n", "retrainer", "rollout", "status", deployment, "--timeout=240s")
        here.cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": here.namespace}}
        )


def test_phases_are_seen_in_order(here: Installation) -> None:
    phases: list[str] = []
    stop = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = stop.is_set()
            phase = here.status("watched").get("phase")
            if phase and phase not in phases:
                phases.append(phase)

    here.submit("watched", **SLOW)
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        here.complete("watched")
    finally:
        stop.set()
        watcher.join()
    order = ["Pending", "Bottlenecks", "Training", "Succeeded"]
    assert phases == [phase for phase in order if phase in phases]
    assert {"Bottlenecks", "Succeeded"} <= set(phases)
    text = here.kubectl("describe", "rj", "watched")
    assert "Events:" in text
    assert "Succeeded" in text
