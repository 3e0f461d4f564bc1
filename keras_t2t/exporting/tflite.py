"""Conversion to TFLite, with weights in 32, 16 or 8 bits."""

import contextlib
import io
import os
import pathlib
import re
import tempfile
from collections import Counter

import keras
import numpy as np

from keras_t2t.exporting.graph import INPUT, frozen_function
from keras_t2t.exporting.metadata import append_to_tflite
from keras_t2t.inference.block import InferenceBlock
from keras_t2t.layers.common import NOT_QUANTIZED
from keras_t2t.models.graph import layers_of
from keras_t2t.preprocessing import ModelSpec


def to_tflite(
    model: keras.Model,
    path: pathlib.Path,
    spec: ModelSpec,
    quantize: str | None = None,
    batch_size: int | None = 1,
    input_dtype: str = "float32",
    calibration: np.ndarray | None = None,
) -> None:
    """Writes a model as a TFLite file with one signature, `serving_default`.

    `quantize` determines the precision:

    - `None`: Everything is in float32.
    - `"float16"`: Weights are stored in 16 bits. CPU runtimes expand them once, when they load the file.
    - `"int8"`: Weights of matrix products and convolutions are stored in 8 bits, with a scale for each channel. The inputs of
      these operations are quantized at run time.
    - `"full_int8"`: In addition, the inputs and outputs of the matrix products of the encoder blocks are quantized with ranges
      measured on `calibration`. The T2T module and the head would lose the most accuracy, so they are quantized as with
      `"int8"`.

    With both 8-bit options, the norms with the soft splits they are folded into, the softmax, the attention and the performer's
    random features stay in float32.

    Args:
        model: The result of `optimize_for_inference`.
        path: The file to write.
        spec: What the model takes and returns.
        quantize: `None`, `"float16"`, `"int8"` or `"full_int8"`.
        batch_size: Number of images in a batch, or `None` for any number.
        input_dtype: `"float32"` or `"uint8"`.
        calibration: Images `(n, H, W, C)` as the model takes them. Required for `"full_int8"`, otherwise ignored.
    """
    content = _convert(model, spec.output, batch_size, input_dtype, quantize == "float16")
    if quantize in ("int8", "full_int8"):
        batches = _batches_of(calibration, batch_size, input_dtype) if quantize == "full_int8" else None
        names = [layer.name for layer in layers_of(model) if isinstance(layer, InferenceBlock)]
        content = _quantize(content, batches, names)
    path.write_bytes(content)
    append_to_tflite(path, spec)


def _convert(model, output, batch_size, input_dtype, float16):
    import tensorflow as tf

    frozen = frozen_function(model, batch_size, input_dtype)
    spec = tf.TensorSpec((batch_size, *model.input_shape[1:]), input_dtype, name=INPUT)
    module = tf.Module()
    module.serve = tf.function(lambda images: {output: frozen(images)[0]}, [spec])
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["serving_default"])
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _batches_of(images, batch_size, dtype):
    """Returns images as inputs of the signature. The first images fill up the last batch."""
    batch_size = batch_size or 1
    count = -(-len(images) // batch_size)
    return [{INPUT: batch} for batch in np.resize(images, (count, batch_size, *images.shape[1:])).astype(dtype)]


def _quantize(content, batches, blocks):
    """Quantizes a file to `"int8"`, or to `"full_int8"` if batches for its signature are given.

    Args:
        content: The bytes of the file.
        batches: Inputs to measure ranges with, or `None`.
        blocks: Names of the encoder blocks, which are parts of the names of their operations.
    """
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.qtyping import TFLOperationName

    quantization = quantizer.Quantizer(content, recipe.dynamic_wi8_afp32())
    ranges = None
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # hides progress bars
        if batches is not None:
            in_blocks = rf"(.*/)?({'|'.join(map(re.escape, blocks))})(_\d+)?/.*"
            quantization.add_static_config(in_blocks, TFLOperationName.FULLY_CONNECTED, 8, 8)
        for operation in (TFLOperationName.CONV_2D, TFLOperationName.FULLY_CONNECTED, TFLOperationName.BATCH_MATMUL):
            quantization.update_quantization_recipe(f".*{NOT_QUANTIZED}.*", operation, algorithm_key="no_quantize")
        if batches is not None:
            ranges = quantization.calibrate({"serving_default": batches})
        return bytes(quantization.quantize(ranges).quantized_model)


def tflite_ops(path: str | os.PathLike) -> dict[str, int]:
    """Returns the number of operations of each kind in a TFLite file. Operations that are not built in are `custom:NAME`."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(pathlib.Path(path).read_bytes()))
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

    def name_of(operator):
        code = model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return f"custom:{code.customCode.decode()}"
        return builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]

    return dict(Counter(name_of(operator) for graph in model.subgraphs for operator in graph.operators))
