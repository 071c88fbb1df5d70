"""The SDK's store: folders, a real S3 server, and what is told when it does not answer."""

import functools
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
from tests.support.devcluster_s3 import PROGRAMS, S3Server
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run

from retrainer.api import Storage
from retrainer.cli.cache import users
from retrainer.cluster.client import Client
from retrainer.cluster.requests import Cluster
from retrainer.errors import BucketNotFound, NotFound, StorageDenied, StorageError, UserError
from retrainer.results.run import Run
from retrainer.store.cache import Cache
from retrainer.store.folder import Folder
from retrainer.store.s3 import Access, endpoint_for
from retrainer_trainer.cache import cache as trainer_cache
from retrainer_trainer.store.opening import open_store


@pytest.fixture(scope="module", params=PROGRAMS)
def s3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3"), program=request.param) as server:
        client = session(server).client("s3", endpoint_url=server.endpoint)
        client.create_bucket(Bucket="models")
        run = write_run(tmp_path_factory.mktemp("run") / "flowers-12345678", [1, 2])
        (run / "saved_model" / "variables").mkdir(parents=True)
        (run / "saved_model" / "variables" / "data").write_bytes(os.urandom(3_000_000))
        for file in run.rglob("*"):
            if file.is_file():
                key = f"flowers/flowers-12345678/{file.relative_to(run)}"
                client.upload_file(str(file), "models", key)
        yield server


def session(server: S3Server, secret: str | None = None) -> boto3.Session:
    return boto3.Session(
        aws_access_key_id=server.access_key,
        aws_secret_access_key=secret or server.secret_key,
        region_name=server.region,
    )


def access(server: S3Server) -> Access:
    return Access(server.endpoint, session(server))


RUN = "s3://models/flowers/flowers-12345678"


def test_a_run_in_s3_reads_like_one_on_disk(s3: S3Server, tmp_path: Path) -> None:
    run = Run(RUN, access=access(s3))
    assert run.test_accuracy == pytest.approx(58 / 60, abs=1e-4)
    assert len(run.history()) == 51
    assert len(run.misclassified()) == 2
    folder = run.download(tmp_path)
    assert folder == tmp_path / "flowers-12345678"
    assert (folder / "saved_model" / "variables" / "data").stat().st_size == 3_000_000
    assert not list(folder.rglob("*.part-*"))


def test_folders_and_entries_are_relative(s3: S3Server) -> None:
    folder = Folder("s3://models/flowers", access=access(s3))
    assert folder.folders() == ["flowers-12345678"]
    assert "flowers-12345678/labels.txt" in [e.path for e in folder.entries()]
    assert folder.exists("flowers-12345678/labels.txt")
    assert not folder.exists("flowers-12345678/nothing")


def test_of_a_run_a_missing_file_and_a_missing_bucket_are_told_apart(s3: S3Server) -> None:
    with pytest.raises(NotFound, match=r"^s3://models/none has no history.parquet: the run is not"):
        Run("s3://models/none", access=access(s3)).history()
    for ask in (Run.history, Run.predictions, lambda run: run.report):
        with pytest.raises(
            BucketNotFound, match=r"^There is no bucket for s3://nothere/flowers/1/"
        ):
            ask(Run("s3://nothere/flowers/1", access=access(s3)))


def test_a_missing_object_and_a_missing_bucket_are_told_apart(s3: S3Server) -> None:
    with pytest.raises(NotFound, match=r"^There is no s3://models/x/labels\.txt\.$"):
        Folder("s3://models/x", access=access(s3)).read("labels.txt")
    with pytest.raises(
        BucketNotFound, match=r"There is no bucket for s3://nothere/x.* at http://127"
    ):
        Folder("s3://nothere/x", access=access(s3)).entries()


def test_a_wrong_key_names_the_key_id_and_never_the_secret(s3: S3Server) -> None:
    wrong = Access(s3.endpoint, session(s3, "not-the-secret"))
    with pytest.raises(StorageDenied) as error:
        Folder(RUN, access=wrong).read("labels.txt")
    assert "access key retrainer" in str(error.value)
    assert "not-the-secret" not in str(error.value)


def test_an_endpoint_that_only_pods_reach_says_how_to_reach_it(s3: S3Server) -> None:
    storage = Storage(endpoint="http://s3.storage:7070")
    with pytest.raises(StorageError) as error:
        Folder(RUN, storage, Access(session=session(s3))).read("labels.txt")
    text = str(error.value)
    assert "its host name is not known on this machine" in text
    assert "kubectl port-forward -n storage service/s3 7070" in text
    assert "RETRAINER_S3_ENDPOINT=http://localhost:7070" in text


PROFILES = """
[profile program]
credential_process = echo hello
[profile login]
sso_start_url = https://example.awsapps.com/start
sso_region = us-east-1
sso_account_id = 111111111111
sso_role_name = reader
[profile circle]
role_arn = arn:aws:iam::111111111111:role/a
source_profile = back
[profile back]
role_arn = arn:aws:iam::111111111111:role/b
source_profile = circle
[profile source]
role_arn = arn:aws:iam::111111111111:role/a
credential_source = Nowhere
[profile half]
aws_access_key_id = a
[profile file]
role_arn = arn:aws:iam::111111111111:role/a
web_identity_token_file = /nowhere/token
"""


