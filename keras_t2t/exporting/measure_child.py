"""The program that measures one model, in a process that loads nothing but the runtime of that model.

`keras_t2t.exporting.benchmark` runs it by its path. Importing the package would load Keras and TensorFlow, and their memory
would be counted for every runtime. Therefore, the few modules that it needs are imported without running any `__init__.py`.
"""

import functools
import json
import pathlib
import re
import sys
import types

import numpy as np

PACKAGE = pathlib.Path(__file__).parents[1]
STATUS = pathlib.Path("/proc/self/status")
STUBS = {"keras_t2t": PACKAGE, "keras_t2t.exporting": PACKAGE / "exporting"}


def main(path: str, threads: int, seconds: float, batch_sizes: list[int]) -> None:
    """Prints the measurements of a model, or an error message, as one line of JSON.

    Args:
        path: An exported file, the folder of a SavedModel, or a `.keras` file.
        threads: Number of threads.
        seconds: Time to spend on each batch size.
        batch_sizes: Batch sizes for the throughput.
    """
    for name, folder in STUBS.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    from keras_t2t.export_formats import EXTENSIONS
    from keras_t2t.exporting.runtimes import open_exported

    try:
        if not path.endswith(tuple(EXTENSIONS)):
            _set_tensorflow_threads(threads)
        runtime = _open_keras(path) if path.endswith(".keras") else open_exported(path, threads)
        print(json.dumps(_measured(runtime, seconds, batch_sizes)))
    except (ValueError, OSError, ImportError) as error:
        print(json.dumps({"error": str(error)}))


def _measured(runtime, seconds, batch_sizes):
    from keras_t2t.timing import median_time

    shape = (max(batch_sizes), *runtime.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape).astype(runtime.input_dtype)
    times = {size: median_time(functools.partial(runtime.run, images[:size]), seconds) for size in sorted({1, *batch_sizes})}
    return {
        "runtime": runtime.name,
        "latency": times[1],
        "throughput": [size / times[size] for size in batch_sizes],
        "memory": _peak_memory(),
    }


def _peak_memory():
    """Returns the peak memory of this process in bytes."""
    if STATUS.exists():  # on Linux, where `ru_maxrss` would start at the memory of the parent process
        peak = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text("utf-8"))
        return 1024 * int(peak[1]) if peak else 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def _set_tensorflow_threads(threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _open_keras(path):
    """Returns a Keras model as a `Runtime` that executes a TensorFlow graph."""
    import keras
    import tensorflow as tf

    for name in [name for name in sys.modules if name.partition(".")[0] == "keras_t2t"]:
        del sys.modules[name]
    sys.path.append(str(PACKAGE.parent))
    import keras_t2t  # noqa: F401  registers the layers
    from keras_t2t.runtime import Runtime

    model = keras.saving.load_model(path, compile=False)
    if None in model.input_shape[1:]:
        raise ValueError(f"Expected a model with a fixed image size; received: {model.input_shape[1:]} for {path}")
    function = tf.function(lambda images: model(images, training=False), autograph=False)
    return Runtime(
        name="TensorFlow",
        run=lambda images: function(images).numpy(),
        input_shape=model.input_shape,
        input_dtype="float32",
        known_spec=None,
    )


if __name__ == "__main__":
    _, _, model_path, thread_count, duration, *sizes = sys.argv
    main(model_path, int(thread_count), float(duration), [int(size) for size in sizes])
