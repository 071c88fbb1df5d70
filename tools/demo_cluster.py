"""From nothing to a trained network on a real cluster on this machine (Linux, root).

    python tools/demo_cluster.py          `make demo-cluster`; `make cluster-down` ends the cluster

Brings the development cluster up, builds the container images, installs the chart, uploads
scikit-learn's handwritten digits to the cluster's S3 server, applies examples/digits.yaml and follows
the job. Each command that a user would type is printed before it runs.
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.support import installation  # noqa: E402
from tests.support.devcluster_client import DevCluster, ensure  # noqa: E402
from tools.digits import write_digits  # noqa: E402

NAMESPACE = "demo"
JOB = "digits"
EXAMPLE = REPOSITORY / "examples" / "digits.yaml"


def say(text: str) -> None:
    """Print a heading of the demo."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def shown(cluster: DevCluster, *arguments: str) -> int:
    """Run kubectl, its command line printed as a user would type it."""
    command_line = ["kubectl", "-n", NAMESPACE, *arguments]
    print(f"$ {shlex.join(command_line)}", flush=True)
    command = [cluster.kubectl_program, "--kubeconfig", str(cluster.kubeconfig), *command_line[1:]]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Run the demo; the exit code of its job."""
    say("1. A cluster on this machine (the first time it builds Kubernetes: 20 minutes)")
    cluster = ensure("node", name="dev", images=("operator", "trainer"))
    assert cluster.s3 is not None

    say("2. The chart")
    installation.install(cluster)
    print(f"installed charts/retrainer into namespace {installation.RELEASE_NAMESPACE}")

    say("3. Photos into the cluster's S3 server")
    installation.namespace(cluster, NAMESPACE)
    cluster.apply(cluster.s3.secret(installation.SECRET, NAMESPACE))
    installation.bucket_of(cluster.s3, "models")
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        count = installation.bucket_of(cluster.s3, "photos").upload(Path(folder), "digits")
    print(f"{count} images under s3://photos/digits")

    say("4. The job")
    print(EXAMPLE.read_text().rstrip())
    shown(cluster, "delete", "rj", JOB, "--ignore-not-found")
    shown(cluster, "apply", "-f", str(EXAMPLE.relative_to(REPOSITORY)))
    watch = [cluster.kubectl_program, "--kubeconfig", str(cluster.kubeconfig), "-n", NAMESPACE]
    print(f"$ kubectl -n {NAMESPACE} get rj {JOB} --watch", flush=True)
    watching = subprocess.Popen([*watch, "get", "rj", JOB, "--watch"])
    quiet = ["wait", "--for=condition=Complete", "--timeout=300s", f"rj/{JOB}"]
    ended = subprocess.run([*watch, *quiet], stdout=subprocess.DEVNULL, check=False).returncode
    watching.terminate()
    watching.wait()
    if ended != 0:
        shown(cluster, "describe", "rj", JOB)
        return 1

    say("5. The result")
    shown(cluster, "get", "rj", JOB)
    shown(cluster, "get", "rj", JOB, "-o", "jsonpath={.status.message}")
    print()
    say("Look further")
    print(
        f"  export KUBECONFIG={cluster.kubeconfig}\n"
        f"  export RETRAINER_S3_ENDPOINT={cluster.s3.for_host}\n"
        f"  export AWS_ACCESS_KEY_ID={cluster.s3.access_key}\n"
        f"  export AWS_SECRET_ACCESS_KEY={cluster.s3.secret_key}\n"
        f"  alias kubectl={shlex.quote(cluster.kubectl_program)}\n"
        f"  kubectl -n {NAMESPACE} describe rj {JOB}\n"
        f"  .venv/bin/retrainer describe {JOB} -n {NAMESPACE}\n"
        f"  .venv/bin/retrainer download {JOB} -n {NAMESPACE}    # with report.html\n"
        f"  {cluster.prometheus or 'Prometheus'}/graph?g0.expr=retrainer_job_test_accuracy\n"
        "  make cluster-down    # ends the cluster, leaves nothing behind"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
