"""Cost of a model: parameters, multiply-accumulates, activation memory and latency."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_t2t.analysis.macs import Product, block_products, matrix_products, module_products
from keras_t2t.configs import T2TConfig, is_count
from keras_t2t.keras_internals import run_graph
from keras_t2t.layers import ClassToken, EncoderBlock, PositionEmbedding, ResizeLike, TokensToToken
from keras_t2t.models.graph import blocks_of, layers_of
from keras_t2t.models.parts import block_kind
from keras_t2t.timing import median_time

PRODUCT_LAYERS = (keras.layers.Attention, keras.layers.Dot)
"""Layers of Keras that multiply matrices even if they have no weights."""
PRODUCT_OPERATIONS = (
    *("Conv", "ConvTranspose", "DepthwiseConv", "SeparableConv", "DotProductAttention"),
    *("Dot", "Einsum", "Inner", "Matmul", "Outer", "Tensordot", "Vdot"),
)
"""Class names of `keras.ops` operations that multiply matrices."""


@dataclasses.dataclass(frozen=True)
class StageCost:
    """Cost of one stage of a model, for one image.

    Attributes:
        name: Name of the layer.
        trainable: Number of trainable parameters.
        frozen: Number of parameters that are not trainable.
        weight_macs: Multiply-accumulates of matrix products with weights.
        attention_macs: Multiply-accumulates of matrix products without weights: queries with keys, attention with values, the
            random features of a performer, and the resizing of the maps of a segmenter.
        activation_bytes: Size of the outputs of all matrix products. Training keeps two to three times as much, because it
            also stores the outputs of norms, activations, softmax and additions.
        largest_bytes: Size of the largest of these outputs, a lower bound on the memory for inference.
    """

    name: str
    trainable: int = 0
    frozen: int = 0
    weight_macs: int = 0
    attention_macs: int = 0
    activation_bytes: int = 0
    largest_bytes: int = 0

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return self.trainable + self.frozen

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates of all matrix products."""
        return self.weight_macs + self.attention_macs


@dataclasses.dataclass(frozen=True)
class Cost(StageCost):
    """Cost of a model, for one image: the sum over its stages, except for `largest_bytes`, which is the maximum.

    Attributes:
        input_shape: Shape `(H, W, C)` of the image.
        stages: Cost of each stage, in the order of the model.
    """

    input_shape: tuple = ()
    stages: tuple[StageCost, ...] = ()


def cost(model: keras.Model, input_shape: tuple | None = None) -> Cost:
    """Counts the exact cost of a model, stage by stage.

    The count includes all matrix products that the model computes, including those of attention and performers. The last block
    of a classifier only computes the class token. Norms, activations, softmax and additions are not counted. TensorFlow's
    profiler counts them, which adds 0.5% to 1.3% for the published variants at 224x224. The resizing of a position table for
    images of another size is not counted either.

    Args:
        model: A model built by `keras_t2t`, or one that contains it. Your own layers are assumed to compute no matrix products
            unless their weights include matrices.
        input_shape: Shape `(H, W, C)` of the image. Defaults to the input shape of the model. It may differ from that of the
            model, but the parameters are always counted as they are in the model.

    Returns:
        The `Cost` of the model.

    Raises:
        ValueError: If `input_shape` is invalid, or missing for a model without a fixed input shape, or if the model contains
            layers or operations whose matrix products are not known, such as convolutions.

    Example:

    >>> cost = keras_t2t.analysis.cost(keras_t2t.T2TViT7(weights=None))
    >>> cost.parameters, cost.multiply_accumulates
    (4310222, 1050023936)
    """
    expected = tuple(model.inputs[0].shape[1:])
    shape = tuple(expected if input_shape is None else input_shape)
    if len(shape) != 3 or not all(map(is_count, shape)) or shape[2] != expected[2]:
        raise ValueError(
            f"Expected input_shape=(height, width, {expected[2]}) for {model.name}, which takes images of shape {expected}; "
            f"received: input_shape={input_shape}"
        )
    products = _products_by_layer(model, shape)
    pairs = [(layer, products.get(id(layer), [])) for layer in layers_of(model)]
    stages = tuple(_stage_cost(layer, found) for layer, found in pairs if layer.weights or found)
    total = {field.name: sum(getattr(stage, field.name) for stage in stages) for field in dataclasses.fields(StageCost)[1:]}
    total["largest_bytes"] = max(stage.largest_bytes for stage in stages)
    return Cost(model.name, **total, input_shape=shape, stages=stages)


