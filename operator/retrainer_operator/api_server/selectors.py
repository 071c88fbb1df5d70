"""Label selectors of what is listed and watched."""

from retrainer.api.names import LABEL_JOB, LABEL_MANAGED_BY, MANAGED_BY

SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_JOB}"
"""Of children and their pods: the API server filters, other people's pods cost nothing."""
