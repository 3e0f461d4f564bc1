"""The formats of exported files and what can be set in each, with checks that need no model: plain data, no Keras."""

import importlib.util
import os
import pathlib
from typing import Any

from keras_t2t.configs import is_count
from keras_t2t.errors import did_you_mean
from keras_t2t.extras import import_extra

EXTENSIONS = {".tflite": "tflite", ".onnx": "onnx", ".xml": "openvino"}
"""The format of a file with this extension. A SavedModel is a folder."""

QUANTIZATIONS = {
    "saved_model": (None, "bfloat16"),
    "tflite": (None, "float16", "int8", "full_int8"),
    "onnx": (None, "int8"),
    "openvino": (None, "float16", "bfloat16"),
}
PACKAGES = {
    "tflite": ("ai_edge_litert", "ai_edge_quantizer"),
    "onnx": ("onnx", "onnxruntime", "onnxscript", "tf2onnx"),
    "openvino": ("openvino", "onnx", "onnxscript", "tf2onnx"),
    "saved_model": (),
}
INPUT_DTYPES = ("float32", "uint8")
DEFAULT_OPSET = 20
MIN_OPSET = 13


def resolve_format(path: str | os.PathLike, format: str | None = None) -> str:
    """Returns the format to export to, which is chosen by the extension of the path if `format` is `None`.

    Raises:
        ValueError: If there is no such format, or if the path does not suit it.
    """
    path = pathlib.Path(path)
    resolved = format or {**EXTENSIONS, "": "saved_model"}.get(path.suffix.lower())
    if resolved not in QUANTIZATIONS:
        raise ValueError(
            f"Expected format to be one of {', '.join(QUANTIZATIONS)}; received: format={format!r} and the path {path}"
            f"{did_you_mean(format, QUANTIZATIONS)}"
        )
    if not path.name or EXTENSIONS.get(path.suffix.lower(), "saved_model") != resolved:
        extensions = {name: extension for extension, name in EXTENSIONS.items()}
        expected = f"a file name ending in {extensions[resolved]}" if resolved in extensions else "the name of a folder"
        raise ValueError(f"Expected {expected} for the format {resolved}; received: {path}")
    return resolved


def check_settings(
    format: str, quantize: str | None, batch_size: int | None, opset: int, input_dtype: str, calibration: Any
) -> None:
    """Checks that the settings of an export suit the format, and that the packages for it are installed.

    Args:
        format: A key of `QUANTIZATIONS`.
        quantize: See `keras_t2t.export`, as for the other arguments.
        batch_size: Batch size of a TFLite file, or `None`.
        opset: Version of the operations in an ONNX file.
        input_dtype: Dtype of the images.
        calibration: Images for `"full_int8"`, or `None`.

    Raises:
        ValueError: If a setting is invalid, or contradicts the format.
        ImportError: If a package is not installed. The message says how to install it.
    """
    if quantize not in QUANTIZATIONS[format]:
        names = ", ".join(str(name) for name in QUANTIZATIONS[format])
        hint = did_you_mean(quantize, filter(None, QUANTIZATIONS[format]))
        raise ValueError(f"Expected quantize to be one of {names} for {format}; received: quantize={quantize!r}{hint}")
    if (quantize == "full_int8") != (calibration is not None):
        received = "none" if calibration is None else "calibration images"
        raise ValueError(
            f"Expected calibration=IMAGES if and only if quantize='full_int8'; received: {received} and quantize={quantize!r}"
        )
    if batch_size != 1 and format != "tflite":
        raise ValueError(f"Expected batch_size to be given only for tflite; the format is {format}")
    if not (batch_size is None or is_count(batch_size)):
        raise ValueError(f"Expected batch_size to be a positive integer or None; received: batch_size={batch_size!r}")
    if opset != DEFAULT_OPSET and format != "onnx":
        raise ValueError(f"Expected opset to be given only for onnx; received: opset={opset!r} and the format {format}")
    if not is_count(opset) or opset < MIN_OPSET:
        raise ValueError(f"Expected opset to be at least {MIN_OPSET}; received: opset={opset!r}")
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(f"Expected input_dtype to be one of {', '.join(INPUT_DTYPES)}; received: input_dtype={input_dtype!r}")
    for package in PACKAGES[format]:
        if importlib.util.find_spec(package) is None:
            import_package(package)  # raises an error that says how to install it


def check_destination(path: str | os.PathLike, force: bool) -> None:
    """Checks that an exported file may be written to a path.

    Raises:
        FileExistsError: If the path exists and `force` is `False`, or if it is a folder that is not a SavedModel.
        FileNotFoundError: If its folder does not exist.
        ValueError: See `check_saved_model_path`.
        PermissionError: If its folder is not writable.
    """
    path = pathlib.Path(path)
    for file in files_of(path):
        if file.exists() and not force:
            raise FileExistsError(f"{file} already exists; replace it with force=True")
        if file.is_dir() and not _is_saved_model(file):
            raise FileExistsError(f"The folder {file} is not a SavedModel, so it will not be replaced")
    if path.suffix.lower() not in EXTENSIONS:
        check_saved_model_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {path.parent} is not writable")


def check_saved_model_path(path: str | os.PathLike) -> None:
    """Raises `ValueError` if TensorFlow cannot find the files of a SavedModel at a path, which it takes for a pattern."""
    if set("[]*?") & set(str(path)):
        raise ValueError(f"Expected the path of a SavedModel to have none of the characters [ ] * ?; received: {path}")


def import_package(module: str) -> Any:
    """Returns a module of a package of the extras for export; see `import_extra`."""
    package = module.partition(".")[0].replace("_", "-")
    return import_extra(module, f"Files of this format need {package}", "openvino" if package == "openvino" else "export")


def is_exported(path: str | os.PathLike) -> bool:
    """Returns whether a path has the extension of an exported file, or is the folder of a SavedModel."""
    path = pathlib.Path(path)
    return path.suffix.lower() in EXTENSIONS or _is_saved_model(path)


def _is_saved_model(folder):
    return (folder / "saved_model.pb").is_file()


def files_of(path: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the files of an exported model, or its folder. OpenVINO keeps the weights in a file of their own."""
    path = pathlib.Path(path)
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
