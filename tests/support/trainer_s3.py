"""Buckets on the tests' S3 server, and a small S3-like server whose listing has no ETags."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
from tests.support.devcluster_s3 import S3Server


def bucket(server: S3Server, name: str) -> Any:
    """A boto3 client, and the bucket made."""
    client: Any = boto3.client("s3", **server.client_options())  # type: ignore[call-overload]
    client.create_bucket(Bucket=name)
    return client


def upload(client: Any, name: str, prefix: str, folder: Path) -> None:
    """Upload every file below `folder`, each in one part."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=name, Key=key, Body=path.read_bytes())


class TinyS3:
    """Objects in memory behind the few S3 requests that the trainer makes.

    Attributes:
        objects: key (with the bucket before it) to bytes.
        etag: what a listing and an answer say of an object; None says nothing.
        silent: take requests and never answer.
        asked: a request came.
        gets: keys that were read, in order.
    """

    def __init__(self, etag: str | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.etag = etag
        self.silent = threading.Event()
        self.released = threading.Event()
        self.asked = threading.Event()
        self.gets: list[str] = []
        self.endpoint = ""

    @contextmanager
    def running(self) -> Iterator["TinyS3"]:
        """Serve on a free port."""
        tiny = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args: Any) -> None:
                pass

            def do_GET(self) -> None:
                tiny.asked.set()
                if tiny.silent.is_set():
                    tiny.released.wait(60)
                    return
                url = urlsplit(self.path)
                key = unquote(url.path).strip("/")
                if "/" not in key:
                    query = parse_qs(url.query)
                    self._send(200, tiny._listing(key, query.get("prefix", [""])[0]))
                elif key in tiny.objects:
                    tiny.gets.append(key)
                    self._send(200, tiny.objects[key])
                else:
                    self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")

            def do_HEAD(self) -> None:
                key = unquote(urlsplit(self.path).path).strip("/")
                body = tiny.objects.get(key)
                self._send(404 if body is None else 200, body or b"", body=False)

            def do_PUT(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                tiny.objects[unquote(urlsplit(self.path).path).strip("/")] = self.rfile.read(length)
                self._send(200, b"")

            def _send(self, status: int, content: bytes, *, body: bool = True) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Last-Modified", "Tue, 24 Nov 2026 12:00:00 GMT")
                if tiny.etag:
                    self.send_header("ETag", tiny.etag)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()

    def _listing(self, name: str, prefix: str) -> bytes:
        rows = []
        for path, body in sorted(self.objects.items()):
            holder, _, key = path.partition("/")
            if holder == name and key.startswith(prefix):
                etag = f"<ETag>{escape(self.etag)}</ETag>" if self.etag else ""
                rows.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>{etag}"
                    "<LastModified>2026-11-24T12:00:00.000Z</LastModified></Contents>"
                )
        text = (
            '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
            f"<Name>{name}</Name>{''.join(rows)}</ListBucketResult>"
        )
        return text.encode()
