"""Keeps TensorFlow's, absl's and LiteRT's chatter off the terminal."""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_lock = threading.RLock()
_depth = 0
_saved: tuple[int, int] = (-1, -1)


def quiet_environment() -> None:
    """Settings that must be made before TensorFlow, Keras or OpenCV is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same rounding on every machine
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


def import_tensorflow() -> Any:
    """TensorFlow, without its chatter.

    Raises:
        ImportError: it is not installed.
    """
    quiet_environment()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
    tf.get_logger().setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tf


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what is written to file descriptors 1 and 2 to nowhere.

    Only around calls of libraries that cannot be told to be silent: the whole process is muted
    meanwhile. Reporter writes to copies of the descriptors and is still heard.
    """
    global _depth, _saved  # noqa: PLW0603 - descriptors are the process's own global state
    with _lock:
        _depth += 1
        if _depth == 1:
            sys.stdout.flush()
            sys.stderr.flush()
            _saved = (os.dup(1), os.dup(2))
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                sys.stdout.flush()
                sys.stderr.flush()
                for number, saved in enumerate(_saved, start=1):
                    os.dup2(saved, number)
                    os.close(saved)
