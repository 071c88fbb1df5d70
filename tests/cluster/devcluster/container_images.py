"""The project's own container images, built without a registry or a running Docker.

`python` is Debian with Python, made by mmdebstrap: what the others stand on here, and handy in
tests that need a pod with an interpreter. `operator` and `trainer` are the Dockerfile's targets.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.devcluster import archives, packages, places, watched
from tests.cluster.devcluster.failure import ClusterError, say
from tests.cluster.devcluster.layout import Layout

# What the Dockerfile copies for each target; the archive's name is the digest of all of it.
_SOURCES = {
    "operator": ("requirements/operator.txt", "sdk/retrainer", "operator/retrainer_operator"),
    "trainer": ("requirements/trainer.txt", "sdk/retrainer", "trainer/retrainer_trainer"),
    "trainer-tensorflow": (
        "requirements/trainer-tensorflow.txt",
        "sdk/retrainer",
        "trainer/retrainer_trainer",
    ),
}
TARGETS = ("python", *_SOURCES)
_CERTIFICATES = Path("/etc/ssl/certs")
_DEBIAN = [
    "--variant=minbase",
    "--include=python3,python3-venv,ca-certificates",
    *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "info", "locale", "man")),
    "bookworm",
]


def reference(target: str) -> str:
    """The name by which pods know the image."""
    return f"{archives.PREFIX}python:dev" if target == "python" else f"retrainer/{target}:dev"


@dataclass(frozen=True)
class Built:
    """A built image: a file of its own (an archive), or a descriptor in the shared layout."""

    reference: str
    archive: Path | None = None
    descriptor: dict[str, Any] | None = None

    def __str__(self) -> str:
        digest = self.descriptor["digest"] if self.descriptor else self.archive
        return f"{self.reference}\t{digest}"


def ensure(targets: Iterable[str]) -> list[Built]:
    """Build what the cache lacks."""
    wanted = list(targets)
    unknown = [target for target in wanted if target not in TARGETS]
    if unknown:
        raise ClusterError(f"No such image: {', '.join(unknown)}. Known: {', '.join(TARGETS)}.")
    packages.need_root()
    with _one_build_at_a_time():
        return [
            Built(reference(each), archive=_python()) if each == "python" else _target(each)
            for each in wanted
        ]


def clean() -> None:
    """Delete the builder's layers and the archives: the next build takes minutes again."""
    with _one_build_at_a_time():
        _unmount()
        shutil.rmtree(_builder(), ignore_errors=True)
        shutil.rmtree(layout().folder, ignore_errors=True)
        for file in (*_folder().glob("*.tar"), *_folder().glob("*.json")):
            file.unlink()


def _python() -> Path:
    archive = _folder() / f"python-{_digest(_DEBIAN, [])}.tar"
    if archive.exists():
        return archive
    packages.ensure(packages.IMAGES)
    with _announced("python"):
        layer = archive.with_suffix(".layer.tar")
        debian = ["nice", "-n", "10", "mmdebstrap", "--quiet", *_DEBIAN, str(layer)]
        _run_watched(debian, "Debian's packages")
        environment = ["PATH=/usr/local/bin:/usr/bin:/bin"]
        archives.write(archive, reference("python"), layer, {"Env": environment})
        layer.unlink()
    return archive


def layout() -> Layout:
    return Layout(_folder() / "layout")


