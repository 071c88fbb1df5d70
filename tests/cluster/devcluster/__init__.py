"""A real Kubernetes cluster on this machine, from nothing: `python -m tests.cluster.devcluster`."""
