"""Runs a run's ONNX file: the same code checks an export and labels people's photos."""

import os

import numpy as np

from retrainer.inference.tflite import Pixels, Scores

INPUT, OUTPUT = "pixels:0", "scores:0"
"""Names in every ONNX file of a run; those that tf2onnx gives."""


class OnnxNetwork:
    """A network from pixels to scores, ready to run through ONNX Runtime.

    Attributes:
        size: height and width of its input, pixels.
        label_count: how many scores it gives.
        texts: what is written beside the graph, by name.
    """

    def __init__(self, file: bytes) -> None:
        """Load the file's content.

        Raises:
            ImportError: ONNX Runtime is not installed.
            ValueError: the file is damaged, or no network from images to scores.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        options.log_severity_level = 4  # it warns of what its optimiser removes
        try:
            self._session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of classes that only its compiled module names
            raise ValueError("it is damaged, or no ONNX file") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != [INPUT] or [o.name for o in outputs] != [OUTPUT]:
            raise ValueError("it is no network from an image to scores")
        batch, self.size, *_ = inputs[0].shape
        self._one_by_one = batch == 1
        self.label_count = int(outputs[0].shape[1])
        self.texts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def scores(self, pixels: Pixels) -> Scores:
        """Scores (images, labels), each row adding up to 1, of pixels (images, size, size, 3)."""
        floats = pixels.astype(np.float32)
        batches = np.split(floats, len(floats)) if self._one_by_one and len(floats) else [floats]
        scores = [self._session.run([OUTPUT], {INPUT: batch})[0] for batch in batches]
        return np.concatenate(scores)
