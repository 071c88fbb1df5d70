"""A reverse proxy that harms what passes through it, in front of an API server or of S3.

    with Proxy(server.url, tls=server.tls) as proxy:
        proxy.add(Fault(refuse(503), when=is_write, times=1))
        ...  # a program that talks to `proxy.url`

Each request meets the first fault that is meant for it: one harms it, all others pass untouched. A fault
counts what it has harmed (`hits`), may spare the first few (`skip`) and stop after some (`times`). The
events of watches are harmed one by one (`EventFault`). The proxy runs in a thread of its own, so that a
test may start, kill and ask processes meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

Body = dict[str, Any]

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
)
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PIECE = 16 * 1024


@dataclass(frozen=True)
class Request:
    """What a program asked."""

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    accept: str = ""

    @property
    def is_write(self) -> bool:
        return self.method in _WRITES

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")

    @property
    def resource(self) -> str:
        """`jobs` of `/apis/batch/v1/namespaces/team/jobs/x`; `retrainjobs/status` of a status."""
        parts = self._after_version()
        return parts[0] + (f"/{parts[2]}" if len(parts) > 2 else "") if parts else ""

    @property
    def namespace(self) -> str:
        parts = self.path.split("/")
        return parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else ""

    @property
    def name(self) -> str:
        """Of the object in the path, or in the body of a creation."""
        parts = self._after_version()
        if len(parts) > 1:
            return parts[1]
        try:
            return str(json.loads(self.body)["metadata"]["name"]) if self.method == "POST" else ""
        except (ValueError, LookupError, TypeError):
            return ""

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and len(self._after_version()) == 1 and not self.is_watch

    def _after_version(self) -> list[str]:
        parts = self.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        return parts[2:] if parts[:1] == ["namespaces"] and len(parts) > 2 else parts

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Exchange:
    """A request on its way, for the fault that harms it."""

    def __init__(self, proxy: Proxy, incoming: web.BaseRequest, request: Request) -> None:
        self.proxy = proxy
        self.request = request
        self._incoming = incoming

    def cut(self) -> web.StreamResponse:
        """End the connection without an answer."""
        transport = self._incoming.transport
        if transport is not None:
            transport.abort()
        raise asyncio.CancelledError

    async def pass_on(self, *, bytes_per_second: float | None = None) -> web.StreamResponse:
        """Ask the server and hand its answer back as it comes."""
        async with self._ask() as answer:
            if self.request.is_watch:
                return await self._stream_events(answer)
            response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
            await response.prepare(self._incoming)
            async for piece in answer.content.iter_chunked(_PIECE):
                if bytes_per_second:
                    await asyncio.sleep(len(piece) / bytes_per_second)
                await response.write(piece)
            await response.write_eof()
            return response

    async def take_effect(self) -> tuple[int, bytes]:
        """Ask the server and keep its answer from whoever asked."""
        # An API server packs whatever is larger than 128 KiB, and what is kept is answered without a
        # header that says so.
        async with self._ask(packed=False) as answer:
            return answer.status, await answer.read()

    def _ask(self, *, packed: bool = True) -> Any:
        headers = _passed(self._incoming.headers)
        headers.popall("Content-Length", None)
        if not packed:
            headers["Accept-Encoding"] = "identity"
        return self.proxy.session.request(
            self.request.method,
            self.proxy.upstream + str(self._incoming.raw_path),
            headers=headers,
            data=self.request.body or None,
            allow_redirects=False,
        )

    async def _stream_events(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_passed(answer.headers))
        response.headers.popall("Content-Length", None)
        await response.prepare(self._incoming)
        try:
            async for line in _lines(answer.content):
                fault = self.proxy.harm_event(self.request, line)
                if fault is None:
                    await response.write(line + b"\n")
                elif fault.harm == "cut":
                    self.cut()
                elif fault.harm == "silence":
                    await self.proxy.closing.wait()
                elif isinstance(fault.harm, dict):
                    event = {"type": "ERROR", "object": fault.harm}
                    await response.write(json.dumps(event).encode() + b"\n")
                    break
        except aiohttp.ClientError:
            self.cut()
        await response.write_eof()
        return response


Harm = Callable[[Exchange], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """Harms requests: those for which `when` holds, after `skip` of them, at most `times`."""

    harm: Harm
    when: Callable[[Request], bool] = lambda _: True
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        if (self.times is not None and self.hits >= self.times) or not self.when(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


@dataclass
class EventFault:
    """Harms single events of watches: `drop`, `cut` the watch, `silence` it, or an ERROR's object."""

    harm: str | Body
    when: Callable[[Request, Body], bool] = lambda _request, _event: True
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def takes(self, request: Request, event: Body) -> bool:
        if (self.times is not None and self.hits >= self.times) or not self.when(request, event):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


