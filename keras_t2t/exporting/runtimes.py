"""Exported files, each run by its own runtime, all behind one interface."""

import os
import pathlib

import numpy as np

from keras_t2t.exporting.metadata import read_from_onnx, read_from_saved_model, read_from_tflite
from keras_t2t.runtime import Runtime, available_cores


def open_exported(path: str | os.PathLike, threads: int | None = None) -> Runtime:
    """Opens a `.tflite` or `.onnx` file or the folder of a SavedModel in its own runtime.

    Args:
        path: What `keras_t2t.export` wrote.
        threads: Number of threads for TFLite and ONNX; by default all cores of this process. TensorFlow has its own setting.

    Raises:
        ValueError: if it is none of these, or damaged.
        ImportError: if the runtime is not installed.
        FileNotFoundError: if there is nothing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}")
    threads = threads or available_cores()
    opener = {".tflite": _open_tflite, ".onnx": _open_onnx}.get(path.suffix.lower())
    if opener is None and not (path / "saved_model.pb").is_file():
        raise ValueError(f"Expected a .tflite or .onnx file, or the folder of a SavedModel; received: {path}")
    try:
        return (opener or _open_saved_model)(path, threads)
    except (ImportError, OSError):
        raise
    except Exception as error:  # of three runtimes, each with errors of its own
        raise ValueError(f"Cannot load {path}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def missing(package: str) -> ImportError:
    """Returns the error for a package of the extra `export` that is not installed."""
    return ImportError(f'This needs {package}: pip install "keras-t2t[export]"')


def is_exported(path: str | os.PathLike) -> bool:
    """Returns whether a path is that of a TFLite or ONNX file or of a SavedModel, as far as its name and content tell."""
    path = pathlib.Path(path)
    return path.suffix.lower() in (".tflite", ".onnx") or (path / "saved_model.pb").is_file()


def _open_tflite(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("ai-edge-litert") from error
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (entry,), (leaving,) = interpreter.get_input_details(), interpreter.get_output_details()
    batch = int(entry["shape"][0])

    def run(images):
        outputs = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            filled = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
            interpreter.set_tensor(entry["index"], filled)
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(leaving["index"])[: len(part)])
        return np.concatenate(outputs)

    shape, dtype = tuple(int(size) for size in entry["shape"]), np.dtype(entry["dtype"]).name
    return Runtime(name="LiteRT", run=run, input_shape=shape, input_dtype=dtype, known_spec=read_from_tflite(path))


def _open_onnx(path, threads):
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}[entry.type]

    def run(images):
        return session.run(None, {entry.name: images})[0]

    spec = read_from_onnx(session.get_modelmeta().custom_metadata_map)
    return Runtime(name="ONNX Runtime", run=run, input_shape=shape, input_dtype=dtype, known_spec=spec)


def _open_saved_model(path, threads):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (name, spec), (output,) = *serve.structured_input_signature[1].items(), serve.structured_outputs

    def run(images):
        return serve(**{name: tf.constant(images)})[output].numpy()

    run.model = loaded  # a signature does not keep its model alive
    return Runtime(
        name="TensorFlow",
        run=run,
        input_shape=tuple(spec.shape),
        input_dtype=spec.dtype.name,
        known_spec=read_from_saved_model(path),
    )
