"""The program that measures one model, in a process with nothing in it but the runtime of that model.

`keras_t2t.deploy.benchmark` starts it. It is read by its path, and reads `runtimes.py` the same way: importing the package
brings Keras and TensorFlow with it, whose memory would be in the figure of every runtime.
"""

import json
import pathlib
import re
import runpy
import statistics
import sys
import time

import numpy as np


def main(path, threads, seconds, batches):
    """Prints what was measured of the model at `path` as a line of JSON, or what is wrong with it."""
    runtimes = runpy.run_path(str(pathlib.Path(__file__).with_name("runtimes.py")))
    try:
        if not path.endswith((".tflite", ".onnx")):
            _set_tensorflow_threads(threads)
        runtime = _open_keras(path, runtimes) if path.endswith(".keras") else runtimes["open_exported"](path, threads)
        print(json.dumps(_measured(runtime, seconds, batches)))
    except (ValueError, OSError, ImportError) as error:
        print(json.dumps({"error": str(error)}))


def _measured(runtime, seconds, batches):
    images = np.random.default_rng(0).integers(0, 256, (max(batches), *runtime.input_shape[1:])).astype(runtime.input_dtype)
    times = {batch: _median_time(runtime.run, images[:batch], seconds) for batch in sorted({1, *batches})}
    # Not `ru_maxrss`, in which a process begins with the memory of the one that started it.
    peak = re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    return {
        "runtime": runtime.name,
        "latency": times[1],
        "throughput": [batch / times[batch] for batch in batches],
        "memory": 1024 * int(peak[1]),
    }


def _median_time(run, images, seconds):
    times = []
    run(images)
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _set_tensorflow_threads(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _open_keras(path, runtimes):
    """A Keras model as a graph of TensorFlow."""
    import keras
    import tensorflow as tf

    sys.path.append(str(pathlib.Path(__file__).parents[2]))  # where this package is, installed or not
    import keras_t2t  # noqa: F401  so that Keras knows the layers

    model = keras.saving.load_model(path, compile=False)
    if None in model.input_shape[1:]:
        raise ValueError(f"Expected a model of a fixed image size; the one in {path} is for {model.input_shape[1:]}")
    function = tf.function(lambda images: model(images, training=False), autograph=False)
    return runtimes["Runtime"](
        name="TensorFlow",
        run=lambda images: function(images).numpy(),
        input_shape=model.input_shape,
        input_dtype="float32",
        labels=None,
        output="",
        normalises=True,
    )


if __name__ == "__main__":
    model_path, thread_count, duration, *batch_sizes = sys.argv[2:]
    main(model_path, int(thread_count), float(duration), [int(size) for size in batch_sizes])
