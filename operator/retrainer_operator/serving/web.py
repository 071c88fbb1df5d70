"""The operator's two HTTP ports: /metrics, and the probes /healthz and /readyz."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from retrainer_operator.serving.metrics import CONTENT_TYPE


class Web:
    """Serves until closed; a port of 0 is any free one."""

    def __init__(
        self,
        *,
        page: Callable[[], bytes],
        alive: Callable[[], str],
        ready: Callable[[], str],
    ) -> None:
        """Take what to serve: `page` runs in a thread; `alive` and `ready` say what is wrong, or ""."""
        self._page = page
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._runners: list[web.AppRunner] = []

    async def start(self, host: str | None, metrics_port: int, probe_port: int) -> tuple[int, int]:
        """Listen, and return both ports.

        Raises:
            OSError: a port is taken.
        """
        metrics = web.Application()
        metrics.router.add_get("/metrics", self._metrics)
        probes = web.Application()
        for path in self._checks:
            probes.router.add_get(path, self._probe)
        return (
            await self._listen(metrics, host, metrics_port),
            await self._listen(probes, host, probe_port),
        )

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(self, app: web.Application, host: str | None, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port).start()
        return int(runner.addresses[0][1])

    async def _metrics(self, _: web.Request) -> web.Response:
        text = await asyncio.to_thread(self._page)
        response = web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
        response.enable_compression()
        return response

    async def _probe(self, request: web.Request) -> web.Response:
        wrong = self._checks[request.path]()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)
