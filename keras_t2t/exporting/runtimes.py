"""Opens each kind of exported file in its own runtime, behind one interface."""

import os
import pathlib

import numpy as np

from keras_t2t.export_formats import check_saved_model_path, import_package, is_exported
from keras_t2t.exporting.metadata import read_from_onnx, read_from_openvino, read_from_saved_model, read_from_tflite
from keras_t2t.runtime import Runtime, available_cores


def open_exported(path: str | os.PathLike, threads: int | None = None) -> Runtime:
    """Opens an exported model in its own runtime.

    Args:
        path: A `.tflite` or `.onnx` file, the `.xml` file of an OpenVINO model, or the folder of a SavedModel, as written by
            `keras_t2t.export`.
        threads: Number of threads for TFLite, ONNX and OpenVINO. Defaults to all cores available to this process. It does not
            affect TensorFlow, which has its own setting.

    Returns:
        A `Runtime`.

    Raises:
        ValueError: If the file is of another kind or damaged.
        ImportError: If the runtime is not installed.
        FileNotFoundError: If `path` does not exist.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> report = keras_t2t.export(model, "model.onnx", force=True)
    >>> runtime = keras_t2t.open_exported("model.onnx")
    >>> runtime.input_shape
    (None, 32, 32, 3)
    >>> runtime.run(np.zeros((2, 32, 32, 3), "float32")).shape
    (2, 10)
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}")
    threads = threads or available_cores()
    if not is_exported(path):
        raise ValueError(f"Expected a .tflite, .onnx or .xml file, or the folder of a SavedModel; received: {path}")
    openers = {".tflite": _open_tflite, ".onnx": _open_onnx, ".xml": _open_openvino}
    opener = openers.get(path.suffix.lower(), _open_saved_model)
    if opener is _open_saved_model:
        check_saved_model_path(path)
    try:
        return opener(path, threads)
    except (ImportError, OSError):
        raise
    except Exception as error:  # each of the runtimes has its own errors
        raise ValueError(f"Cannot load {path}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Returns the first line of an error message, or the class name of the error if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _open_tflite(path, threads):
    interpreter = import_package("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (input_details,), (output_details,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = tuple(None if size == -1 else int(size) for size in input_details["shape_signature"])
    dtype = np.dtype(input_details["dtype"]).name

    def run_batch(batch):
        interpreter.set_tensor(input_details["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(output_details["index"])

    def run(images):
        if shape[0] is None:
            interpreter.resize_tensor_input(input_details["index"], images.shape)
            interpreter.allocate_tensors()
            return run_batch(images)
        padding = np.zeros((-len(images) % shape[0], *images.shape[1:]), images.dtype)
        batches = np.concatenate([images, padding]).reshape(-1, *shape)
        return np.concatenate([run_batch(batch) for batch in batches])[: len(images)]

    return Runtime(name="LiteRT", run=run, input_shape=shape, input_dtype=dtype, known_spec=read_from_tflite(path))


def _open_onnx(path, threads):
    onnxruntime = import_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (session_input,) = session.get_inputs()
    shape = tuple(size if isinstance(size, int) else None for size in session_input.shape)
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}[session_input.type]

    def run(images):
        return session.run(None, {session_input.name: images})[0]

    spec = read_from_onnx(session.get_modelmeta().custom_metadata_map)
    return Runtime(name="ONNX Runtime", run=run, input_shape=shape, input_dtype=dtype, known_spec=spec)


def _open_openvino(path, threads):
    core = import_package("openvino").Core()
    model = core.read_model(path)
    spec, precision = read_from_openvino(model)
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", settings)
    return Runtime(
        name="OpenVINO",
        run=lambda images: compiled(images)[0],
        input_shape=tuple(None if size.is_dynamic else size.get_length() for size in model.input().partial_shape),
        input_dtype=model.input().element_type.to_dtype().name,
        known_spec=spec,
    )


def _open_saved_model(path, threads):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    (output_name,) = loaded.signatures["serving_default"].structured_outputs
    ((input_name, input_spec),) = loaded.signatures["serving_default"].structured_input_signature[1].items()

    def run(images):
        serve = loaded.signatures["serving_default"]  # a signature does not keep its model alive, so `loaded` is used here
        return serve(**{input_name: tf.constant(images)})[output_name].numpy()

    return Runtime(
        name="TensorFlow",
        run=run,
        input_shape=tuple(input_spec.shape),
        input_dtype=input_spec.dtype.name,
        known_spec=read_from_saved_model(path),
    )
