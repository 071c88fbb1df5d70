"""The fault proxy itself: a fault suite is worth as much as its faults."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.faults import proxy as faults
from tests.faults.proxy import EventFault, Fault, Proxy, Server
from tests.support.devcluster_s3 import S3Server

Body = dict[str, Any]
EVENTS = [
    {"type": "ADDED", "object": {"metadata": {"name": name, "resourceVersion": str(n)}}}
    for n, name in enumerate(("a", "b", "c"))
]


class _Upstream(BaseHTTPRequestHandler):
    """Counts writes, answers a list with the count, and a watch with three events."""

    writes = 0

    def do_GET(self) -> None:
        if "watch=true" in self.path:
            self._send(b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS))
        else:
            self._send(json.dumps({"items": [], "writes": _Upstream.writes}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        _Upstream.writes += 1
        self._send(b'{"kind": "Job"}')

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Server(f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    _Upstream.writes = 0
    with Proxy(server, keep_lists=True) as proxy:
        yield proxy


LIST = "/apis/batch/v1/namespaces/team/jobs"


def _get(proxy: Proxy, path: str = LIST) -> bytes:
    text: bytes = urllib.request.urlopen(proxy.url + path, timeout=10).read()
    return text


def _create(proxy: Proxy) -> Body:
    body = json.dumps({"metadata": {"name": "flowers-train"}}).encode()
    answer: Body = json.loads(urllib.request.urlopen(proxy.url + LIST, body, timeout=10).read())
    return answer


def _lost(proxy: Proxy) -> bool:
    try:
        _create(proxy)
    except (http.client.RemoteDisconnected, ConnectionError, urllib.error.URLError):
        return True
    return False


def _watch(proxy: Proxy) -> list[Body]:
    return [json.loads(line) for line in _get(proxy, f"{LIST}?watch=true").splitlines()]


def test_without_a_fault_all_passes_and_is_counted(proxy: Proxy) -> None:
    assert _create(proxy) == {"kind": "Job"}
    assert json.loads(_get(proxy))["writes"] == 1
    assert _watch(proxy) == EVENTS
    requests = [(r.method, r.resource, r.namespace, r.name, r.is_list) for r in proxy.requests]
    assert requests == [
        ("POST", "jobs", "team", "flowers-train", False),
        ("GET", "jobs", "team", "", True),
        ("GET", "jobs", "team", "", False),
    ]


def test_a_dropped_write_has_no_effect_and_one_whose_answer_is_lost_has(proxy: Proxy) -> None:
    proxy.add(Fault(faults.drop, times=1))
    assert _lost(proxy)
    assert _Upstream.writes == 0
    proxy.add(Fault(faults.lose_answer, times=1))
    assert _lost(proxy)
    assert _Upstream.writes == 1
    assert not _lost(proxy)


@pytest.mark.parametrize(
    ("harm", "code", "writes"),
    [(faults.refuse(429, retry_after=7), 429, 0), (faults.refuse(503), 503, 0),
     (faults.fail_after(500), 500, 1)],
    ids=["429", "503", "500 after its effect"],
)  # fmt: skip
def test_errors_are_those_of_an_api_server(
    proxy: Proxy, harm: faults.Harm, code: int, writes: int
) -> None:
    proxy.add(Fault(harm, when=lambda request: request.is_write, skip=1))
    _create(proxy)
    with pytest.raises(urllib.error.HTTPError) as caught:
        _create(proxy)
    assert caught.value.code == code
    assert json.loads(caught.value.read())["kind"] == "Status"
    assert caught.value.headers.get("Retry-After") == ("7" if code == 429 else None)
    assert _Upstream.writes == writes + 1


def test_a_stale_list_is_the_one_before(proxy: Proxy) -> None:
    before = _get(proxy)
    _create(proxy)
    proxy.add(Fault(faults.stale, when=lambda request: request.is_list, times=1))
    assert _get(proxy) == before
    assert json.loads(_get(proxy))["writes"] == 1


def test_a_list_that_is_kept_is_answered_as_it_is_read_also_to_whoever_takes_it_packed(
    proxy: Proxy,
) -> None:
    """Lists of more than 128 KiB, which an API server packs, were answered as no JSON."""
    request = urllib.request.Request(proxy.url + LIST, headers={"Accept-Encoding": "gzip"})
    for _ in range(2):
        answer = urllib.request.urlopen(request, timeout=10)
        assert json.loads(answer.read()) == {"items": [], "writes": 0}
        assert answer.headers.get("Content-Encoding") is None
        proxy.add(Fault(faults.stale, when=lambda asked: asked.is_list))


def test_single_events_are_dropped_and_watches_cut_or_ended(proxy: Proxy) -> None:
    def is_b(_: faults.Request, event: Body) -> bool:
        return bool(event["object"]["metadata"]["name"] == "b")

    proxy.add(EventFault("drop", when=is_b, times=1))
    assert [e["object"]["metadata"]["name"] for e in _watch(proxy)] == ["a", "c"]
    proxy.add(EventFault(faults.status_object(410, "Expired"), when=is_b, times=1))
    assert [e["type"] for e in _watch(proxy)] == ["ADDED", "ERROR"]
    proxy.add(EventFault("cut", when=is_b, times=1))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        _watch(proxy)
    assert _watch(proxy) == EVENTS


def test_a_delay_delays(proxy: Proxy) -> None:
    proxy.add(Fault(faults.delay(0.5), times=1))
    started = time.monotonic()
    _get(proxy)
    assert time.monotonic() - started >= 0.5


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.mark.slow
def test_s3_is_harmed_alike(s3: S3Server) -> None:
    """Its signatures hold behind the proxy, since the name that was asked for is passed on."""
    options = s3.client_options()
    direct: Any = boto3.client("s3", **options)  # type: ignore[call-overload]
    direct.create_bucket(Bucket="harmed")
    direct.put_object(Bucket="harmed", Key="photo", Body=b"x" * 100_000)
    with Proxy(Server(options["endpoint_url"])) as proxy:
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        behind: Any = boto3.client(  # type: ignore[call-overload]
            "s3", **{**options, "endpoint_url": proxy.url}, config=config
        )
        assert behind.head_object(Bucket="harmed", Key="photo")["ContentLength"] == 100_000
        fault = proxy.add(Fault(faults.refuse(503, body=faults.SLOW_DOWN), times=1))
        with pytest.raises(ClientError, match="SlowDown"):
            behind.get_object(Bucket="harmed", Key="photo")
        proxy.add(Fault(faults.pace(50_000), times=1))
        started = time.monotonic()
        body = behind.get_object(Bucket="harmed", Key="photo")["Body"].read()
        assert body == b"x" * 100_000
        assert time.monotonic() - started > 1.8
        assert fault.hits == 1
