"""A page in Chromium without a window, driven by its DevTools protocol."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

# The sandbox needs user namespaces, which root in a container has not; the page is a test's own.
_COMMAND = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


class Tab:
    """A page that is open."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=120, enable_multithread=False)
        self._count = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session: str | None = attached["sessionId"]

    _session: str | None = None

    def call(self, method: str, *, until: str = "", state: str = "", **parameters: Any) -> Any:
        """Call a method of the protocol; return its result once the event `until` has come too.

        With `state` only an event that says this state counts.
        """
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        result = None
        while result is None or until:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result = answer["result"]
            if answer.get("method") == until and answer["params"].get("state", "") == state:
                until = ""
        return result

    def open(self, page: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.call("Page.enable")
        self.call("Page.navigate", url=page.as_uri(), until="Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self._socket.close()


@contextmanager
def open_tab(profile: Path) -> Iterator[Tab]:
    """Start a browser with a profile of its own."""
    process = subprocess.Popen(
        [*_COMMAND, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        heading = "DevTools listening on "
        address = next(line for line in process.stderr if line.startswith(heading))
        tab = Tab(address.removeprefix(heading).strip())
        try:
            yield tab
        finally:
            tab.close()
    finally:
        process.kill()
        process.communicate()