def _target(target: str) -> Built:
    dockerfile = places.CHECKOUT / "Dockerfile"
    if not dockerfile.exists():
        raise ClusterError(f"There is no {dockerfile} to build {target} from.")
    python = _python()
    sources = [dockerfile, *(places.CHECKOUT / each for each in _SOURCES[target])]
    key = _digest([python.name], sources)
    record = _folder() / f"{target}.json"
    if record.exists():
        built = json.loads(record.read_text())
        if built["key"] == key:
            return Built(reference(target), descriptor=built["descriptor"])
    packages.ensure(packages.IMAGES)
    with _announced(target):
        command = ["build", "--layers", "--isolation=chroot", "--network=host", "--pull=never"]
        command += [f"--target={target}", f"--build-arg=PYTHON_IMAGE={_imported(python)}"]
        if (_CERTIFICATES / "ca-certificates.crt").exists():
            # This machine may reach the package index by a way that has certificates of its own.
            command += [f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"]
            command += [f"--build-arg=PIP_CERT={_CERTIFICATES}/ca-certificates.crt"]
        name = f"localhost/{reference(target)}"
        command += [f"--tag={name}", f"--file={dockerfile}", str(places.CHECKOUT)]
        _buildah(*command, run=lambda command: _run_watched(command, target))
        destination = f"oci:{layout().folder}:{target}"
        # zstd at its lightest: this transport always compresses, and gzip would take a minute.
        light = ("--compression-format=zstd", "--compression-level=1")
        push = ("push", "--quiet", "--format=oci", *light, name, destination)
        _buildah(*push, run=lambda command: _run_watched(command, f"packing {target}"))
        descriptor = layout().descriptor(target)
        record.write_text(json.dumps({"key": key, "descriptor": descriptor}))
        layout().prune()
    return Built(reference(target), descriptor=descriptor)


def _imported(archive: Path) -> str:
    """The builder's own name of an archive; taken in once."""
    name = f"localhost/{archive.stem}:dev"
    if not _buildah("images", "--quiet", "--filter", f"reference={name}").strip():
        identity = _buildah("pull", "--quiet", f"docker-archive:{archive}").strip()
        _buildah("tag", identity, name)
    return name


def _buildah(*arguments: str, run: Callable[[list[str]], str] | None = None) -> str:
    builder = _builder()
    command = ["nice", "-n", "10", "buildah", "--root", str(builder / "root")]
    command += ["--runroot", str(builder / "run"), "--storage-driver", _driver()]
    try:
        return (run or _run)([*command, *arguments])
    finally:
        _unmount()


def _unmount() -> None:
    """The builder leaves its own folder mounted, and more where it failed; innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{_builder()}/"):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _driver() -> str:
    """overlay where the kernel lets us: vfs copies the whole tree for every line of the file."""
    builder = _builder()
    choice = builder / "driver"
    if not choice.exists():
        builder.mkdir(parents=True, exist_ok=True)
        lower, upper, work, merged = (
            builder / "try" / each for each in ("lower", "upper", "work", "merged")
        )
        for folder in (lower, upper, work, merged):
            folder.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        tried = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)],
            capture_output=True,
            check=False,
        )
        if tried.returncode == 0:
            _run(["umount", str(merged)])
        shutil.rmtree(builder / "try")
        choice.write_text("overlay" if tried.returncode == 0 else "vfs")
    return choice.read_text()


def _digest(texts: list[str], sources: list[Path]) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    for source in sources:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(places.CHECKOUT)).encode() + b"\0")
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    folder = places.cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _builder() -> Path:
    return places.cache() / "buildah"


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    _check(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


def _run_watched(command: list[str], what: str) -> str:
    """The same for what takes minutes: it says which step of the Dockerfile it is at."""
    started = time.monotonic()

    def progress(lines: list[str]) -> str:
        steps = [line[:80] for line in lines if "STEP " in line]
        return f"  {(steps or [what])[-1]}: {watched.duration(time.monotonic() - started)} so far"

    done = watched.run(command, progress)
    _check(command, done.returncode, done.stdout)
    return done.stdout


def _check(command: list[str], code: int, printed: str) -> None:
    if code != 0:
        last = "\n".join(printed.splitlines()[-25:])
        raise ClusterError(f"{' '.join(command)} failed:\n{last}")


@contextmanager
def _announced(target: str) -> Iterator[None]:
    say(f"building the container image {target} ...")
    started = time.monotonic()
    yield
    say(f"built {target}: {time.monotonic() - started:.0f} s")


@contextmanager
def _one_build_at_a_time() -> Iterator[None]:
    with (_folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
