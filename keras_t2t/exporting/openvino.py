"""Conversion to OpenVINO's format, with weights in 32 or 16 bits."""

import os
import pathlib
import tempfile
from collections import Counter
from xml.etree import ElementTree

import keras

from keras_t2t.exporting.metadata import write_to_openvino
from keras_t2t.exporting.onnx import to_onnx
from keras_t2t.preprocessing import ModelSpec


def to_openvino(
    model: keras.Model, path: pathlib.Path, spec: ModelSpec, quantize: str | None = None, input_dtype: str = "float32"
) -> None:
    """Writes a model for OpenVINO, for batches of any size: a file `NAME.xml` with the graph, and `NAME.bin` with the weights.

    The graph is that of the ONNX file. `quantize` determines the precision:

    - `None`: Everything is in float32.
    - `"float16"`: Weights are stored in 16 bits. CPUs expand them once, when they load the file.
    - `"bfloat16"`: Weights are stored in 16 bits, and `keras_t2t.open_exported` asks OpenVINO to compute in bfloat16 on
      processors that have instructions for it. Elsewhere, the file works like one in float16. In other programs, set
      OpenVINO's property `INFERENCE_PRECISION_HINT` to `bf16` or, for the other two kinds of files, to `f32`: OpenVINO
      prefers bfloat16 by default.

    Args:
        model: The result of `optimize_for_inference`.
        path: The `.xml` file to write.
        spec: What the model takes and returns.
        quantize: `None`, `"float16"` or `"bfloat16"`.
        input_dtype: `"float32"` or `"uint8"`.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.onnx"
        to_onnx(model, file, spec, input_dtype=input_dtype)
        converted = openvino.Core().read_model(file)
        for i, operation in enumerate(converted.get_ordered_ops()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{i}")  # reproducible, unlike names with a counter
        write_to_openvino(converted, spec, "bf16" if quantize == "bfloat16" else "f32")
        openvino.save_model(converted, path, compress_to_fp16=quantize is not None)


def openvino_ops(path: str | os.PathLike) -> dict[str, int]:
    """Returns the number of operations of each kind in an OpenVINO file. Operations of extensions are `EXTENSION:NAME`."""
    layers = [(layer.attrib["version"], layer.attrib["type"]) for layer in ElementTree.parse(path).iter("layer")]
    return dict(Counter(kind if version.startswith("opset") else f"{version}:{kind}" for version, kind in layers))
