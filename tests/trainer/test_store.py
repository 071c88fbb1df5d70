import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.devcluster_s3 import PROGRAMS, S3Server
from tests.support.trainer_engine import small_disk
from tests.support.trainer_s3 import TinyS3, bucket

from retrainer.api import Storage
from retrainer.errors import (
    BucketNotFound,
    NotFound,
    RetrainerError,
    StorageDenied,
    StorageError,
    UserError,
)
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import ChangedError, Entry, Store, UnreadableError

SECRET = "retrainer-secret"


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


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, keys: None) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "root"), Storage())
    name = f"b{uuid.uuid4().hex}"
    bucket(s3, name)
    return open_store(f"s3://{name}/some/prefix", Storage(endpoint=s3.endpoint))


def files(store: Store, prefix: str = "") -> dict[str, int]:
    return {e.path: e.size for e in store.list(prefix) if not e.path.endswith("/")}


# --- what both kinds of store do ---
def test_what_is_put_can_be_read_listed_and_removed(store: Store) -> None:
    assert store.put("a/b.bin", b"12345")
    assert store.get("a/b.bin") == b"12345"
    assert store.head("a/b.bin").size == 5
    assert files(store) == {"a/b.bin": 5}
    assert store.exists("a/b.bin")
    store.put("a/b.bin", b"67")
    assert store.get("a/b.bin") == b"67"
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    assert files(store) == {}


def test_a_prefix_is_a_folder(store: Store) -> None:
    for path in ("seg/1", "seg/deep/2", "segments/3"):
        store.put(path, b"x")
    assert set(files(store, "seg")) == {"seg/1", "seg/deep/2"}
    assert files(store, "nothing") == {}


def test_ranges_come_in_the_order_asked_for(store: Store) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB: some ranges are fetched apart
    store.put("x", body)
    places = [(2_000_000, 2_000_010), (5, 9), (9, 20), (1_000_000, 1_000_001)]
    got = store.get_ranges("x", [a for a, _ in places], [b for _, b in places])
    assert list(got) == [body[a:b] for a, b in places]
    assert list(store.get_ranges("x", [], [])) == []


def test_create_only_leaves_what_is_there(store: Store) -> None:
    assert store.put("x", b"first", create_only=True)
    assert not store.put("x", b"second", create_only=True)
    assert store.get("x") == b"first"


def test_what_is_not_there_is_not_found(store: Store) -> None:
    store.put("y", b"1")
    for read in (store.get, store.head):
        with pytest.raises(NotFound, match=r"gone\.jpg"):
            read("a/gone.jpg")


@pytest.mark.parametrize(
    "name", ["ta\tb.jpg", "new\nline.jpg", "sp ace+%20#?&.jpg", "ünï.jpg", "a=b;c.jpg"]
)
def test_a_file_with_an_odd_name_is_listed_and_read(store: Store, s3: S3Server, name: str) -> None:
    path = f"label/{name}"
    if store.url.startswith("s3://"):
        client = _client(s3)
        parts = store.url.removeprefix("s3://").split("/", 1)
        for key in ("label/plain.jpg", path):
            client.put_object(Bucket=parts[0], Key=f"{parts[1]}/{key}", Body=b"abc")
    else:
        store.put("label/plain.jpg", b"abc")
        store.put(path, b"abc")
    assert files(store) == {path: 3, "label/plain.jpg": 3}
    assert store.get(path) == b"abc"
    assert store.head(path).size == 3


def test_a_folder_is_copied_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "from/deep").mkdir(parents=True)
    (tmp_path / "from/one.txt").write_bytes(b"1")
    (tmp_path / "from/deep/two.txt").write_bytes(b"22")
    store.put_folder(tmp_path / "from", "run/x")
    assert files(store) == {"run/x/one.txt": 1, "run/x/deep/two.txt": 2}


# --- local ---
def test_urls_and_plain_paths_name_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    open_store(str(tmp_path / "a b"), Storage()).put("x", b"1")
    assert open_store(f"file://{tmp_path}/a%20b", Storage()).get("x") == b"1"


