"""What runs a network of one's own: LiteRT or ONNX Runtime on the cores, ONNX Runtime on a GPU."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrainer.api import Token
from retrainer.inference.pixels import Pixels
from retrainer.inference.preprocessing import Numbers, Preprocessing
from retrainer.inference.silence import quiet
from retrainer_trainer.backbone.backbone import Bottleneck, Engine
from retrainer_trainer.backbone.engine import BATCH, has_gpu
from retrainer_trainer.backbone.facts import Graph, refuse

LITERT, ONNX, ONNX_GPU = "litert-f32-given", "onnxruntime-f32", "onnxruntime-cuda-f32"
"""Engine and precision; part of the fingerprint, for each rounds in its own way."""

_SMALLER = BATCH // 4

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

FindProviders = Callable[[Callable[[str], None]], list[str]]
"""`onnx_providers`, or what tests put in its place."""


class GivenNetwork(NamedTuple):
    """A network from a file, what of it becomes the bottleneck, and what it is given.

    Attributes:
        body: the whole file, with the numbers that ONNX may keep in other files.
        graph: what the file says of itself.
        output: name of the output that is used.
        token: of an output with a vector for each token, which becomes the bottleneck.
        preprocessing: from an image to what the network is given.
    """

    body: bytes
    graph: Graph
    output: str
    token: Token | None
    preprocessing: Preprocessing

    @property
    def place(self) -> int:
        """Number of the output that is used."""
        return [output.name for output in self.graph.outputs].index(self.output)

    def bottlenecks(self, output: npt.NDArray[Any]) -> Bottleneck:
        """Take (images, width) from an output (images, width), (images, tokens, width) or
        (images, width, 1, 1)."""
        if self.token is Token.CLS:
            output = output[:, 0]
        elif self.token is Token.MEAN:
            output = output.astype(np.float32).mean(axis=1)
        vectors: Bottleneck = np.asarray(output, np.float32).reshape(len(output), -1)
        return vectors


class Runtime(NamedTuple):
    """A runtime with a network in it.

    Attributes:
        runs_on: LITERT, ONNX or ONNX_GPU.
        start: gives an Engine for one thread.
        batch: images to give it at a time.
    """

    runs_on: str
    start: Callable[[], Engine]
    batch: int


def start_runtime(
    network: GivenNetwork,
    shown: str,
    warn: Callable[[str], None],
    find_providers: FindProviders,
) -> Runtime:
    """Load a network's file into the runtime of its format.

    ONNX Runtime loads it when the first engine is asked for, so that a run whose bottlenecks are all
    cached does not wait for it.

    Raises:
        UserError: the runtime does not take the file.
    """
    if network.graph.format == "tflite":
        if CUDA in find_providers(lambda _: None):
            warn(
                "There is a GPU, but TensorFlow Lite files are run on the CPU: name the network's ONNX "
                "file in spec.backbone.url to use it."
            )
        return Runtime(LITERT, lambda: LiteRT(network, shown), 1)
    if CUDA in (providers := find_providers(warn)):
        engine = OnnxRuntime(network, shown, providers)
        if engine.is_on(CUDA):
            return Runtime(ONNX_GPU, lambda: engine, BATCH)
        warn(
            "There is a GPU, but ONNX Runtime cannot use it, for the driver or CUDA does not fit; "
            "bottlenecks are computed on the CPU."
        )
    return Runtime(ONNX, _Once(lambda: OnnxRuntime(network, shown, [CPU])), 1)


class _Once:
    """Makes an engine when it is asked for first, and gives that one to every thread."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def __call__(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make()
        return self._engine


