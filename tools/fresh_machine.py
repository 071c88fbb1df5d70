"""The README's commands on a machine that has nothing: a fresh Debian with Python, make and git.

    make test-fresh                       `make demo` and `make test-fast` there (Linux, root)
    make test-fresh SHARE=~/.cache/pip    with this folder of the machine, so that less is downloaded
    sudo python3 tools/fresh_machine.py 'make setup check'

The last commit of this checkout is cloned into it. Environment variables that tell pip how to reach a
package index (PIP_*, proxies, certificates), /etc/pip.conf and the certificates that this machine trusts
go along; nothing else does. It leaves nothing behind.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = "python3,python3-venv,make,git,ca-certificates"
COMMANDS = ("make demo", "make test-fast")
_ALONG = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_VARIABLES = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Mounts of its own, which end with it, as do the processes that a command left. Ctrl-C is taken as in a
# terminal, since tests press it: what a script starts in the background ignores it.
_INSIDE = """
set -e
root=$1 command=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for folder; do mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; done
exec env --default-signal=INT chroot "$root" /bin/bash -c "cd /root/retrainer && $command"
"""


def main() -> int:
    """Make the machine and run the commands in it; return the exit code of the first that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("commands", nargs="*", default=COMMANDS, help="run one after another")
    parser.add_argument(
        "--share", action="append", default=[], type=Path, help="a folder that is there as well"
    )
    options = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        print(
            "A fresh machine needs Linux, root and mmdebstrap (apt-get install mmdebstrap).",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="retrainer-fresh-") as folder:
        root = Path(folder)
        begun = time.monotonic()
        _make(root)
        print(f"A fresh Debian with {PACKAGES}: {time.monotonic() - begun:.0f} s", flush=True)
        for command in options.commands:
            begun = time.monotonic()
            print(f"$ {command}", flush=True)
            code = _run(root, command, [share.expanduser().resolve() for share in options.share])
            print(f"{command}: exit code {code}, {time.monotonic() - begun:.0f} s", flush=True)
            if code:
                return code
    return 0


def _make(root: Path) -> None:
    debian = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    subprocess.run([*debian, "bookworm", str(root)], check=True)
    for name in _ALONG:
        if Path(name).exists():
            shutil.copy(name, root / name.lstrip("/"))
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY)]
    subprocess.run([*clone, str(root / "root" / "retrainer")], check=True)


def _run(root: Path, command: str, shared: list[Path]) -> int:
    environment = {
        "HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm-256color",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }  # fmt: skip
    environment |= {
        name: text for name, text in os.environ.items() if name.upper().startswith(_VARIABLES)
    }
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh"]
    return subprocess.run(
        [*apart, str(root), command, *map(str, shared)], env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
