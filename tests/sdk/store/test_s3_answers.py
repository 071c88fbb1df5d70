"""What an S3 endpoint answers is never quoted: it may be anything that this machine can reach."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from retrainer.api import Storage
from retrainer.errors import RetrainerError
from retrainer.store.folder import Folder
from retrainer.store.s3 import Access, Server
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store
from retrainer_trainer.store.store import UnreadableError

MARK = "TOP-5ECRET"
XML = f"<Error><Code>{MARK.replace('-', '')}</Code><Message>{MARK}</Message></Error>"
ANSWERS = {
    "metadata": (200, f"{MARK} role=admin", {}),
    "page": (200, f"<html><title>{MARK}</title></html>", {}),
    "list": (200, f"<ListBucketResult><Contents><Key>{MARK}</Key></ListBucketResult>", {}),
    "size": (200, f"<ListBucketResult><Contents><Size>{MARK}</Size></Contents></ListBucketResult>", {}),
    "unknown-code": (400, XML, {}),
    "denied": (403, f"<Error><Code>AccessDenied</Code><Message>{MARK}</Message></Error>", {}),
    "teapot": (418, f"\x1b[31m{MARK}\x1b[0m\nerror: forged line", {}),
    "broken": (500, XML, {}),
    "redirect": (301, f"<html>{MARK}</html>", {"Location": f"http://localhost:1/{MARK}"}),
    "no-place": (307, f"<html>{MARK}</html>", {}),
    "odd-length": (200, MARK, {"Content-Length": "many"}),
}  # fmt: skip


@contextmanager
def answering(status: int, body: str, headers: dict[str, str]) -> Iterator[tuple[str, list[Any]]]:
    """Serve one answer to every request; yield its URL and the headers of the requests that came."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            requests.append(self.headers)
            content = body.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "RETRAINER_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-itself")


def clean(error: RetrainerError) -> None:
    text = str(error)
    assert MARK not in text
    assert MARK.replace("-", "") not in text
    assert "the-secret-itself" not in text
    assert "\x1b" not in text
    assert "forged" not in text
    assert text.isprintable()
    assert "obstore" not in text
    assert "Generic" not in text


def failures(actions: list[Callable[[], object]]) -> list[RetrainerError]:
    """The errors of those that fail; an answer that is taken for a file or a list is none."""
    errors = []
    for act in actions:
        try:
            act()
        except RetrainerError as error:
            errors.append(error)
        except UnreadableError as error:
            errors.append(RetrainerError(str(error)))
    return errors


@pytest.mark.parametrize("name", ANSWERS)
def test_the_sdk_says_a_known_cause_and_nothing_of_the_answer(name: str) -> None:
    with answering(*ANSWERS[name]) as (endpoint, _):
        folder = Folder("s3://models/x", Storage(endpoint=endpoint))
        actions: list[Callable[[], object]] = [
            folder.entries,
            folder.folders,
            lambda: folder.read("y"),
            lambda: folder.delete(["y"]),
        ]
        for error in failures(actions):
            clean(error)


def trainer_errors(name: str) -> list[RetrainerError]:
    """What the trainer says of one of the answers, in the patience of a trainer that is to stop."""
    stop = Stop()
    stop.ask()
    with answering(*ANSWERS[name]) as (endpoint, _):
        store = open_store("s3://models/x", Storage(endpoint=endpoint), "spec.images", stop=stop)
        return failures(
            [
                lambda: list(store.list()),
                lambda: store.get("y"),
                lambda: store.get("a name\tthat boto3 reads"),
                lambda: store.put("y", b""),
            ]
        )


@pytest.mark.slow
def test_the_trainer_says_a_known_cause_and_nothing_of_the_answer() -> None:
    with ThreadPoolExecutor(len(ANSWERS)) as pool:
        answers = list(pool.map(trainer_errors, ANSWERS))
    errors = [error for several in answers for error in several]
    assert len(errors) > 20
    for error in errors:
        clean(error)


def test_a_server_that_sends_elsewhere_is_told_as_that() -> None:
    with answering(*ANSWERS["no-place"]) as (endpoint, _):
        store = open_store("s3://models/x", Storage(endpoint=endpoint), "spec.images")
        with pytest.raises(RetrainerError) as caught:
            list(store.list())
    assert str(caught.value) == (
        f"{endpoint} (spec.images) answers 301: it sends elsewhere; check storage.endpoint, "
        "storage.region and s3://models/x."
    )


def test_a_server_that_is_sent_to_is_given_no_credentials() -> None:
    with (
        answering(200, "", {}) as (other, requests),
        answering(302, "", {"Location": other.replace("127.0.0.1", "localhost")}) as (endpoint, _),
    ):
        folder = Folder("s3://models/x", Storage(endpoint=endpoint))
        folder.read("y")
    assert len(requests) == 1
    assert "Authorization" not in requests[0]
    assert "the-secret-itself" not in str(requests[0])


# --- one set-up for both programs ---
def test_the_region_is_the_jobs_then_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert Server(Storage()).region == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Server(Storage()).region == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert Server(Storage()).region == "eu-central-1"
    assert Server(Storage(region="ap-south-1")).region == "ap-south-1"
    assert Server(Storage()).endpoint == "https://s3.eu-central-1.amazonaws.com"


def test_a_public_bucket_is_read_without_keys_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    headers = {"Last-Modified": "Tue, 24 Nov 2026 12:00:00 GMT", "ETag": '"1"'}
    with answering(200, "roses\n", headers) as (endpoint, requests):
        storage = Storage(endpoint=endpoint)
        assert Folder("s3://public", storage).read("labels.txt") == b"roses\n"
        assert open_store("s3://public", storage).get("labels.txt") == b"roses\n"
    assert not any("Authorization" in sent for sent in requests)
    with answering(403, "", {}) as (endpoint, _), pytest.raises(RetrainerError) as caught:
        Folder("s3://private", Storage(endpoint=endpoint)).read("x")
    assert str(caught.value) == (
        f"{endpoint} refused to show s3://private/x to access key (none was found) (HTTP status 403): "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws in AWS_PROFILE."
    )


def test_a_file_of_authorities_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.crt")
    with pytest.raises(
        RetrainerError, match=r"^AWS_CA_BUNDLE names /nowhere/ca\.crt: No such file"
    ):
        Folder("s3://models/x", Storage(), Access("https://localhost:1"))