class LiteRT:
    """A TensorFlow Lite file on the thread that calls it, image by image."""

    def __init__(self, network: GivenNetwork, shown: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._network = network
        with quiet():  # LiteRT announces its XNNPACK delegate on standard error
            try:
                self._interpreter = Interpreter(model_content=network.body, num_threads=1)
                source = self._interpreter.get_input_details()[0]
                wanted = network.preprocessing.shape
                if tuple(source["shape"]) != wanted:
                    self._interpreter.resize_tensor_input(source["index"], wanted)
                self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                refuse(shown, f"LiteRT does not take it ({_first_line(error)}): convert it again")
        self._input = self._interpreter.tensor(source["index"])
        self._output = self._interpreter.get_output_details()[network.place]["index"]

    def __call__(self, pixels: Sequence[Pixels]) -> list[Bottleneck]:
        """Give the bottleneck of each image."""
        return [self._bottleneck(image) for image in pixels]

    def _bottleneck(self, pixels: Pixels) -> Bottleneck:
        np.copyto(self._input(), self._network.preprocessing.numbers(pixels[None]))
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output)
        bottleneck: Bottleneck = self._network.bottlenecks(output)[0]
        return bottleneck


class OnnxRuntime:
    """An ONNX file; threads may call it at the same time, and each call runs on its own thread.

    The numbers are in memory once, however many threads there are.
    """

    def __init__(self, network: GivenNetwork, shown: str, providers: Sequence[str]) -> None:
        with quiet():  # its import warns of GPUs that are not there
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # it warns of what its optimiser removes
        self._network, self._shown = network, shown
        # TensorFloat-32, a GPU's default, keeps 10 of each factor's 23 bits.
        named = [(name, {"use_tf32": "0"}) if name == CUDA else name for name in providers]
        with quiet():
            try:
                self._session = onnxruntime.InferenceSession(network.body, options, providers=named)
            except Exception as error:  # of classes that only its compiled module names
                refuse(
                    shown,
                    f"ONNX Runtime does not take it ({_first_line(error)}): export it again, with "
                    "opset 17 say",
                )
        self._input = network.graph.input.name
        self._output = network.output
        self._dtype = np.dtype(network.graph.input.dtype)
        self._one_by_one = network.graph.batch == 1

    def is_on(self, provider: str) -> bool:
        """Say whether the network runs on this provider: one that fails is left out silently."""
        return provider in self._session.get_providers()

    def __call__(self, pixels: Sequence[Pixels]) -> list[Bottleneck]:
        """Give the bottleneck of each image.

        Raises:
            UserError: the network cannot be run.
        """
        numbers = self._network.preprocessing.numbers(np.stack(pixels)).astype(
            self._dtype, copy=False
        )
        batches = np.split(numbers, len(numbers)) if self._one_by_one else [numbers]
        return [bottleneck for batch in batches for bottleneck in self._bottlenecks(batch)]

    def _bottlenecks(self, numbers: Numbers) -> Bottleneck:
        try:
            (output,) = self._session.run([self._output], {self._input: numbers})
        except Exception as error:  # of classes that only its compiled module names
            if len(numbers) > _SMALLER:  # too many, perhaps, for the memory of a GPU
                parts = np.split(numbers, range(_SMALLER, len(numbers), _SMALLER))
                return np.concatenate([self._bottlenecks(part) for part in parts])
            refuse(self._shown, f"it cannot be run ({_first_line(error)}): export it again")
        return self._network.bottlenecks(output)


def onnx_providers(
    warn: Callable[[str], None],
    devices: Path = Path("/dev"),
    available: Callable[[], Sequence[str]] | None = None,
) -> list[str]:
    """Choose what ONNX Runtime runs on: CUDA before the CPU where there is a GPU and it can use one.

    Args:
        warn: called with a sentence on a GPU that ONNX Runtime cannot use.
        devices: the folder in which the kernel shows what this container was given.
        available: as `onnxruntime.get_available_providers`.
    """
    if not has_gpu(devices):
        return [CPU]
    if available is None:
        with quiet():
            import onnxruntime

            # Of CUDA's libraries, those that come as Python packages are loaded from there.
            if preload := getattr(onnxruntime, "preload_dlls", None):
                preload()
        available = onnxruntime.get_available_providers
    if CUDA in available():
        return [CUDA, CPU]
    warn(
        "There is a GPU, but this ONNX Runtime is built for CPUs; bottlenecks are computed on the CPU. "
        "To use it: pip install onnxruntime-gpu in place of onnxruntime."
    )
    return [CPU]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
