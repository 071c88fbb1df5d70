"""The API server in memory behind a real HTTP port on loopback, for what reads a kubeconfig."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from tests.support.fake_apiserver import FakeApiServer

from retrainer.errors import ClusterError


@contextmanager
def serve(fake: FakeApiServer, kubeconfig: Path) -> Iterator[str]:
    """Serve `fake` while the block runs, and write a kubeconfig for it; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            response = fake.open(self.command, url.path, dict(parse_qsl(url.query)), body=body)
            self.send_response(response.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                if response.status < 400 and (response.is_live or url.path.endswith("/log")):
                    for line in response.lines():
                        self.chunk(line + b"\n")
                else:
                    self.chunk(response.read())
                self.wfile.write(b"0\r\n\r\n")
            except (ClusterError, OSError):
                # Cut: the end of the chunks is never sent.
                self.close_connection = True

        def chunk(self, data: bytes) -> None:
            if data:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def log_message(self, format: str, *args: object) -> None:
            return

    for method in ("GET", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    context = {"cluster": "fake", "user": "ann", "namespace": "default"}
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": url}}],
                "users": [{"name": "ann", "user": {"token": "not-a-real-token"}}],
                "contexts": [{"name": "fake", "context": context}],
            }
        )
    )
    try:
        yield url
    finally:
        fake.cut()
        server.shutdown()
        server.server_close()
