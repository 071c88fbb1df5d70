"""Opens the store that a URL names."""

import re
from pathlib import Path
from urllib.parse import unquote

from retrainer.api import Storage, reasons
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.local import LocalStore
from retrainer_trainer.store.store import Log, Store

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def open_store(
    url: str,
    storage: Storage,
    field: str = "spec.images",
    log: Log | None = None,
    stop: Stop | None = None,
) -> Store:
    """Open the store at `url`; nothing is contacted yet.

    Args:
        url: `s3://bucket/prefix`, `file:///folder`, or a local path.
        storage: endpoint, region and whether to verify certificates; credentials are found as boto3
            finds them.
        field: of the spec, for messages.
        log: called with a sentence when a store stops answering.
        stop: once it is asked, a store that does not answer is waited for no longer.

    Raises:
        UserError: the URL names no kind of store that there is.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return LocalStore(Path(url).expanduser(), url, field)
    if scheme[1] == "file":
        return LocalStore(Path(unquote(url.removeprefix("file://"))), url, field)
    if scheme[1] == "s3":
        # Importing boto3 and obstore takes 0.3 s, which a run on local folders does not need.
        from retrainer_trainer.store.s3 import S3Store

        return S3Store(url, storage, field, log, stop)
    raise reasons.INVALID_SPEC.error(
        detail=f"{field}: {url} must be s3://bucket/prefix, file:///folder or a local path."
    )
