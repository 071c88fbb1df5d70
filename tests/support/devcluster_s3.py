"""A real S3 server on this machine, for tests that need no cluster: versitygw, or one of another make.

    from tests.support.devcluster_s3 import S3Server

    with S3Server(tmp_path / "s3") as s3:
        boto3.client("s3", **s3.client_options()).create_bucket(Bucket="photos")

It can be killed and started again on the same port and folder, as a storage server that crashes.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.support import devcluster_tool
from tests.support.ports import free_port

PROGRAMS = ("versitygw", "rclone")
"""Servers of two makes; tests of what every S3 server is to give are run on both."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0


class S3Server:
    """A server with its buckets in `root`; the first start builds it if need be (a minute)."""

    def __init__(
        self,
        root: Path,
        access_key: str = "retrainer",
        secret_key: str = "retrainer-secret",
        region: str = "us-east-1",
        program: str = PROGRAMS[0],
    ) -> None:
        self.root = root
        self.access_key = access_key
        self.secret_key = secret_key
        self.region = region
        self.program = program
        self.port = 0
        self.log = root / f"{program}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL; it stays the same when the server is killed and started again."""
        if not self.port:
            raise RuntimeError("The S3 server has not been started.")
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def client_options(self) -> dict[str, str]:
        """Keyword arguments of `boto3.client("s3", ...)`."""
        return {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def start(self) -> None:
        """Start and wait until it answers; a server that runs already is left alone."""
        if self.running:
            return
        buckets = self.root / "buckets"
        buckets.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        command = self._command(buckets)
        with self.log.open("ab") as log:
            # Its own session: an interrupted test run ends it by stop(), not in the middle.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                what = "ended" if ended else f"did not answer in {_START_SECONDS:.0f} s"
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"The S3 server {what}. The end of its log:\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order; killed if that takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would; start() brings it back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing any more, its connections open, as behind a broken network."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self, buckets: Path) -> list[str]:
        program, address = str(devcluster_tool.binary(self.program)), f"127.0.0.1:{self.port}"
        if self.program == "rclone":
            keys = f"{self.access_key},{self.secret_key}"
            quiet = ["--config", "", "--log-level", "ERROR"]
            return [
                program,
                "serve",
                "s3",
                *quiet,
                "--addr",
                address,
                "--auth-key",
                keys,
                str(buckets),
            ]
        keys_of_root = ["--access", self.access_key, "--secret", self.secret_key]
        options = [*keys_of_root, "--region", self.region, "--quiet"]
        return [program, "--port", address, *options, "posix", str(buckets)]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            # Without a signature it is refused, which is an answer.
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
