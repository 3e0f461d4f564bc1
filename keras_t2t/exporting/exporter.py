"""Export of a model to a file, which is checked by running it in its own runtime."""

import contextlib
import functools
import os
import pathlib
import tempfile

import keras
import numpy as np

from keras_t2t.errors import ExportError
from keras_t2t.export_formats import DEFAULT_OPSET, check_destination, check_settings, files_of, resolve_format
from keras_t2t.exporting.onnx import to_onnx
from keras_t2t.exporting.openvino import to_openvino
from keras_t2t.exporting.report import OP_COUNTERS, ExportReport, examine, has_threshold, run_in_batches, size_of
from keras_t2t.exporting.runtimes import first_line, open_exported
from keras_t2t.exporting.samples import images_for
from keras_t2t.exporting.saved_model import to_saved_model
from keras_t2t.exporting.tflite import to_tflite
from keras_t2t.inference.optimize import optimize_for_inference
from keras_t2t.keras_internals import copy_weights, is_graph
from keras_t2t.models import normalizes, spec_of
from keras_t2t.models.graph import layers_of

MAX_DIFFERENCE = {None: 1e-4, "float16": 1e-2, "bfloat16": 1e-1}
MIN_AGREEMENT = 0.9
MAX_SCORE_DIFFERENCE = 0.1  # for thresholded decisions in 8 bits, where equal decisions can hide large differences


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str | None = None,
    *,
    quantize: str | None = None,
    batch_size: int | None = 1,
    opset: int = DEFAULT_OPSET,
    input_dtype: str = "float32",
    calibration: np.ndarray | str | os.PathLike | None = None,
    samples: np.ndarray | str | os.PathLike | None = None,
    tolerance: float | None = None,
    force: bool = False,
) -> ExportReport:
    """Exports a model to a file. The file is only kept if it passes a check in its own runtime.

    The exported graph is that of `optimize_for_inference`. A model in 16 or 64 bits is converted to float32 first, and the file
    is compared with the float32 model. The file carries the `ModelSpec` of the model in its metadata: how to prepare images,
    what the outputs are, and the names of the classes. Exporting the same model again gives the same bytes.

    Args:
        model: Any model of this package with a fixed image size, whether pretrained, fine-tuned or loaded from a file.
        path: The file, or the folder of a SavedModel.
        format: `"saved_model"`, `"tflite"`, `"onnx"` or `"openvino"`. By default, the format is chosen by the extension of
            `path`: `.tflite`, `.onnx`, `.xml` (OpenVINO, which puts the weights in a `.bin` file next to it), or none.
        quantize: `None` for float32. For SavedModels: `"bfloat16"`. For TFLite: `"float16"`, `"int8"` (weights in 8 bits; the
            inputs of matrix products are quantized at run time) or `"full_int8"` (with ranges measured on `calibration`). For
            ONNX: `"int8"`. For OpenVINO: `"float16"` or `"bfloat16"`. See `optimize_for_inference`, `to_tflite`, `to_onnx` and
            `to_openvino`.
        batch_size: Batch size of a TFLite file, or `None` for any size: call `resize_tensor_input` before each batch of another
            size. The other formats always accept batches of any size.
        opset: Version of the operations in an ONNX file, from 13 to the newest one of ONNX Runtime. Some runtimes, such as
            older versions of TensorRT, need a lower one than the default.
        input_dtype: `"float32"`, or `"uint8"` for a model that normalizes its images itself.
        calibration: Images for `"full_int8"`, in the same form as `samples`. Use real images that resemble future inputs.
        samples: Images for the comparison: an array `(n, H, W, C)` of what the model takes, or a folder with images, of which
            up to 100 are used. Defaults to `calibration` if given, otherwise to the ten sample photos that come with the
            package.
        tolerance: For float32, float16 and bfloat16, the maximum difference of a logit, relative to the largest logit. Defaults
            to 1e-4, 1e-2 and 1e-1, respectively. For 8 bits, the minimum fraction of `samples` with the same top class or
            decision. Defaults to 0.9. Independent scores and single logits, whose decisions depend on a threshold, may also
            differ by at most `1 - tolerance` of the largest one, or by 0.1 if that is more.
        force: Whether to replace a file or a SavedModel that exists at `path`.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: If arguments are invalid or contradict each other, or if the model was not built by this package.
        ExportError: If the model cannot be converted, or if the file needs an operation that is not built into its runtime,
            does not load, or differs too much from the model.
        FileExistsError: If `path` exists and `force` is `False`, or if it is a folder that is not a SavedModel.
        FileNotFoundError: If the folder of `path` does not exist.
        PermissionError: If the folder of `path` is not writable.
        ImportError: If a package is not installed. The message says how to install it.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> report = keras_t2t.export(model, "model.tflite", quantize="int8", force=True)
    >>> report.agreement >= 0.9
    True
    >>> exported = keras_t2t.open_exported("model.tflite")
    >>> [(label, _)] = keras_t2t.predict_images(exported, ["examples/images/frog.jpg"], top=1)[0]
    >>> label
    'frog'
    """
    path = pathlib.Path(path)
    format = resolve_format(path, format)
    check_settings(format, quantize, batch_size, opset, input_dtype, calibration)
    check_destination(path, force)
    _check_model(model, input_dtype)
    model = _in_float32(keras.Model(model.inputs[0], model.outputs[0], name=model.name))
    inference_model = optimize_for_inference(model, "bfloat16" if (format, quantize) == ("saved_model", "bfloat16") else None)
    calibration = None if calibration is None else images_for(model, calibration)
    images = calibration if samples is None and calibration is not None else images_for(model, samples)
    if input_dtype == "uint8":
        images, calibration = np.round(images), None if calibration is None else np.round(calibration)
    expected = run_in_batches(functools.partial(model, training=False), images)  # `predict` would trace graphs for seconds
    spec = spec_of(model)
    with _staging(path) as staged:
        try:
            if format == "tflite":
                to_tflite(inference_model, staged, spec, quantize, batch_size, input_dtype, calibration)
            elif format == "onnx":
                to_onnx(inference_model, staged, spec, quantize, input_dtype, opset)
            elif format == "openvino":
                to_openvino(inference_model, staged, spec, quantize, input_dtype)
            else:
                to_saved_model(inference_model, staged, spec, input_dtype)
        except (ImportError, OSError):
            raise
        except Exception as error:  # each of the converters has its own errors
            raise ExportError(f"The model cannot be converted to {format}: {first_line(error)}") from error
        return _checked_report(staged, path, format, quantize, spec, images, expected, tolerance)


