"""Label selectors of what is listed and watched."""

from retrainer.api.names import LABEL_JOB, LABEL_MANAGED_BY, MANAGED_BY

SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_JOB}"
"""Selects children and their pods in the API server, so that other people's pods cost nothing here."""
