"""On a full node: the example of the demo, and the chart while a job runs.

Upgraded, tested, uninstalled and installed again, it loses no job.
"""

from pathlib import Path

import pytest
from tests.support import installation
from tests.support.chart import helm_well
from tests.support.installation import RELEASE_NAMESPACE, Installation
from tools.digits import write_digits

pytestmark = pytest.mark.cluster


def test_jobs_outlive_an_upgrade_and_an_uninstall(here: Installation) -> None:
    where = ["--namespace", RELEASE_NAMESPACE]
    here.submit("lasting", architecture="mobilenet_1.0_224", training={"steps": 300})
    here.until("lasting", lambda s: s.get("phase") in ("Bottlenecks", "Training"))
    try:
        installation.install(here.cluster, "--set=operator.replicas=2")
        assert "Succeeded" in helm_well("test", "retrainer", *where, cluster=here.cluster)

        helm_well("uninstall", "retrainer", *where, "--wait", cluster=here.cluster)
        here.kubectl("get", "rj", "lasting")
        here.kubectl("wait", "--for=condition=Complete", "--timeout=600s", "job/lasting-train")
    finally:
        installation.install(here.cluster)
    assert here.complete("lasting")["metrics"]["testAccuracy"] > 0.8
    assert len(here.pods("lasting")) == 1


def test_the_digits_example_gives_the_figure_it_states(here: Installation, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "digits.yaml"
    write_digits(tmp_path)
    assert here.cluster.s3 is not None
    installation.bucket_of(here.cluster.s3, "models")
    here.bucket.upload(tmp_path, "digits")
    here.kubectl("apply", "-f", str(example))
    metrics = here.complete("digits")["metrics"]
    assert metrics["testAccuracy"] >= 0.97
    assert metrics["testImages"] == 166
