"""Conversion to TFLite, with weights of 32, 16 or 8 bits."""

import contextlib
import io
import os
import pathlib
import tempfile

import keras
import numpy as np

from keras_t2t.exporting.graph import INPUT, frozen_function
from keras_t2t.exporting.metadata import append_to_tflite
from keras_t2t.inference.tokens import NOT_QUANTIZED
from keras_t2t.models.parts import BLOCK
from keras_t2t.preprocessing import ModelSpec


def to_tflite(
    model: keras.Model,
    path: pathlib.Path,
    spec: ModelSpec,
    quantize: str | None = None,
    batch_size: int = 1,
    input_dtype: str = "float32",
    calibration: np.ndarray | None = None,
):
    """Writes a model as a TFLite file with a fixed batch and one signature, `serving_default`.

    - None: all in float32.
    - `"float16"`: weights stored in 16 bits; runtimes for CPUs expand them once, when they load the file.
    - `"int8"`: weights of matrix products and convolutions in 8 bits, a scale for each channel; what enters a product is
      quantized while it runs.
    - `"full_int8"`: what enters and leaves the products of the encoder blocks is quantized by ranges that were measured
      beforehand. The T2T module and the head, which lose most by that, are as in `"int8"`.

    In both, norms with the soft splits that they are folded into, softmax, attention and the performer's features stay float32.

    Args:
        model: as `optimize_for_inference` returns it.
        path: The file.
        spec: What the model takes and returns.
        quantize: how.
        batch_size: of the file.
        input_dtype: `"float32"` or `"uint8"`.
        calibration: images (n, H, W, C) that the model takes, for `"full_int8"`.
    """
    content = _convert(model, spec.output, batch_size, input_dtype, quantize == "float16")
    if quantize in ("int8", "full_int8"):
        batches = None
        if quantize == "full_int8":
            count = -(-len(calibration) // batch_size)  # the last batch is filled up with the first images
            whole = np.resize(calibration, (count, batch_size, *calibration.shape[1:])).astype(input_dtype)
            batches = [{INPUT: batch} for batch in whole]
        content = _quantize(content, batches)
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


def _quantize(content, batches):
    """Quantizes a file: dynamically, or by the ranges on `batches`, inputs of its signature."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.qtyping import TFLOperationName

    chosen = recipe.dynamic_wi8_afp32()
    quantization = quantizer.Quantizer(content, chosen)
    ranges = None
    with _quiet():
        if batches is not None:
            quantization.add_static_config(rf".*/{BLOCK}\d+.*", TFLOperationName.FULLY_CONNECTED, 8, 8)
        for operation in (TFLOperationName.CONV_2D, TFLOperationName.FULLY_CONNECTED, TFLOperationName.BATCH_MATMUL):
            quantization.update_quantization_recipe(f".*{NOT_QUANTIZED}.*", operation, algorithm_key="no_quantize")
        if batches is not None:
            ranges = quantization.calibrate({"serving_default": batches})
        return bytes(quantization.quantize(ranges).quantized_model)


@contextlib.contextmanager
def _quiet():
    """Keeps the quantizer's progress bars from the terminal."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def tflite_ops(path: str | os.PathLike) -> dict[str, int]:
    """Returns how many operations of each kind a TFLite file has; one that is not built in is called `custom:NAME`."""
    from collections import Counter

    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(pathlib.Path(path).read_bytes()))
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

    def name(operator):
        code = model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return f"custom:{code.customCode.decode()}"
        return builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]

    return dict(Counter(name(operator) for graph in model.subgraphs for operator in graph.operators))