def _products_by_layer(model, shape):
    """Returns the matrix products of each layer for one image, by `id`, found by propagating shapes."""
    blocks_of(model)  # raises unless built by keras_t2t
    products: dict[int, list[Product]] = {}

    def call(operation, *args, **kwargs):
        shapes = [tuple(x.shape) for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        if isinstance(operation, keras.Layer):
            products.setdefault(id(operation), []).extend(layer_products(operation, *shapes))
        elif type(operation).__name__ in PRODUCT_OPERATIONS:
            raise _unknown_products(operation)
        return operation.compute_output_spec(*args, **kwargs)

    run_graph(model, keras.KerasTensor((1, *shape), model.inputs[0].dtype), call)
    return products


def layer_products(layer: keras.Layer, input_shape: tuple, *other_shapes: tuple) -> list[Product]:
    """Returns the matrix products of a layer for one image.

    Args:
        layer: The layer.
        input_shape: Shape of its first input, for a batch of one image.
        *other_shapes: Shapes of its other inputs.

    Raises:
        ValueError: If the matrix products of the layer are not known.
    """
    if isinstance(layer, TokensToToken):
        return module_products(layer, input_shape[1:3], input_shape[3])
    if isinstance(layer, EncoderBlock):
        queries = 1 if layer.class_token_only else input_shape[1]
        return block_products(layer, block_kind(layer), input_shape[1], queries, input_shape[2])
    if isinstance(layer, keras.layers.Dense):
        return [Product(math.prod(input_shape[:-1]), *layer.kernel.shape)]
    if isinstance(layer, ResizeLike):
        return _resizing_products(input_shape[1:], other_shapes[0][1:3])
    has_matrices = any(len(weight.shape) > 1 for weight in layer.weights)
    if isinstance(layer, PRODUCT_LAYERS) or (has_matrices and not isinstance(layer, (ClassToken, PositionEmbedding))):
        raise _unknown_products(layer)
    return []


def _resizing_products(old_shape, new_size):
    """Returns the products of a map `(h, w, D)` with the interpolation matrices for its rows and for its columns."""
    (height, width, channels), (new_height, new_width) = old_shape, new_size
    if (height, width) == new_size:
        return []
    columns = Product(new_height * new_width, width, channels, True)  # the same matrix for each of the new rows
    return [Product(new_height, height, width * channels, True), columns]


def _unknown_products(operation):
    return ValueError(
        "Expected layers of keras_t2t, dense layers, and layers and operations without matrix products; received: layer "
        f"{operation.name!r} of type {type(operation).__name__}, which cannot be counted. Pass a model without it, such as the "
        "backbone alone"
    )


def _itemsizes(layer):
    """Returns the bytes per number in products with weights and in products without.

    Performers and the resizing of maps always use float32.
    """
    itemsize = np.dtype("float16" if layer.compute_dtype == "bfloat16" else layer.compute_dtype).itemsize
    is_precise = isinstance(layer, ResizeLike) or getattr(layer, "token_attention", None) == "performer"
    return itemsize, max(itemsize, 4) if is_precise else itemsize


def _stage_cost(layer, products):
    itemsize, attention_itemsize = _itemsizes(layer)
    sizes = [(attention_itemsize if product.attention else itemsize) * product.outputs for product in products]
    return StageCost(
        name=layer.name,
        trainable=_size(layer.trainable_weights),
        frozen=_size(layer.non_trainable_weights),
        weight_macs=sum(product.multiply_accumulates for product in products if not product.attention),
        attention_macs=sum(product.multiply_accumulates for product in products if product.attention),
        activation_bytes=sum(sizes),
        largest_bytes=max(sizes, default=0),
    )


def _size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def growth(
    config: T2TConfig, sizes: Sequence[int], token_attentions: Sequence[str] | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counts how the cost of a full forward pass grows with the image size.

    Images are square and have 3 channels. The head has 1,000 classes.

    Args:
        config: Configuration of the model.
        sizes: Image heights in pixels.
        token_attentions: Values of `token_attention` to compare. Defaults to `("performer", "transformer")`, or to
            `("convolution",)` for a configuration without token attention.

    Returns:
        A dictionary that maps each token attention to two arrays with one value per image size: the multiply-accumulates and
        the number of elements in the largest output of a matrix product.

    Example:

    >>> config = keras_t2t.config_of(keras_t2t.T2TViT14(weights=None))
    >>> macs, largest = keras_t2t.analysis.growth(config, (224, 448))["transformer"]
    >>> largest.tolist()
    [9834496, 157351936]
    """
    default = ("convolution",) if config.token_attention == "convolution" else ("performer", "transformer")
    results = {}
    for kind in token_attentions or default:
        variant = dataclasses.replace(config, token_attention=kind)
        products = [list(itertools.chain(*matrix_products(variant, (size, size)).values())) for size in sizes]
        macs = [sum(product.multiply_accumulates for product in at_size) for at_size in products]
        results[kind] = np.array(macs), np.array([max(product.outputs for product in at_size) for at_size in products])
    return results


def latency(model: keras.Model, input_shape: tuple | None = None, seconds: float = 2.0) -> float:
    """Measures the inference time for one image on this machine.

    Other processes on the machine affect the result.

    Args:
        model: A Keras model that takes images.
        input_shape: Shape `(H, W, C)` of the image. Defaults to the input shape of the model.
        seconds: Minimum duration of the measurement. At least three forward passes are timed.

    Returns:
        The median time in seconds, after one untimed pass that compiles the model.

    Raises:
        ValueError: If `input_shape` is missing for a model without a fixed input shape.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise ValueError(f"Expected input_shape=(height, width, {shape[2]}) for {model.name}, which takes images of any size")
    images = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype("float32")
    return median_time(lambda: model.predict_on_batch(images), seconds)