def status_object(code: int, reason: str, message: str = "By the fault proxy.") -> Body:
    """What the API server says of an error; also the object of an ERROR event."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip


_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError",
            503: "ServiceUnavailable"}  # fmt: skip


def refuse(code: int, *, retry_after: int | None = None, body: bytes | None = None) -> Harm:
    """Answer with an error, without asking the server."""

    async def harm(_: Exchange) -> web.StreamResponse:
        text = body or json.dumps(status_object(code, _REASONS.get(code, "Unknown"))).encode()
        kind = "application/xml" if text.startswith(b"<") else "application/json"
        headers = {"Content-Type": kind}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return web.Response(status=code, body=text, headers=headers)

    return harm


SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
"""What S3 says with a 503."""


def answer(body: bytes, *, effect: bool = False) -> Harm:
    """A 200 with this body; with `effect` the server has done what was asked."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        if effect:
            await exchange.take_effect()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    return harm


async def drop(exchange: Exchange) -> web.StreamResponse:
    """End the connection; the server hears nothing."""
    return exchange.cut()


async def lose_answer(exchange: Exchange) -> web.StreamResponse:
    """The server does it, then the connection ends."""
    await exchange.take_effect()
    return exchange.cut()


async def hang(exchange: Exchange) -> web.StreamResponse:
    """Neither an answer nor an end, until the proxy closes."""
    await exchange.proxy.closing.wait()
    return exchange.cut()


def fail_after(code: int) -> Harm:
    """The server does it, and an error is answered."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        await exchange.take_effect()
        return await refuse(code)(exchange)

    return harm


def delay(seconds: float) -> Harm:
    """Pass it on later."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await exchange.pass_on()

    return harm


def pace(bytes_per_second: float) -> Harm:
    """Hand the answer back this slowly."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        return await exchange.pass_on(bytes_per_second=bytes_per_second)

    return harm


def meanwhile(action: Callable[[], None]) -> Harm:
    """Do this, then pass it on."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        action()
        return await exchange.pass_on()

    return harm


def call(action: Callable[[], None], *, effect: bool) -> Harm:
    """Do this (kill a process, mostly) before the server hears of it, or after its effect; then cut."""

    async def harm(exchange: Exchange) -> web.StreamResponse:
        if effect:
            await exchange.take_effect()
        action()
        return exchange.cut()

    return harm


async def stale(exchange: Exchange) -> web.StreamResponse:
    """Answer a list as it was answered the last time, its version included."""
    old = exchange.proxy.last_lists.get(_of_list(exchange.request))
    if old is None:
        return await exchange.pass_on()
    return web.Response(body=old, headers={"Content-Type": "application/json"})


@dataclass(frozen=True)
class Server:
    """What stands behind a proxy."""

    url: str
    tls: ssl.SSLContext | None = None

    @classmethod
    def of_kubeconfig(cls, path: Path) -> Server:
        cluster = yaml.safe_load(path.read_text())["clusters"][0]["cluster"]
        if "certificate-authority-data" in cluster:
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        else:
            authority = Path(cluster["certificate-authority"]).read_text()
        return cls(cluster["server"], ssl.create_default_context(cadata=authority))


