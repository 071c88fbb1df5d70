"""`retrainer` as its user runs it: the installed program, a folder, a kubeconfig."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.installation import Installation

PROGRAM = Path(sys.executable).with_name("retrainer")
LONGEST_SECONDS = 600
"""The limit of a command, longer than any takes; one that hangs ends the test with its output."""


@dataclass(frozen=True)
class Output:
    """What a command printed."""

    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of its standard output."""
        return self.out.splitlines()


@dataclass(frozen=True)
class Running:
    """A command that is still running."""

    process: subprocess.Popen[bytes]
    output: Path

    def lines(self) -> list[str]:
        """The lines that it has printed so far."""
        return self.output.read_text().splitlines()

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@dataclass(frozen=True)
class Terminal:
    """Runs commands in `folder`."""

    folder: Path
    kubeconfig: Path
    environment: dict[str, str]

    def __call__(
        self, *arguments: str, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> Output:
        """Run one command to its end; it has to exit with `code`, and never with a traceback.

        Args:
            arguments: after `retrainer`.
            code: 0, 64 for a mistake in what was asked, 1 for anything else.
            variables: more of the environment.
        """
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        transcript = f"retrainer {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        assert done.returncode == code, f"exit code {done.returncode}, not {code}: {transcript}"
        assert "Traceback" not in transcript
        return Output(done.stdout, done.stderr)

    @contextmanager
    def start(self, *arguments: str) -> Iterator["Running"]:
        """Start a command that runs until it is interrupted; after the block it is ended in any case."""
        output = self.folder / f"{'-'.join(arguments).replace('/', '-')}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [PROGRAM, *arguments],
                cwd=self.folder,
                env=self.environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Running(process, output)
        finally:
            process.kill()
            process.wait()

    def add_context(self, name: str, *, server: str = "", token: str = "") -> None:
        """Add a context like the current one, with another server or another user."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        context = {**config["contexts"][0]["context"]}
        if server:
            config["clusters"].append({"name": name, "cluster": {"server": server}})
            context["cluster"] = name
        if token:
            config["users"].append({"name": name, "user": {"token": token}})
            context["user"] = name
        config["contexts"].append({"name": name, "context": context})
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def write(self, name: str, *documents: dict[str, Any]) -> str:
        """Write a file of these YAML documents; return its name."""
        (self.folder / name).write_text(yaml.safe_dump_all(documents))
        return name


def terminal(team: Installation, folder: Path) -> Terminal:
    """A terminal whose one context is the team's namespace, with keys for the store."""
    s3 = team.cluster.s3
    assert s3 is not None
    view = team.cluster.kubectl("config", "view", "--raw", "--flatten", "--minify")
    config = yaml.safe_load(view)
    config["contexts"][0]["name"] = config["current-context"] = "team"
    config["contexts"][0]["context"]["namespace"] = team.namespace
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    environment = {
        "KUBECONFIG": str(kubeconfig),
        "RETRAINER_S3_ENDPOINT": s3.for_host,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region,
        "NO_COLOR": "1",
    }
    return Terminal(folder, kubeconfig, os.environ | environment)
