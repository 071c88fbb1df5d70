"""A real Prometheus (the `prometheus` of PATH) on loopback, with a folder of its own, for tests."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from tests.operator.harness import eventually
from tests.support.ports import free_port

Sample = dict[str, Any]
"""A series in an answer of Prometheus: `metric` (its labels), and `value` or `values`."""


class Prometheus(AbstractContextManager["Prometheus"]):
    """Scrapes each second, evaluates `rules` each second, until the block ends."""

    def __init__(self, folder: Path, scrapes: Sequence[dict[str, Any]], *, rules: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._log = folder / "prometheus.log"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": list(scrapes),
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        command = [
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            # A test may ask for values of a quarter of an hour from now.
            "--query.lookback-delta=20m",
            "--log.level=warn",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(self._ready, within=120, what=f"Prometheus; see {self._log}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def query(self, expr: str, *, after: float = 0.0) -> list[Sample]:
        """The instant vector of `expr`, `after` seconds from now."""
        samples: list[Sample] = self._get("query", query=expr, time=time.time() + after)["result"]
        return samples

    def query_range(self, expr: str, *, seconds: float) -> list[Sample]:
        """The matrix of `expr` over the last `seconds`, a value per second, as a graph asks for."""
        now = time.time()
        samples: list[Sample] = self._get(
            "query_range", query=expr, start=now - seconds, end=now, step=1
        )["result"]
        return samples

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values that a dashboard's variable offers."""
        values: list[str] = self._get(f"label/{label}/values", **{"match[]": selector})
        return values

    def alerts(self) -> list[dict[str, Any]]:
        """The pending and firing alerts."""
        alerts: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return alerts

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **query: Any) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query or path}: {error.read().decode()}") from error

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus ended: {self._log.read_text()[-2000:]}")
        try:
            url = f"http://127.0.0.1:{self._port}/-/ready"
            return bool(urllib.request.urlopen(url, timeout=5).status == 200)
        except OSError:
            return False

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
