"""Images in, labels out: decoding, preprocessing and the TensorFlow Lite file of a run."""
