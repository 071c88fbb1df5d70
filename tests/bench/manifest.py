"""How long a manifest of many rows takes to read and match, and what memory that adds.

python tests/bench/manifest.py [--rows 1000000] [FORM...]
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from retrainer_trainer.dataset.manifest import read
from retrainer_trainer.dataset.matching import match
from retrainer_trainer.dataset.texts import Texts

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.manifests import FORMS

DEFAULT = ("CSV", "Vertex AI's CSV", "Parquet", "Hugging Face's metadata.jsonl")


def peak() -> int:
    """Megabytes of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def measure(form: str, rows: int) -> None:
    """Print a line of figures of one form."""
    paths = [f"label{i % 50}/{i:07}.jpg" for i in range(rows)]
    files = Texts.of(paths)
    body = FORMS[form]([(path, path.partition("/")[0]) for path in paths])
    del paths
    before, begun = peak(), time.process_time()
    manifest = read(body)
    middle = time.process_time()
    matched = match(manifest, files, 10, 10)
    end = time.process_time()
    print(
        f"{form}: {len(matched.row):,} rows, {len(body) >> 20} MB, read {middle - begun:.1f} s, matched "
        f"{end - middle:.1f} s, memory {before} MB before and {peak()} MB at most"
    )


def main() -> None:
    """Measure the forms that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("forms", nargs="*", metavar="FORM", choices=[*FORMS, []])
    arguments = parser.parse_args()
    for form in arguments.forms or DEFAULT:
        measure(form, arguments.rows)


if __name__ == "__main__":
    main()