def test_another_kind_of_url_is_refused() -> None:
    with pytest.raises(UserError, match=r"spec\.images: gs://b/x must be s3://bucket/prefix"):
        open_store("gs://b/x", Storage())


def test_empty_and_linked_folders_are_listed(tmp_path: Path) -> None:
    (tmp_path / "root/empty").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.jpg").write_bytes(b"x")
    (tmp_path / "root/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/linked/nowhere.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "root/linked/circle.jpg").symlink_to("circle.jpg")
    entries = list(open_store(str(tmp_path / "root"), Storage()).list())
    assert entries == [
        Entry("empty/", 0, None),
        Entry("linked/", 0, None),
        Entry("linked/circle.jpg", 0, None),
        Entry("linked/nowhere.jpg", 0, None),
        Entry("linked/x.jpg", 1, None),
    ]


def test_a_killed_write_leaves_no_half_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), Storage())
    store.put("x", b"1" * 100)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_is_told_with_the_place(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as small:
        store = open_store(str(small), Storage(), "spec.cache")
        with pytest.raises(StorageError) as raised:
            store.put("seg/x", bytes(200_000))
        assert str(raised.value) == f"No space left writing {small / 'seg/x'}."
        assert raised.value.reason == "DiskFull"
        assert not any(p.is_file() for p in small.rglob("*"))


@pytest.mark.parametrize("below", ["", "/cache"])
def test_a_file_in_place_of_a_folder_is_told_with_its_field(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(f"{tmp_path}/file{below}", Storage(), "spec.cache")
    with pytest.raises(UserError) as raised:
        store.put("part/x", b"1")
    assert str(raised.value) == (
        f"spec.cache: {tmp_path}/file{below} is a file or lies below one; name a folder."
    )


def test_a_folder_in_place_of_an_image_is_that_image_s_own_fault(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(UnreadableError, match="it is a folder"):
        open_store(str(tmp_path), Storage()).get("x.jpg")


# --- S3 ---
def _client(s3: S3Server) -> Any:
    import boto3

    return boto3.client("s3", **s3.client_options())  # type: ignore[call-overload]


def test_markers_of_empty_folders_and_empty_files_are_told_apart(s3: S3Server, keys: None) -> None:
    client = bucket(s3, "markers")
    for key in ("in/empty/", "in/a/x.jpg", "in/a/zero.jpg", "in/a/"):
        client.put_object(Bucket="markers", Key=key, Body=b"abc" if key.endswith("x.jpg") else b"")
    entries = open_store("s3://markers/in", Storage(endpoint=s3.endpoint)).list()
    assert {e.path: e.size for e in entries} == {
        "empty/": 0,
        "a/": 0,
        "a/x.jpg": 3,
        "a/zero.jpg": 0,
    }


def test_more_keys_than_fit_one_page_are_listed_once(s3: S3Server, keys: None) -> None:
    client = bucket(s3, "many")
    for i in range(1050):
        client.put_object(Bucket="many", Key=f"l/{i:05}", Body=b"x")
    client.put_object(Bucket="many", Key="l/zz\tlast", Body=b"x")
    store = open_store("s3://many", Storage(endpoint=s3.endpoint))
    paths = [e.path for e in store.list()]
    assert len(paths) == len(set(paths)) == 1051


def test_an_object_that_changed_is_noticed(s3: S3Server, keys: None) -> None:
    client = bucket(s3, "changing")
    client.put_object(Bucket="changing", Key="x", Body=b"old")
    store = open_store("s3://changing", Storage(endpoint=s3.endpoint))
    (entry,) = store.list()
    assert store.get("x", entry.etag) == b"old"
    client.put_object(Bucket="changing", Key="x", Body=b"new")
    with pytest.raises(ChangedError):
        store.get("x", entry.etag)
    assert store.get("x", store.head("x").etag) == b"new"


def test_a_missing_bucket_is_named_with_its_field_and_endpoint(s3: S3Server, keys: None) -> None:
    store = open_store("s3://nosuch/x", Storage(endpoint=s3.endpoint), "spec.output")
    for act in (lambda: list(store.list()), lambda: store.put("y", b""), lambda: store.get("y")):
        with pytest.raises(BucketNotFound) as raised:
            act()
        assert str(raised.value) == (
            f"Bucket nosuch (spec.output) does not exist at {s3.endpoint}."
        )
        assert raised.value.reason == "BucketNotFound"


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_name_bucket_and_key_id_but_never_the_secret(
    s3: S3Server, keys: None, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(wrong, "WRONG-VALUE")
    store = open_store("s3://photos/x", Storage(endpoint=s3.endpoint))
    for act in (lambda: list(store.list()), lambda: store.put("y", b"")):
        with pytest.raises(StorageDenied) as raised:
            act()
        message = str(raised.value)
        key = "WRONG-VALUE" if wrong == "AWS_ACCESS_KEY_ID" else "retrainer"
        assert message.startswith(
            f"{s3.endpoint} refused access to bucket photos (spec.images) with access key {key}:"
        )
        assert SECRET not in message
        if wrong == "AWS_SECRET_ACCESS_KEY":
            assert "WRONG-VALUE" not in message
        assert raised.value.exit_code == 64


def _seconds(store: Store) -> tuple[float, RetrainerError]:
    begun = time.monotonic()
    with pytest.raises(RetrainerError) as raised:
        list(store.list())
    return time.monotonic() - begun, raised.value


@pytest.mark.slow
def test_a_refused_connection_is_told_in_time(own_keys: None) -> None:
    seconds, error = _seconds(open_store("s3://b/x", Storage(endpoint="http://127.0.0.1:9")))
    assert seconds < 60  # 12 of patience, and a last request of 10
    assert str(error) == "Cannot reach http://127.0.0.1:9: connection refused."
    assert error.exit_code == 1


@pytest.mark.slow
def test_a_server_that_never_answers_is_told_in_time(own_keys: None) -> None:
    with TinyS3().running() as tiny:
        tiny.silent.set()
        seconds, error = _seconds(open_store("s3://b/x", Storage(endpoint=tiny.endpoint)))
    assert seconds < 60  # 12 of patience, and a last request of 10
    assert str(error) == f"Cannot reach {tiny.endpoint}: no answer in time."


def test_a_web_server_that_is_no_s3_is_told(own_keys: None) -> None:
    with TinyS3().running() as tiny:
        store = open_store("s3://b/x", Storage(endpoint=tiny.endpoint + "/"))
        assert list(store.list()) == []
        with pytest.raises(NotFound):
            store.get("y")


@pytest.mark.needs("versitygw")
def test_a_server_that_dies_and_comes_back_is_waited_for(tmp_path: Path, own_keys: None) -> None:
    lines: list[str] = []
    noticed = threading.Event()

    def notice(text: str) -> None:
        lines.append(text)
        noticed.set()

    with S3Server(tmp_path) as server:
        bucket(server, "photos")
        store = open_store("s3://photos", Storage(endpoint=server.endpoint), "spec.images", notice)
        store.put("x", b"1")
        server.kill()

        def come_back() -> None:
            assert noticed.wait(30)
            server.start()

        thread = threading.Thread(target=come_back)
        thread.start()
        assert store.get("x") == b"1"
        thread.join()
    assert lines == [f"{server.endpoint} does not answer; trying again for 120 s."]


@pytest.mark.needs("versitygw")
def test_a_listing_that_is_cut_off_goes_on_after_its_last_key(
    tmp_path: Path, own_keys: None
) -> None:
    noticed, dead = threading.Event(), threading.Event()
    with S3Server(tmp_path) as server:
        client = bucket(server, "photos")
        for i in range(2100):
            client.put_object(Bucket="photos", Key=f"l/{i:05}", Body=b"x")
        store = open_store(
            "s3://photos", Storage(endpoint=server.endpoint), "spec.images", lambda _: noticed.set()
        )

        def come_back() -> None:
            assert dead.wait(30)
            assert noticed.wait(30)
            server.start()

        thread = threading.Thread(target=come_back)
        thread.start()
        paths: list[str] = []
        for entry in store.list():
            if not paths:
                server.kill()
                dead.set()
            paths.append(entry.path)
        thread.join()
    assert paths == [f"l/{i:05}" for i in range(2100)]
