"""From `kubectl apply` to Complete on a full node: the 1,498 flowers, 500 steps, cold and warm cache.

    python tests/bench/apply_to_complete.py [ROUNDS]

Prints each round's seconds and the median, and where the time of the last round goes. Uses the node of
`make cluster-up`, or brings one up and takes it down again.
"""

import json
import os
import statistics
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support import installation  # noqa: E402
from tests.support.devcluster_client import ensure  # noqa: E402
from tests.support.installation import SECRET, Installation  # noqa: E402


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def timed(here: Installation, name: str, cache: str) -> float:
    """Seconds from apply until `kubectl wait` returns."""
    start = time.monotonic()
    here.submit(name, cache=cache)
    here.kubectl("wait", "--for=condition=Complete", "--timeout=300s", f"rj/{name}")
    return time.monotonic() - start


def where(here: Installation, name: str) -> str:
    """Where the time of a finished job went."""
    job = here.get("retrainjob", name)
    state = here.pods(name)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    created = job["metadata"]["creationTimestamp"]
    trainer = json.loads(state["message"]).get("seconds", 0.0)
    return (
        f"{_seconds(created, state['startedAt']):.0f} s to the container's start, "
        f"{_seconds(state['startedAt'], state['finishedAt']):.0f} s in it ({trainer:.1f} s of work), "
        f"{_seconds(state['finishedAt'], job['status']['completionTime']):.0f} s to "
        "the final status (whole seconds)"
    )


def main() -> None:
    """Run the bench."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    folder = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    with ensure("node", name="dev", images=("operator", "trainer")) as node:
        installation.install(node)
        assert node.s3 is not None
        bucket = installation.bucket_of(node.s3, "photos")
        if not bucket.keys("weights/"):
            bucket.upload(folder / "flower_photos", "flower_photos")
            bucket.upload(folder / "weights", "weights")
        namespace = f"bench-{uuid.uuid4().hex[:6]}"
        installation.namespace(node, namespace)
        node.apply(node.s3.secret(SECRET, namespace))
        here = Installation(node, namespace, bucket, node.s3.for_pods)
        for kind in ("cold", "warm"):
            taken = []
            for number in range(rounds):
                cache = f"s3://photos/cache/{namespace}-{number}"
                taken.append(timed(here, f"{kind}-{number}", cache))
            figures = ", ".join(f"{t:.1f}" for t in taken)
            print(f"{kind} cache: median {statistics.median(taken):.1f} s ({figures})")
            print(f"  {where(here, f'{kind}-{rounds - 1}')}")
        node.kubectl("delete", "namespace", namespace, "--wait=false")


if __name__ == "__main__":
    main()