def _in_float32(model):
    """Returns a float32 model with the weights of `model`, or `model` itself if it is in float32."""
    if all(layer.dtype_policy.name == "float32" for layer in layers_of(model)):
        return model

    def copy_layer(layer):  # may be an operation, which has no dtype
        if is_graph(layer):  # a nested model
            return keras.models.clone_model(layer, clone_function=copy_layer)
        dtype = {"dtype": "float32"} if isinstance(layer, keras.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **dtype})

    images = keras.Input(model.input_shape[1:], name=model.inputs[0].name)
    copy = keras.models.clone_model(model, input_tensors=images, clone_function=copy_layer)
    for old, new in zip(layers_of(model), layers_of(copy), strict=True):
        if isinstance(old, keras.Layer):
            copy_weights(old, new)
    return copy


def _checked_report(staged, path, format, quantize, spec, images, expected, tolerance):
    ops = OP_COUNTERS[format](staged)
    foreign = [op for op in ops if ":" in op]
    if foreign:
        raise ExportError(f"The {format} file needs operations that are not built into its runtime: {', '.join(foreign)}")
    try:
        runtime = open_exported(staged)
    except ValueError as error:
        raise ExportError(f"The {format} file does not load: {error}") from error
    results = examine(runtime, images, expected, spec.output)
    report = ExportReport(path=path, format=format, quantize=quantize, size=size_of(staged), ops=ops, **results)
    if quantize in MAX_DIFFERENCE:
        limit = MAX_DIFFERENCE[quantize] if tolerance is None else tolerance
        if not report.difference <= limit:  # also if it is NaN
            raise ExportError(
                f"The {format} file differs too much from the model: by {report.difference:.1e} of the largest logit, "
                f"more than the tolerance of {limit:.1e}"
            )
    else:
        limit = MIN_AGREEMENT if tolerance is None else tolerance
        if not report.agreement >= limit:
            raise ExportError(
                f"The {format} file differs too much from the model: {report.agreement:.1%} of "
                f"{'the pixels of ' if report.per_pixel else ''}{report.images} images have the same top class or decision, "
                f"less than the tolerance of {limit:.1%}"
            )
        limit = max(MAX_SCORE_DIFFERENCE, 1 - limit)
        if has_threshold(expected, spec.output) and not report.difference <= limit:
            raise ExportError(
                f"The {format} file differs too much from the model: its scores by {report.difference:.1e} of the largest one, "
                f"more than the tolerance of {limit:.1e}"
            )
    return report


def _check_model(model, input_dtype):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Export needs the Keras backend tensorflow; received: {keras.backend.backend()!r}. Save the model with "
            'model.save("model.keras"), then run `KERAS_BACKEND=tensorflow keras-t2t export model.keras --output FILE`'
        )
    ends = [getattr(model, name, None) or () for name in ("inputs", "outputs")]
    if not isinstance(model, keras.Model) or [len(end) for end in ends] != [1, 1]:
        raise ValueError(f"Expected a functional keras.Model with one input and one output; received: {model!r}")
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(f"Expected a model with a fixed image size; received: {shape}. Build the model with `input_shape`")
    if input_dtype == "uint8" and not normalizes(model):
        raise ValueError("Expected a model that normalizes its images itself with input_dtype='uint8'; this one does not")


@contextlib.contextmanager
def _staging(path):
    """Yields a path of the same name in a hidden folder, and moves the files there next to `path` unless an error is raised."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        replaced = pathlib.Path(folder) / "replaced"
        replaced.mkdir()
        yield pathlib.Path(folder) / path.name
        try:
            for file in files_of(path):
                if file.exists():
                    os.replace(file, replaced / file.name)
                os.replace(pathlib.Path(folder) / file.name, file)
        except BaseException:
            for file in replaced.iterdir():
                os.replace(file, path.parent / file.name)
            raise
