"""Exported files, each run by its own runtime, all behind one interface."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np

INPUTS = {True: "images", False: "normalised_images"}
"""What the input of a file is called, by whether the model normalises its images itself."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A model that runs.

    Attributes:
        name: of the runtime.
        run: images (n, H, W, C) of `input_dtype`, one or more, to outputs (n, ...), float32.
        input_shape: (B, H, W, C); B is None where any batch runs at once.
        input_dtype: `"float32"` or `"uint8"`.
        labels: names of the classes, or None.
        output: `"scores"` of a classifier, else `"features"`.
        normalises: whether it takes pixels in [0, 255]; else they are normalised beforehand.
    """

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple
    input_dtype: str
    labels: tuple[str, ...] | None
    output: str
    normalises: bool


def open_exported(path: str | os.PathLike, threads: int | None = None) -> Runtime:
    """Opens a `.tflite` or `.onnx` file or the folder of a SavedModel.

    Args:
        path: what `keras_t2t.export` wrote.
        threads: for TFLite and ONNX; by default all cores of this process. TensorFlow has its own setting.

    Raises:
        ValueError: if it is none of these, or damaged.
        ImportError: if the runtime is not installed.
        FileNotFoundError: if there is nothing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}")
    threads = threads or cores()
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


def cores():
    """The cores that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def labels_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns where the names of an exported model's classes are: in the folder of a SavedModel, else beside the file."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.name}.labels.txt") if path.suffix.lower() in (".tflite", ".onnx") else path / "labels.txt"


def missing(package: str) -> ImportError:
    """Returns the error for a package of the extra `export` that is not installed."""
    return ImportError(f'This needs {package}: pip install "keras-t2t[export]"')


def _labels(path):
    file = labels_path(path)
    return tuple(file.read_text(encoding="utf-8").removesuffix("\n").split("\n")) if file.is_file() else None


def _open_tflite(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing("ai-edge-litert") from error
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (entry,), (leaving,) = interpreter.get_input_details(), interpreter.get_output_details()
    ((name,), (output,)) = next(iter(interpreter.get_signature_list().values())).values()
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
    return Runtime("LiteRT", run, shape, dtype, _labels(path), output, name == INPUTS[True])


def _open_onnx(path, threads):
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,), (leaving,) = session.get_inputs(), session.get_outputs()
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    dtype = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}[entry.type]

    def run(images):
        return session.run(None, {entry.name: images})[0]

    return Runtime("ONNX Runtime", run, shape, dtype, _labels(path), leaving.name, entry.name == INPUTS[True])


def _open_saved_model(path, threads):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (name, spec), (output,) = *serve.structured_input_signature[1].items(), serve.structured_outputs

    def run(images):
        return serve(**{name: tf.constant(images)})[output].numpy()

    run.model = loaded  # a signature does not keep its model alive
    return Runtime("TensorFlow", run, tuple(spec.shape), spec.dtype.name, _labels(path), output, name == INPUTS[True])
