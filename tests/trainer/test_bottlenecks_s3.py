import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support.devcluster_s3 import PROGRAMS, S3Server
from tests.support.small_networks import onnx_network
from tests.support.trainer_engine import Recorder, photo, photos, prepared, spec
from tests.support.trainer_s3 import TinyS3, bucket, upload

from retrainer.api import RetrainJobSpec
from retrainer.inference import pixels
from retrainer_trainer import bottlenecks
from retrainer_trainer.runtime.stop import Stop


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", {"daisy": 40, "roses": 40})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module", params=PROGRAMS)
def s3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3"), program=request.param) as server:
        yield server


@pytest.fixture
def keys(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of a server of the test's own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "retrainer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "retrainer-secret")


def test_s3_gives_the_same_bits_as_the_local_folder_and_shares_its_cache(
    photo_folder: Path, output: Path, s3: S3Server, keys: None
) -> None:
    local = prepared(spec(photo_folder, output))
    client = bucket(s3, "same")
    upload(client, "same", "in", photo_folder)
    wanted = spec("s3://same/in", "s3://same/out", storage={"endpoint": s3.endpoint})
    recorder = Recorder(wanted)
    ready = prepared(wanted, recorder)
    assert recorder.report.progress.images_computed == 80
    assert list(ready.catalog.paths) == list(local.catalog.paths)
    assert (ready.catalog.identities == local.catalog.identities).all()
    assert (ready.catalog.sets == local.catalog.sets).all()
    assert (ready.matrix == local.matrix).all()
    mixed = spec("s3://same/in", output, storage={"endpoint": s3.endpoint})
    shared = Recorder(mixed)
    prepared(mixed, shared)
    assert shared.report.progress.images_computed == 0


def test_a_manifest_and_corrections_in_a_bucket_name_objects_of_any_bucket_by_their_keys(
    photo_folder: Path, output: Path, s3: S3Server, keys: None
) -> None:
    client = bucket(s3, "listed")
    upload(client, "listed", "in/flowers", photo_folder)
    names = [f"{path.parent.name}/{path.name}" for path in sorted(photo_folder.rglob("*.jpg"))]
    places = ("s3://listed/in/flowers/", "s3://elsewhere/old/flowers/", "")
    rows = "".join(f"{places[i % 3]}{name},{name[:5]}\n" for i, name in enumerate(names))
    text = f"path,label\n{rows}s3://listed/secret.jpg,daisy\n../secret.jpg,daisy\n"
    client.put_object(Bucket="listed", Key="list.csv", Body=text.encode())
    client.put_object(Bucket="listed", Key="secret.jpg", Body=photo(1))
    corrections = f"path,action,label\n{names[0]},relabel,roses\n{names[1]},drop,\n"
    client.put_object(Bucket="listed", Key="corrections.csv", Body=corrections.encode())
    wanted = spec(
        "s3://listed/in/flowers",
        output,
        manifest="s3://listed/list.csv",
        corrections="s3://listed/corrections.csv",
        storage={"endpoint": s3.endpoint},
    )
    catalog = prepared(wanted).catalog
    assert list(catalog.paths) == [name for name in names if name != names[1]]
    assert catalog.labels[catalog.label[0]] == "roses"
    assert [row.reason for row in catalog.bad] == [
        "there is no such file in the folder of images",
        "its path leads out of the folder of images",
    ]


def test_a_backbone_in_s3_shares_its_bottlenecks_with_its_copy_here(
    photo_folder: Path, tmp_path: Path, output: Path, s3: S3Server, keys: None
) -> None:
    folder = tmp_path / "small_net"
    (folder / "onnx").mkdir(parents=True)
    onnx.save_model(
        onnx_network(), folder / "onnx" / "model.onnx", save_as_external_data=True,
        location="model.onnx_data", size_threshold=0,
    )  # fmt: skip
    config = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    client = bucket(s3, "networks")
    upload(client, "networks", "small_net", folder)
    storage = {"endpoint": s3.endpoint}
    matrices = []
    for url, computed in (("s3://networks/small_net", 80), (str(folder), 0)):
        wanted = RetrainJobSpec.model_validate({
            "backbone": {"url": url}, "images": str(photo_folder), "output": str(output),
            "storage": storage,
        })  # fmt: skip
        recorder = Recorder(wanted)
        matrices.append(prepared(wanted, recorder).matrix)
        assert recorder.report.progress.images_computed == computed
    assert (matrices[0] == matrices[1]).all()


def test_an_object_replaced_after_the_listing_is_listed_again(
    photo_folder: Path, s3: S3Server, keys: None
) -> None:
    client = bucket(s3, "replaced")
    upload(client, "replaced", "in", photo_folder)
    wanted = spec("s3://replaced/in", "s3://replaced/out", storage={"endpoint": s3.endpoint})
    recorder = Recorder(wanted)
    job = bottlenecks.open_job(wanted, recorder, Stop())
    client.put_object(Bucket="replaced", Key="in/daisy/0005.jpg", Body=photo(9999))
    client.delete_object(Bucket="replaced", Key="in/daisy/0006.jpg")
    filled = bottlenecks.compute_missing(job, recorder, Stop())
    ready, missing = bottlenecks.load(job, filled)
    assert missing == 0
    paths = list(ready.catalog.paths)
    (expected,) = ready.backbone.start()([pixels.pixels(photo(9999), 128)])
    assert (ready.matrix[paths.index("daisy/0005.jpg")] == expected).all()
    assert filled.rejected == {
        paths.index("daisy/0006.jpg"): "it was listed, but is no longer there"
    }


@pytest.mark.parametrize("etag", [None, 'W/"weak"', '""'])
def test_a_store_without_strong_etags_is_read_and_known_by_content(
    photo_folder: Path, output: Path, own_keys: None, etag: str | None
) -> None:
    local = prepared(spec(photo_folder, output))
    with TinyS3(etag).running() as tiny:
        for path in local.catalog.paths:
            tiny.objects[f"bin/in/{path}"] = (photo_folder / path).read_bytes()
        wanted = spec("s3://bin/in", output, storage={"endpoint": tiny.endpoint})
        recorder = Recorder(wanted)
        ready = prepared(wanted, recorder)
        assert recorder.report.progress.images_computed == 0
        assert "80 images are told apart by their content, so each is read." in recorder.lines
        assert (ready.matrix == local.matrix).all()
        tiny.objects["bin/in/daisy/0001.jpg"] = photo(4321)
        changed = Recorder(wanted)
        prepared(wanted, changed)
        assert changed.report.progress.images_computed == 1


@pytest.mark.needs("versitygw")
def test_a_server_that_dies_in_the_middle_and_comes_back_does_not_end_the_run(
    photo_folder: Path, tmp_path: Path, own_keys: None
) -> None:
    photos(photo_folder, {"daisy": 300}, first=30_000)
    with S3Server(tmp_path / "own") as server:
        client = bucket(server, "dying")
        upload(client, "dying", "in", photo_folder)
        wanted = spec("s3://dying/in", "s3://dying/out", storage={"endpoint": server.endpoint})
        waiting, dead = threading.Event(), threading.Event()

        class Killing(Recorder):
            def update(self, **fields: Any) -> None:
                super().update(**fields)
                if (self.report.progress.images_computed or 0) > 0 and not dead.is_set():
                    server.kill()
                    dead.set()

            def log(self, text: str) -> None:
                super().log(text)
                if "does not answer" in text:
                    waiting.set()

        recorder = Killing(wanted)

        def come_back() -> None:
            assert dead.wait(60)
            assert waiting.wait(60)
            server.start()

        thread = threading.Thread(target=come_back)
        thread.start()
        ready = prepared(wanted, recorder)
        thread.join()
    assert dead.is_set()
    assert ready.usable.all()
    assert recorder.report.progress.images_computed == 340
