"""What a model costs: parameters, multiply-accumulates, memory for activations, time."""

import dataclasses
import itertools

import keras
import numpy as np

from keras_t2t.analysis.macs import Product, matrix_products
from keras_t2t.configs import T2TConfig, is_count
from keras_t2t.layers import EncoderBlock
from keras_t2t.models import config_of, parts
from keras_t2t.timing import median_time


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What one stage costs, for one image.

    Attributes:
        name: of the layer.
        trainable: trained parameters.
        frozen: parameters that are not trained.
        weight_macs: multiply-accumulates of products with trained weights.
        attention_macs: those of queries with keys, attention with values, and the performer's random features.
        activation_bytes: the results of all its matrix products. Training keeps two to three times as much: those of norms,
            activations, softmax and additions, too.
        largest_bytes: the largest of these results: what inference needs at least.
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
        return self.trainable + self.frozen

    @property
    def multiply_accumulates(self) -> int:
        return self.weight_macs + self.attention_macs


@dataclasses.dataclass(frozen=True)
class Cost(StageCost):
    """What a model costs, for one image: the sums over its stages, of `largest_bytes` the maximum.

    Attributes:
        input_shape: (H, W, C) of the image.
        stages: those of the model, in its order.
    """

    input_shape: tuple[int, int, int] = ()
    stages: tuple[StageCost, ...] = ()


def cost(model: keras.Model, input_shape: tuple[int, int, int] | None = None) -> Cost:
    """Counts what a model costs, exactly and stage by stage.

    Matrix products are counted, those of attention and of the performer included, as the model computes them: the last block of
    a classifier for the class token only. Norms, activations, softmax and additions are not: with them TensorFlow's profiler
    counts 0.5% to 1.3% more for the published variants at 224x224.

    Args:
        model: any model of this package.
        input_shape: (H, W, C) of the image; by default that of the model. Another one may be given for any model; the
            parameters stay those that the model has.

    Raises:
        ValueError: if `input_shape` is needed and missing, or is none; for layers other than those of this package and dense
            layers behind them, whose products it cannot count.
    """
    config = config_of(model)
    shape = tuple(model.input_shape[1:] if input_shape is None else input_shape)
    if len(shape) != 3 or not all(map(is_count, shape)) or shape[2] != model.input_shape[3]:
        raise ValueError(
            f"Expected input_shape=(height, width, {model.input_shape[3]}) for {model.name}, which takes images of "
            f"{model.input_shape[1:]}; received: input_shape={input_shape}"
        )
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
    products = matrix_products(config, shape[:2], shape[2], 0, blocks[-1].class_token_only)
    products |= {name: [_product(layer)] for name, layer in layers.items() if _is_behind(layer, products)}
    item = np.dtype(_numpy_name(blocks[0].compute_dtype)).itemsize
    precise = max(item, 4) if config.token_attention == "performer" else item  # the performer's products stay float32
    items = {parts.TOKENS_TO_TOKEN: (item, precise)}
    stages = tuple(_stage(layer, products.get(name, []), *items.get(name, (item, item))) for name, layer in layers.items())
    total = {field.name: sum(getattr(stage, field.name) for stage in stages) for field in dataclasses.fields(StageCost)[1:]}
    total["largest_bytes"] = max(stage.largest_bytes for stage in stages)
    return Cost(model.name, **total, input_shape=shape, stages=stages)


def _numpy_name(dtype):
    return "float16" if dtype == "bfloat16" else dtype  # which numpy does not have


def _is_behind(layer, products):
    """Whether a layer has a product that is not one of the body's."""
    return hasattr(layer, "kernel") and (layer.name == parts.HEAD or layer.name not in products)


def _product(layer):
    """The product of a dense layer with features (B, D)."""
    if len(layer.kernel.shape) != 2 or len(layer.input.shape) != 2:
        raise ValueError(
            "Expected the layers of this package and dense layers of features (B, D) behind them: others cannot be counted; "
            f"received: {layer.name}, a {type(layer).__name__}"
        )
    return Product(1, *layer.kernel.shape)


def _stage(layer, products, item, attention_item):
    sizes = [(attention_item if product.attention else item) * product.outputs for product in products]
    return StageCost(
        layer.name,
        _size(layer.trainable_weights),
        _size(layer.non_trainable_weights),
        sum(product.multiply_accumulates for product in products if not product.attention),
        sum(product.multiply_accumulates for product in products if product.attention),
        sum(sizes),
        max(sizes, default=0),
    )


def _size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def growth(config: T2TConfig, sizes, token_attentions=None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Counts how the cost of a full pass grows with the size of square images of 3 channels, for 1,000 classes.

    Args:
        config: the model.
        sizes: heights of the images in pixels.
        token_attentions: what to put between the soft splits; by default the performer and the transformer, for a model without
            either what it has.

    Returns:
        For each token attention the multiply-accumulates, and how many numbers the largest result of a matrix product has, at
        each size.
    """
    own = ("convolution",) if config.token_attention == "convolution" else ("performer", "transformer")
    found = {}
    for kind in token_attentions or own:
        model = dataclasses.replace(config, token_attention=kind)
        products = [[*itertools.chain(*matrix_products(model, (size, size)).values())] for size in sizes]
        macs = [sum(product.multiply_accumulates for product in one) for one in products]
        found[kind] = np.array(macs), np.array([max(product.outputs for product in one) for one in products])
    return found


def latency(model: keras.Model, input_shape: tuple[int, int, int] | None = None, seconds: float = 2.0) -> float:
    """Measures how long a model takes for one image, on this machine and with whatever else runs on it.

    Args:
        model: any model with a fixed `input_shape`, or any at all if it is given.
        input_shape: (H, W, C) of the image.
        seconds: how long to measure; at least three passes.

    Returns:
        The median in seconds, after one pass that compiles.

    Raises:
        ValueError: if `input_shape` is needed and missing.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise ValueError(f"Expected input_shape=(height, width, {shape[2]}) for {model.name}, which takes images of any size")
    images = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype("float32")
    return median_time(lambda: model.predict_on_batch(images), seconds)
