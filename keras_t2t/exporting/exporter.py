"""Export of a model to a file for a runtime, checked by running it there."""

import contextlib
import importlib.util
import os
import pathlib
import tempfile

import keras
import numpy as np

from keras_t2t.configs import is_count
from keras_t2t.errors import ExportError
from keras_t2t.exporting.onnx import to_onnx
from keras_t2t.exporting.report import IMAGES_AT_ONCE, OPS, ExportReport, examine
from keras_t2t.exporting.runtimes import first_line, missing, open_exported
from keras_t2t.exporting.samples import images_for
from keras_t2t.exporting.saved_model import to_saved_model
from keras_t2t.exporting.tflite import to_tflite
from keras_t2t.inference.folded import FoldedLayer
from keras_t2t.inference.optimize import optimize_for_inference
from keras_t2t.models import normalizes, spec_of
from keras_t2t.preprocessing import ModelSpec

QUANTIZATIONS = {
    "saved_model": (None,),
    "tflite": (None, "float16", "int8", "full_int8"),
    "onnx": (None, "int8"),
}
PACKAGES = {
    "tflite": ("ai_edge_litert", "ai_edge_quantizer"),
    "onnx": ("onnx", "onnxruntime", "onnxscript", "tf2onnx"),
    "saved_model": (),
}
LARGEST_DIFFERENCE = {None: 1e-4, "float16": 1e-2}
LEAST_AGREEMENT = 0.9


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str | None = None,
    *,
    quantize: str | None = None,
    batch_size: int = 1,
    input_dtype: str = "float32",
    calibration=None,
    samples=None,
    tolerance: float | None = None,
    force: bool = False,
) -> ExportReport:
    """Exports a model, and checks the file by running it in its own runtime before it gets its name.

    The graph is that of `optimize_for_inference`; of a model of 16 or 64 bits it is that of the same weights in float32, with
    which it is then compared. The file's metadata has the `ModelSpec` of the model: how images are prepared, what the outputs
    are, and the names of the classes. The same model always gives the same bytes.

    Args:
        model: any model of this package, shipped, fine-tuned or loaded, of a fixed image size.
        path: the file, or the folder of a SavedModel.
        format: `"saved_model"`, `"tflite"` or `"onnx"`; by default what the ending of `path` says.
        quantize: None for float32; for TFLite `"float16"`, `"int8"` (weights; what enters a product is quantized as it runs) or
            `"full_int8"` (by ranges measured on `calibration`); for ONNX `"int8"`. See `to_tflite` and `to_onnx`.
        batch_size: of a TFLite file; the other formats take any.
        input_dtype: `"float32"`, or `"uint8"` for a model that normalizes its images itself.
        calibration: for `"full_int8"`: real images of the kind that the model will see, as `samples`.
        samples: the images to compare on: an array (n, H, W, C) of what the model takes, or a folder, of whose images up to 100
            are used; by default those of `calibration`, or else ten photographs that come with the package.
        tolerance: in float32 and float16, the largest difference of a logit over the largest logit, by default 1e-4 and 1e-2;
            in 8 bits, the least part of `samples` with the same likeliest class, by default 0.9.
        force: whether to replace a file or a SavedModel that is at `path`.

    Returns:
        The report.

    Raises:
        ValueError: for arguments that contradict each other, and models that are not of this package.
        ExportError: if the model cannot be converted, or if the file has an operation that its runtime does not have built in,
            does not load, or differs too much.
        FileExistsError: if there is something at `path` already; with `force`, a folder that is no SavedModel.
        ImportError: if a package is not installed; says how to install it.
    """
    path = pathlib.Path(path)
    format = _checked_format(path, format)
    _check_arguments(model, format, quantize, batch_size, input_dtype, calibration)
    _check_place(path, force)
    model = _in_float32(keras.Model(model.inputs[0], model.outputs[0], name=model.name))
    if not any(isinstance(layer, FoldedLayer) for layer in model.layers):
        inference_model = optimize_for_inference(model)
    else:
        inference_model = model
    calibration = None if calibration is None else images_for(model, calibration)
    images = calibration if samples is None and calibration is not None else images_for(model, samples)
    if input_dtype == "uint8":
        images = np.round(images)
    expected = model.predict(images, batch_size=IMAGES_AT_ONCE, verbose=0)
    spec = spec_of(model)
    with _staging(path) as staged:
        try:
            if format == "tflite":
                to_tflite(inference_model, staged, spec, quantize, batch_size, input_dtype, calibration)
            elif format == "onnx":
                to_onnx(inference_model, staged, spec, quantize, input_dtype)
            else:
                to_saved_model(inference_model, staged, spec, input_dtype)
        except (ImportError, OSError):
            raise
        except Exception as error:  # of four converters, each with errors of its own
            raise ExportError(f"The model cannot be converted to {format}: {first_line(error)}") from error
        return _examined(staged, path, format, quantize, spec, images, expected, tolerance)


