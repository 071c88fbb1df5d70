"""examples/flowers.ipynb, run as a data scientist would: a kubeconfig, a namespace, an S3 server."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.support.installation import Installation

pytestmark = pytest.mark.cluster
NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "flowers.ipynb"


def test_the_notebook_runs_from_the_first_cell_to_the_last(
    here: Installation, flowers: Path, tmp_path: Path
) -> None:
    s3 = here.cluster.s3
    assert s3 is not None
    environment = {
        **os.environ,
        "KUBECONFIG": str(here.cluster.kubeconfig),
        "NAMESPACE": here.namespace,
        "PHOTOS": f"s3://{here.bucket.name}/flower_photos",
        "MODELS": f"s3://{here.bucket.name}/out/{here.namespace}",
        "WEIGHTS": f"s3://{here.bucket.name}/weights",
        "ENDPOINT": s3.for_pods,
        "RETRAINER_S3_ENDPOINT": s3.for_host,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "PHOTO": str(next((flowers / "roses").glob("*.jpg"))),
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)

    outputs = [
        str(output.get("data", {}).get("text/html") or output.get("data", {}).get("text/plain"))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in ("execute_result", "display_data")
    ]
    text = "\n".join(outputs)
    assert "flowers-500" in text
    assert "images_cached=1498" in text
    assert "images_computed=0" in text
    assert "roses" in outputs[-1]
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert pictures, "the learning curve was not drawn"
