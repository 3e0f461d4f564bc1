"""Reading and writing the `ModelSpec` of exported files. Each format stores it as JSON:

- TFLite: an uncompressed file `keras_t2t.json` in a zip archive at the end of the model file. TFLite Metadata packs associated
  files in the same way (https://ai.google.dev/edge/litert/models/metadata): runtimes ignore it, and `unzip -p` prints it.
- ONNX: the entry `keras_t2t` of `metadata_props`.
- SavedModel: a file `keras_t2t.json` in the folder.
- OpenVINO: the entry `keras_t2t/spec` of `rt_info`, next to `keras_t2t/precision`.
"""

import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

from keras_t2t.preprocessing import ModelSpec

KEY = "keras_t2t"
FILE = f"{KEY}.json"


def append_to_tflite(path: str | os.PathLike, spec: ModelSpec) -> None:
    """Appends the spec to a TFLite file."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(FILE), spec.to_json())  # always dated 1980, so that the bytes are reproducible


def read_from_tflite(path: str | os.PathLike) -> ModelSpec | None:
    """Returns the spec in a TFLite file, or `None` if it has none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return ModelSpec.from_json(archive.read(FILE).decode()) if FILE in archive.namelist() else None


def read_from_onnx(metadata: Mapping[str, str]) -> ModelSpec | None:
    """Returns the spec in the metadata of an ONNX file, or `None` if it has none."""
    return ModelSpec.from_json(metadata[KEY]) if KEY in metadata else None


def write_to_saved_model(path: pathlib.Path, spec: ModelSpec) -> None:
    """Writes the spec into the folder of a SavedModel."""
    (path / FILE).write_text(spec.to_json(), encoding="utf-8")


def read_from_saved_model(path: pathlib.Path) -> ModelSpec | None:
    """Returns the spec in the folder of a SavedModel, or `None` if it has none."""
    file = path / FILE
    return ModelSpec.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def write_to_openvino(model: Any, spec: ModelSpec, precision: str) -> None:
    """Writes the spec into an `openvino.Model`, and the precision in which to compute, as OpenVINO calls it."""
    model.set_rt_info(spec.to_json(), [KEY, "spec"])
    model.set_rt_info(precision, [KEY, "precision"])


def read_from_openvino(model: Any) -> tuple[ModelSpec | None, str]:
    """Returns the spec in an `openvino.Model`, or `None` if it has none, and the precision in which to compute."""
    if not model.has_rt_info([KEY, "spec"]):
        return None, "f32"
    spec, precision = (model.get_rt_info([KEY, name]).astype(str) for name in ("spec", "precision"))
    return ModelSpec.from_json(spec), precision