def _in_float32(model):
    """Returns a model that computes in float32, with the weights of `model`; itself if it does so."""
    if all(layer.dtype_policy.name == "float32" for layer in model.layers):
        return model

    def copy_layer(layer):  # or an operation, which has no dtype
        dtype = {"dtype": "float32"} if isinstance(layer, keras.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **dtype})

    images = keras.Input(model.input_shape[1:], name=model.inputs[0].name)
    copy = keras.models.clone_model(model, input_tensors=images, clone_function=copy_layer)
    copy.set_weights(model.get_weights())
    return copy


def _examined(staged, path, format, quantize, spec: ModelSpec, images, expected, tolerance):
    ops = OPS[format](staged)
    foreign = [op for op in ops if ":" in op]
    if foreign:
        raise ExportError(f"The {format} file needs operations that are not built in: {', '.join(foreign)}")
    try:
        runtime = open_exported(staged)
    except ValueError as error:
        raise ExportError(f"The {format} file does not load: {error}") from error
    report = examine(staged, path, format, quantize, ops, runtime, images, expected, spec.output)
    if quantize in LARGEST_DIFFERENCE:
        most = LARGEST_DIFFERENCE[quantize] if tolerance is None else tolerance
        if not report.difference <= most:  # NaN, too
            raise ExportError(
                f"The {format} file differs from the model: its logits by {report.difference:.1e} of the largest, "
                f"more than the tolerance of {most:.1e}"
            )
    else:
        least = LEAST_AGREEMENT if tolerance is None else tolerance
        if not report.agreement >= least:
            raise ExportError(
                f"The {format} file differs from the model: {report.agreement:.1%} of {report.images} images have the same "
                f"likeliest class, less than the tolerance of {least:.1%}"
            )
    return report


def _checked_format(path, format):
    endings = {".tflite": "tflite", ".onnx": "onnx"}
    chosen = format or {**endings, "": "saved_model"}.get(path.suffix.lower())
    if chosen not in QUANTIZATIONS:
        raise ValueError(f"Expected a format of {', '.join(QUANTIZATIONS)}; received: format={format!r} for {path}")
    if not path.name or endings.get(path.suffix.lower(), "saved_model") != chosen:
        name = "a folder with a name" if chosen == "saved_model" else f"a file that ends in .{chosen}"
        raise ValueError(f"Expected {name} for {chosen}; received: {path}")
    return chosen


def _check_arguments(model, format, quantize, batch_size, input_dtype, calibration):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"Export needs KERAS_BACKEND=tensorflow; the backend is {keras.backend.backend()}")
    ends = [getattr(model, name, None) or () for name in ("inputs", "outputs")]
    if not isinstance(model, keras.Model) or [len(end) for end in ends] != [1, 1]:
        raise ValueError(f"Expected a functional keras.Model with one input and one output; received: {model!r}")
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(f"Expected a model of a fixed image size; received one for {shape}: build it with `input_shape`")
    if quantize not in QUANTIZATIONS[format]:
        names = ", ".join(str(name) for name in QUANTIZATIONS[format])
        raise ValueError(f"Expected quantize for {format} to be one of {names}; received: {quantize!r}")
    if (quantize == "full_int8") != (calibration is not None):
        raise ValueError("Expected `calibration`, real images, with quantize='full_int8' and only there")
    if batch_size != 1 and (format != "tflite" or not is_count(batch_size)):
        raise ValueError(f"Expected a positive batch_size, other than 1 for TFLite only; received: {batch_size!r} for {format}")
    if input_dtype not in ("float32", "uint8") or (input_dtype == "uint8" and not normalizes(model)):
        raise ValueError(
            "Expected input_dtype to be 'float32', or 'uint8' for a model that normalizes its images itself; "
            f"received: {input_dtype!r}"
        )
    for package in PACKAGES[format]:
        if importlib.util.find_spec(package) is None:
            raise missing(package.replace("_", "-"))


def _check_place(path, force):
    if path.exists() and not force:
        raise FileExistsError(f"There is something at {path} already; replace it with force=True (--force)")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise FileExistsError(f"There is a folder at {path} that is no SavedModel: it will not be replaced")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {path.parent} cannot be written to")


@contextlib.contextmanager
def _staging(path):
    """Gives a place of the same name in a hidden folder, and moves what is there to `path` if nothing was raised."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        staged, replaced = pathlib.Path(folder) / path.name, pathlib.Path(folder) / "replaced"
        yield staged
        if path.exists():
            os.replace(path, replaced)
        try:
            os.replace(staged, path)
        except BaseException:
            if replaced.exists():
                os.replace(replaced, path)
            raise
