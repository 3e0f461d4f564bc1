"""Conversion to ONNX, with weights in 32 or 8 bits."""

import contextlib
import copy
import functools
import logging
import os
import pathlib
from collections import Counter

import keras
import numpy as np

from keras_t2t.export_formats import DEFAULT_OPSET
from keras_t2t.exporting.graph import INPUT, frozen_function
from keras_t2t.exporting.metadata import KEY
from keras_t2t.layers.common import NOT_QUANTIZED
from keras_t2t.preprocessing import ModelSpec

LAYER_NORM_OPSET = 19  # the operation exists from 17 on, but the pattern below only matches the means of 19
GELU_OPSET = 20


def to_onnx(
    model: keras.Model,
    path: pathlib.Path,
    spec: ModelSpec,
    quantize: str | None = None,
    input_dtype: str = "float32",
    opset: int = DEFAULT_OPSET,
) -> None:
    """Writes a model as an ONNX file for batches of any size, with standard operations only.

    Each GELU is one operation from opset 20 on, and each LayerNorm from opset 19 on. Below, they consist of simpler operations.

    Args:
        model: The result of `optimize_for_inference`.
        path: The file to write.
        spec: What the model takes and returns.
        quantize: `None` for float32, or `"int8"`. With `"int8"`, ONNX Runtime's quantizer stores the weights of matrix products
            in 8 bits; the inputs of these products are quantized at run time.
        input_dtype: `"float32"` or `"uint8"`.
        opset: Version of the standard operations, at least 13.
    """
    import onnx

    converted = _fuse(_convert(model, input_dtype, opset), opset)
    _sort_nodes(converted.graph)
    _rename_by_position(converted.graph, INPUT, spec.output)
    onnx.helper.set_model_props(converted, {KEY: spec.to_json()})
    onnx.checker.check_model(converted, full_check=True)
    onnx.save(converted, path)
    if quantize == "int8":
        _quantize(path)


def _convert(model, input_dtype, opset):
    import onnx
    import tf2onnx

    graph = frozen_function(model, None, input_dtype).graph
    names = [[tensor.name for tensor in tensors] for tensors in (graph.inputs, graph.outputs)]
    newest = max(tf2onnx.constants.OPSET_TO_IR_VERSION)
    convert = functools.partial(tf2onnx.convert.from_graph_def, graph.as_graph_def(), None, *names, opset=min(opset, newest))
    with _only_errors_logged("tf2onnx", "tensorflow"):
        try:
            with _optimizing_in_place():
                converted, _ = convert()
        except Exception:  # with copies, tf2onnx leaves out optimizations that fail
            converted, _ = convert()
    if opset > newest:
        converted = onnx.version_converter.convert_version(converted, opset)
    del converted.opset_import[:]
    converted.opset_import.append(onnx.helper.make_opsetid("", opset))
    converted.producer_name, converted.producer_version = "keras_t2t", ""
    return converted


def _fuse(converted, opset):
    """Replaces the operations of each GELU and of each standardization of tokens by a single operation, if there is one."""
    import onnx_ir
    from onnxscript.rewriter import pattern, rewrite

    def gelu(op, x):
        return op.Mul(op.Mul(0.5, x), op.Add(1.0, op.Erf(op.Mul(x, 0.5**0.5))))

    def standardize(op, x, axes, epsilon):
        centered = op.Sub(x, op.ReduceMean(x, axes, _allow_other_attributes=True))
        variance = op.ReduceMean(op.Mul(centered, centered), axes, _allow_other_attributes=True)
        return op.Mul(centered, op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))))

    def layer_norm(op, x, axes, epsilon):
        ones = op.Constant(value=onnx_ir.tensor(np.ones(x.shape[-1], "float32")))
        return op.LayerNormalization(x, ones, axis=-1, epsilon=float(epsilon.const_value.numpy()))

    def is_over_channels(context, x, axes, epsilon, **_):
        if x.shape is None or not isinstance(x.shape[-1], int) or axes.const_value is None:
            return False
        return axes.const_value.numpy().tolist() in ([-1], [len(x.shape) - 1])

    rules = []
    if opset >= GELU_OPSET:
        rules.append(pattern.RewriteRule(gelu, lambda op, x: op.Gelu(x)))
    if opset >= LAYER_NORM_OPSET:
        rules.append(pattern.RewriteRule(standardize, layer_norm, is_over_channels))
    return rewrite(converted, pattern_rewrite_rules=rules)


def _sort_nodes(graph):
    """Makes the file reproducible: orders nodes depth first from the output. tf2onnx may order them in several ways."""
    producers = {name: node for node in graph.node for name in node.output}
    positions: dict[str, int] = {}
    visited, stack = set(), [(producers[graph.output[0].name], False)]
    while stack:
        node, are_inputs_placed = stack.pop()
        if are_inputs_placed:
            positions[node.output[0]] = len(positions)
        elif node.output[0] not in visited:
            visited.add(node.output[0])
            stack.append((node, True))
            stack.extend((producers[name], False) for name in reversed(node.input) if name in producers)
    graph.node.sort(key=lambda node: positions[node.output[0]])


def _rename_by_position(graph, input_name, output_name):
    """Makes the file reproducible: names values and nodes by their position, and sorts weights by their first use."""
    names = {"": "", graph.input[0].name: input_name, graph.output[0].name: output_name}

    def renamed(name):
        return names.setdefault(name, f"{NOT_QUANTIZED if NOT_QUANTIZED in name else 'value'}_{len(names)}")

    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for i, node in enumerate(graph.node):
        node.name = f"{NOT_QUANTIZED if NOT_QUANTIZED in node.name else node.op_type}_{i}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    weights = {tensor.name: tensor for tensor in copy.deepcopy(graph).initializer}
    del graph.initializer[:], graph.value_info[:]
    for old, new in names.items():
        if old in weights:
            weights[old].name = new
            graph.initializer.append(weights[old])
    graph.name, graph.doc_string = "keras_t2t", ""


def _quantize(path):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    excluded = [node.name for node in onnx.load(path).graph.node if node.name.startswith(NOT_QUANTIZED)]
    with _only_errors_logged("root"):
        quantize_dynamic(
            path,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
        )


@contextlib.contextmanager
def _optimizing_in_place():
    """Keeps tf2onnx from copying the graph before each of about forty optimizations, which takes half of its time."""
    name = "TF2ONNX_CATCH_ERRORS"  # tf2onnx looks at whether it is set, not at its value
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _only_errors_logged(*names):
    """Silences loggers below the level of errors."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def onnx_ops(path: str | os.PathLike) -> dict[str, int]:
    """Returns the number of operations of each kind in an ONNX file. Operations outside the standard are `DOMAIN:NAME`."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(Counter(f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in nodes))
