"""What generators share: write files, or with `--check` say which are not what would be written."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def write_or_check(files: Mapping[Path, str], description: str) -> int:
    """The command line of a generator.

    Args:
        files: what each file has to hold.
        description: one sentence for `--help`.

    Returns:
        The exit code: 1 if `--check` was given and a file is old.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 if a file is old"
    )
    check = parser.parse_args().check
    old = [p for p, text in files.items() if not p.exists() or p.read_text() != text]
    for path in old:
        name = path.relative_to(REPOSITORY)
        if check:
            print(f"{name} is old: run make generate", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
            print(f"wrote {name}")
    return int(check and bool(old))
