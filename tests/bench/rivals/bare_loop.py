"""Rival: nothing but decoding and the network. Images in memory, a thread per core, no cache.

    python tests/bench/rivals/bare_loop.py IMAGES BACKBONE.tflite SIZE [MOST]

prints images/s. What it leaves out is what Retrainer adds: reading files, knowing images by their
content, limits and formats, EXIF, segments and the report.
"""

import os
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from ai_edge_litert.interpreter import Interpreter


def images_per_second(images: Path, backbone: Path, size: int, most: int) -> float:
    """Rate over the first `most` images of the folder."""
    cv2.setNumThreads(1)
    bodies = [p.read_bytes() for p in sorted(images.glob("*/*.jpg"))[:most]]
    count = len(os.sched_getaffinity(0))
    tflite = backbone.read_bytes()
    engines = [Interpreter(model_content=tflite, num_threads=1) for _ in range(count)]
    results: list[np.ndarray] = []
    left = iter(bodies)
    lock = threading.Lock()

    def work(engine: Interpreter) -> None:
        engine.allocate_tensors()
        source = engine.get_input_details()[0]["index"]
        target = engine.get_output_details()[0]["index"]
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            image = simplejpeg.decode_jpeg(body, min_height=size, min_width=size)
            small = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
            engine.set_tensor(source, small[None].astype(np.float32))
            engine.invoke()
            results.append(engine.get_tensor(target)[0])

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(results) / (time.perf_counter() - begun)


if __name__ == "__main__":
    folder, file, side, *rest = sys.argv[1:]
    number = int(rest[0]) if rest else 1_000_000
    print(f"{images_per_second(Path(folder), Path(file), int(side), number):.1f}")
