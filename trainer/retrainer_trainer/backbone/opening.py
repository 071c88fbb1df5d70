"""Opens the frozen network that a job names: one of the list, or one of its own."""

from collections.abc import Callable

from retrainer.api import RetrainJobSpec
from retrainer_trainer.backbone.engine import gpu
from retrainer_trainer.backbone.given import GivenBackbone, open_given
from retrainer_trainer.backbone.network import FindGpu, ListedBackbone, open_listed
from retrainer_trainer.backbone.runtimes import FindProviders, onnx_providers
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.store import Store

OpenedBackbone = ListedBackbone | GivenBackbone


def open_backbone(
    spec: RetrainJobSpec,
    cache: Store,
    log: Callable[[str], None],
    warn: Callable[[str], None],
    stop: Stop | None = None,
    *,
    find_gpu: FindGpu = gpu,
    find_providers: FindProviders = onnx_providers,
) -> OpenedBackbone:
    """Open the network of `spec.architecture` or of `spec.backbone`.

    Raises:
        UserError: its files are not there, or cannot be used.
        StorageError: the store does not answer.
        RetrainerError: the GPU fails, or its memory is too small.
    """
    if spec.backbone is not None:
        return open_given(
            spec, spec.backbone, cache, log, warn, stop=stop, find_providers=find_providers
        )
    return open_listed(spec, cache, log, warn, find_gpu)