def kubeconfig_through(proxy: Proxy, original: Path, path: Path) -> Path:
    """A copy of this kubeconfig, written to `path`, that reaches its cluster through the proxy."""
    document = yaml.safe_load(original.read_text())
    for entry in document["clusters"]:
        entry["cluster"] = {"server": proxy.url}
    path.write_text(yaml.safe_dump(document))
    return path


@dataclass
class _Faults:
    of_requests: list[Fault] = field(default_factory=list)
    of_events: list[EventFault] = field(default_factory=list)


class Proxy:
    """Listens on a port of this machine until closed."""

    def __init__(self, server: Server, *, keep_lists: bool = False) -> None:
        self.upstream = server.url.rstrip("/")
        self.requests: list[Request] = []
        self.last_lists: dict[str, bytes] = {}
        self.closing = asyncio.Event()
        self.url = ""
        self.bytes_per_second: float | None = None
        """At which what is sent to the server is taken in; at once if None."""
        self._tls = server.tls
        self._keep_lists = keep_lists
        self._faults = _Faults()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fault proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("The fault proxy does not listen.")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self.closing.set)
        self._thread.join(30)

    def add(self, fault: Fault | EventFault) -> Any:
        """This fault, from now on."""
        with self._lock:
            if isinstance(fault, Fault):
                self._faults.of_requests.append(fault)
            else:
                self._faults.of_events.append(fault)
        return fault

    def faults(self) -> list[Fault | EventFault]:
        """All faults that have been added."""
        with self._lock:
            return [*self._faults.of_requests, *self._faults.of_events]

    def clear(self) -> None:
        """No fault any more."""
        with self._lock:
            self._faults = _Faults()

    def remove(self, fault: Fault | EventFault) -> None:
        with self._lock:
            self._faults.of_requests = [f for f in self._faults.of_requests if f is not fault]
            self._faults.of_events = [f for f in self._faults.of_events if f is not fault]

    def harm_event(self, request: Request, line: bytes) -> EventFault | None:
        """The fault that this event of a watch meets."""
        with self._lock:
            if not self._faults.of_events:
                return None
            event = json.loads(line)
            return next((f for f in self._faults.of_events if f.takes(request, event)), None)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        rest = asyncio.all_tasks(self._loop)
        for task in rest:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.close()

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        )
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self.closing.wait()
        await self.session.close()
        await runner.cleanup()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        body = await self._body(incoming)
        with self._lock:
            request = Request(
                len(self.requests),
                incoming.method,
                incoming.path,
                dict(incoming.query),
                body,
                incoming.headers.get("Accept", ""),
            )
            self.requests.append(request)
            fault = next((f for f in self._faults.of_requests if f.takes(request)), None)
        exchange = Exchange(self, incoming, request)
        try:
            if fault is not None:
                return await fault.harm(exchange)
            if self._keep_lists and request.is_list:
                code, text = await exchange.take_effect()
                if code == 200:
                    self.last_lists[_of_list(request)] = text
                headers = {"Content-Type": "application/json"}
                return web.Response(status=code, body=text, headers=headers)
            return await exchange.pass_on()
        except (aiohttp.ClientError, ConnectionError):
            return exchange.cut()

    async def _body(self, incoming: web.BaseRequest) -> bytes:
        if self.bytes_per_second is None:
            return await incoming.read()
        body = b""
        async for piece in incoming.content.iter_chunked(_PIECE):
            body += piece
            await asyncio.sleep(len(piece) / self.bytes_per_second)
        return body


def _of_list(request: Request) -> str:
    query = request.query
    return f"{request.path} {query.get('labelSelector')} {query.get('continue')} {request.accept}"


def _passed(headers: CIMultiDictProxy[str] | CIMultiDict[str]) -> CIMultiDict[str]:
    kept = ((name, text) for name, text in headers.items() if name.lower() not in _HOP_BY_HOP)
    return CIMultiDict(kept)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                yield line