@pytest.mark.parametrize(
    ("profile", "cause"),
    [
        ("nobody", "there is no profile nobody"),
        ("program", "the program or service that gives them failed"),
        ("login", r"the login has expired \(aws sso login\)"),
        ("circle", "the roles of the profile lead back to it"),
        ("source", "the profile names a source of credentials that there is not"),
        ("half", "the key's id is there without its secret, or the reverse"),
        ("file", "a file that the profile names cannot be read"),
        ("", ".*/config is damaged"),
    ],
)
def test_why_no_credentials_can_be_read_is_told_in_words_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, cause: str
) -> None:
    (tmp_path / "config").write_text(PROFILES if profile else "[half\nx")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    sentence = rf"^No S3 credentials can be read: {cause}; see AWS_PROFILE and ~/\.aws\.$"
    with pytest.raises(UserError, match=sentence):
        Folder(RUN)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://localhost:1"])
def test_an_endpoint_of_this_machine_is_none_that_only_pods_reach(
    s3: S3Server, endpoint: str
) -> None:
    with pytest.raises(StorageError, match=r": connection refused\.$"):
        Folder(RUN, Storage(endpoint=endpoint), Access(session=session(s3))).read("labels.txt")


@pytest.mark.parametrize("endpoint", ["localhost:7070", "http://", "s3.storage"])
def test_an_endpoint_that_is_no_url_is_told(s3: S3Server, endpoint: str) -> None:
    with pytest.raises(UserError, match=rf"must be http\(s\)://HOST:PORT, got '{endpoint}'\.$"):
        Folder(RUN, access=Access(endpoint, session(s3)))


def test_a_refused_connection_is_told_in_seconds(s3: S3Server) -> None:
    closed = Access("http://127.0.0.1:1", session(s3))
    with pytest.raises(StorageError, match=r"at http://127\.0\.0\.1:1: connection refused"):
        Folder(RUN, access=closed).read("labels.txt")


def test_the_endpoint_is_the_argument_the_environment_the_jobs_then_awss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RETRAINER_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    job = Storage(endpoint="http://job:1")
    assert endpoint_for(Storage(), Access()) is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://aws:1")
    assert endpoint_for(Storage(), Access()) == "http://aws:1"
    assert endpoint_for(job, Access()) == "http://job:1"
    monkeypatch.setenv("RETRAINER_S3_ENDPOINT", "http://mine:1")
    assert endpoint_for(job, Access()) == "http://mine:1"
    assert endpoint_for(job, Access("http://given:1")) == "http://given:1"


def test_another_kind_of_url_is_refused() -> None:
    with pytest.raises(UserError, match="gs://x/y is neither an s3:// URL nor a path"):
        Folder("gs://x/y")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no folder .*nowhere"):
        Folder(str(tmp_path / "nowhere")).entries()


# --- cache ---
def filled(folder: Path, images: int, width: int = 8) -> None:
    """Segments as the trainer writes them."""
    cache = trainer_cache.Cache(open_store(str(folder), Storage()), "fp1", width, print)
    identities = np.random.default_rng(images).integers(0, 256, (images, 16), np.uint8)
    for identity in identities:
        cache.add(identity.tobytes(), np.ones(width, np.float32))
    cache.flush()


def test_the_caches_figures_agree_with_what_the_trainer_wrote(tmp_path: Path) -> None:
    filled(tmp_path, 1500)
    filled(tmp_path, 7)
    (part,) = Cache(str(tmp_path)).parts()
    assert (part.fingerprint, part.segments, part.bottlenecks) == ("fp1", 2, 1507)
    assert part.size == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())


def test_prune_deletes_what_is_older_with_its_index(tmp_path: Path) -> None:
    filled(tmp_path, 5)
    for file in tmp_path.rglob("*.*"):
        if file.is_file():
            os.utime(file, (1_600_000_000, 1_600_000_000))
    filled(tmp_path, 9)
    cache = Cache(str(tmp_path))
    pruned = cache.prune(timedelta(days=1), dry_run=True)
    assert (pruned.segments, pruned.bottlenecks) == (1, 5)
    assert cache.parts()[0].segments == 2, "a dry run deletes nothing"
    assert cache.prune(timedelta(days=1)) == pruned
    (part,) = cache.parts()
    assert (part.segments, part.bottlenecks) == (1, 9)
    fresh = trainer_cache.Cache(open_store(str(tmp_path), Storage()), "fp1", 8, print)
    fresh.refresh()
    assert len(fresh) == 9, "what is left is whole for the trainer"


def test_unfinished_jobs_that_use_a_cache_are_named() -> None:
    server = FakeApiServer()
    for name, phase, cache in (
        ("running", "Training", None),
        ("done", "Succeeded", None),
        ("elsewhere", "Training", "s3://cache/other"),
        ("named", "Pending", "s3://models/flowers/.bottlenecks/"),
    ):
        spec = {"output": "s3://models/flowers", **({"cache": cache} if cache else {})}
        server.put(
            "retrainjobs", {"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}
        )
    client = Client._on(Cluster(server))
    assert users(client, "s3://models/flowers/.bottlenecks") == ["default/named", "default/running"]


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """URL of a server whose certificate no public authority has signed, and that certificate."""
    certificate, key = tmp_path / "s3.crt", tmp_path / "s3.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    folder = tmp_path / "served" / "models"
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("roses\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}", certificate
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_of_ones_own_authority_is_trusted_once_it_is_named(
    https: tuple[str, Path], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, certificate = https

    def folder() -> Folder:
        return Folder("s3://models", Storage(), Access(endpoint=endpoint, session=session(s3)))

    with pytest.raises(StorageError, match=r"localhost.*certificate is not trusted"):
        folder().read("labels.txt")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    assert folder().read("labels.txt") == b"roses\n"
