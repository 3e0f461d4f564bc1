"""Feature maps at every scale, for detection and segmentation."""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import keras

from keras_t2t.configs import SoftSplits, T2TConfig, check_image_size
from keras_t2t.keras_internals import StopGraph, copy_weights, run_graph
from keras_t2t.layers import (
    ClassToken,
    EncoderBlock,
    FastLayerNorm,
    FeatureMap,
    ImageNormalization,
    PositionEmbedding,
    TokensToToken,
)
from keras_t2t.models import parts
from keras_t2t.models.encoding import encode
from keras_t2t.models.graph import blocks_of, image_input, layers_of, tokens_to_token_of

DETECTOR_LEVEL = 5
"""The detectors of KerasHub and keras-cv need feature maps up to P5."""


def pyramid_levels(soft_splits: SoftSplits) -> tuple[str, ...]:
    """Returns the level of each stage of a T2T module. Level `"Pn"` has a stride of `2**n` pixels.

    Raises:
        ValueError: If a stride is not a power of two, or if two stages have the same.

    Example:

    >>> keras_t2t.models.pyramid_levels([(7, 4, 2), (3, 2, 1), (3, 2, 1)])
    ('P2', 'P3', 'P4')
    """
    strides = list(itertools.accumulate((stride for _, stride, _ in soft_splits), lambda a, b: a * b))
    if any(stride & (stride - 1) for stride in strides):
        raise ValueError(
            "Expected feature maps with strides that are powers of two, because levels are named after them; received: "
            f"the strides {strides}"
        )
    if len(set(strides)) < len(strides):
        raise ValueError(f"Expected stages with different strides, because levels are named after them; received: {strides}")
    return tuple(f"P{stride.bit_length() - 1}" for stride in strides)


def feature_pyramid(
    model: keras.Model,
    blocks: Sequence[str] = (),
    *,
    levels: Sequence[str] | None = None,
    image_size: tuple[int | None, int | None] = (None, None),
    name: str = "feature_pyramid",
) -> keras.Model:
    """Returns a model that outputs the feature maps of another model at several scales, for detection and segmentation.

    The levels are named after their strides: `"P2"` has a stride of 4 pixels, `"P3"` of 8, and `"P4"` of 16. These are the
    stages of the T2T module and the output of the backbone, so the published variants have exactly these. `T2TViTTiny32` has
    `"P1"` and `"P2"`. A plain ViT has a single soft split, so it only has `"P4"`. Higher levels are made by max pooling.

    Token transformers need time and memory that grow with the fourth power of the image's side. For large images, use a variant
    with token performers.

    Args:
        model: A model built by `keras_t2t`. Its weights are copied: training one model does not change the other.
        blocks: Names of encoder blocks whose outputs to include, such as `"block3"`.
        levels: Names of the levels to return, from `"P1"` on. Defaults to those that the model computes.
        image_size: Height and width of the images. With `None`, the model takes images of any height or width.
        name: Name of the new model.

    Returns:
        A functional `keras.Model` that takes images `(B, H, W, C)` in the value range that `model` expects, and returns a
        dictionary of feature maps:

        - The levels of the stages: `(B, h, w, token_dim)`, where h and w are about H and W divided by the stride. For the nth
          stage, they are `keras_t2t.configs.token_grid(soft_splits[:n], H, W)`.
        - The last level that the model computes: `(B, h, w, D)`, the normalized output of the last block.
        - Levels above: `(B, h, w, D)`. Each one is the maximum over 2x2 positions of the level before, with a stride of 2.
        - The requested blocks: `(B, h, w, width)`, not normalized. The width of densely connected blocks differs from block to
          block.

        The model can be saved and loaded.

    Raises:
        ValueError: If `model` was not built by `keras_t2t`, or does not have the requested blocks or levels, or if `image_size`
            is invalid.

    Example:

    >>> pyramid = keras_t2t.feature_pyramid(keras_t2t.T2TViT7(weights=None), levels=["P2", "P4", "P5"])
    >>> maps = pyramid(np.zeros((2, 64, 96, 3)))
    >>> {name: tuple(values.shape) for name, values in maps.items()}
    {'P2': (2, 16, 24, 64), 'P4': (2, 4, 6, 256), 'P5': (2, 2, 3, 256)}
    """
    names = [block.name for block in blocks_of(model)]
    computed = pyramid_levels(tokens_to_token_of(model).soft_splits)
    wanted = list(dict.fromkeys(computed if levels is None else levels))
    _check(model, names, blocks, computed, wanted)
    image = image_input(model)
    size = check_image_size(image_size, may_be_unknown=True)
    images = keras.Input((*size, image.shape[-1]), dtype=image.dtype, name=parts.IMAGES)
    maps = _run(model, images, computed, set(names), blocks)
    maps |= pooled_levels(computed[-1], maps[computed[-1]], max((int(level[1:]) for level in wanted), default=0))
    return keras.Model(images, {key: maps[key] for key in [*wanted, *blocks]}, name=name)


def pooled_levels(level: str, features: Any, up_to: int) -> dict[str, Any]:
    """Adds max pooling to a functional model.

    Args:
        level: Name of the level of `features`, such as `"P4"`.
        features: Symbolic tensor `(B, h, w, D)`.
        up_to: Number of the last level to add.

    Returns:
        The levels above `level` by name, which is empty if `up_to` is not above it.
    """
    pooled = {}
    for number in range(int(level[1:]) + 1, up_to + 1):
        name = f"P{number}"
        pool = keras.layers.MaxPooling2D(2, padding="same", data_format="channels_last", name=name, dtype=features.dtype)
        features = pool(features)
        pooled[name] = features
    return pooled


def encode_pyramid(
    images: Any, config: T2TConfig, position_grid: tuple[int, int], dtype: Any = None
) -> tuple[Any, dict[str, Any]]:
    """Adds the backbone of `config` to a functional model, for other libraries that need feature maps.

    Args:
        images: Symbolic tensor `(B, H, W, C)` of normalized images. H and W may be unknown.
        config: Configuration of the model.
        position_grid: Token grid `(h, w)` that the position table is made for.
        dtype: Dtype or dtype policy of every layer, or `None` for the global Keras policy.

    Returns:
        The normalized tokens `(B, 1 + h * w, D)`, with the class token first; and the levels by name, as in `feature_pyramid`,
        up to at least `DETECTOR_LEVEL`.
    """
    tokens, stages = encode(images, config, position_grid=position_grid, return_stages=True, dtype=dtype)
    *earlier, last = pyramid_levels(config.soft_splits)
    features = FeatureMap(name=parts.FEATURE_MAP, dtype=dtype)(tokens, stages[-1])
    levels = {**dict(zip(earlier, stages, strict=False)), last: features}
    return tokens, levels | pooled_levels(last, features, DETECTOR_LEVEL)


def backbone_layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers of a model that `encode` adds and that have weights, in the order of the graph."""
    kinds = (TokensToToken, ClassToken, PositionEmbedding, EncoderBlock, FastLayerNorm)
    return [layer for layer in layers_of(model) if isinstance(layer, kinds) or parts.is_transition(layer)]


def backbone_arguments(model: keras.Model, image_shape: tuple[int | None, int | None, int] | None) -> dict[str, Any]:
    """Returns the arguments that the backbones for other libraries share, for a backbone like that of `model`.

    Args:
        model: A model built by this package.
        image_shape: `(height, width, channels)` of the images. With `None`, it is that of `model`.
    """
    layers = backbone_layers(model)
    return {
        "config": dataclasses.asdict(parts.config_of(model)),
        "image_shape": tuple(image_input(model).shape[1:]) if image_shape is None else image_shape,
        "position_grid": next(layer.grid_size for layer in layers if isinstance(layer, PositionEmbedding)),
        "dtype": layers[0].dtype_policy.name,
        "name": f"{model.name}_backbone",
    }


def copy_backbone(model: keras.Model, copy: keras.Model) -> None:
    """Copies the weights of a backbone to another one with the same configuration.

    Raises:
        ValueError: If the backbone of `model` is cut off, or has other operations in between.
    """
    old, new = backbone_layers(model), backbone_layers(copy)
    expected = (keras.layers.InputLayer, ImageNormalization, keras.layers.Dropout, *map(type, old))
    others = [operation.name for operation in _backbone_operations(model) if not isinstance(operation, expected)]
    if others or [type(layer) for layer in old] != [type(layer) for layer in new]:
        received = f"which has {others[0]!r} in between" if others else "which ends early"
        raise ValueError(f"Expected a model with the backbone of a T2T-ViT; received: {model.name!r}, {received}")
    for source, target in zip(old, new, strict=True):
        copy_weights(source, target)


def _backbone_operations(model):
    """Returns the operations of a model from the images up to the norm after its last block, in the order of the graph."""
    operations: list[Any] = []
    remaining = {block.name for block in blocks_of(model)}

    def call(operation, *args, **kwargs):
        operations.append(operation)
        remaining.discard(operation.name)
        if isinstance(operation, FastLayerNorm) and not remaining:
            raise StopGraph
        return 0

    with contextlib.suppress(StopGraph):
        run_graph(model, 0, call)
    return operations


def _check(model, names, blocks, computed, wanted):
    if not set(blocks) <= set(names):
        raise ValueError(f"Expected a subset of the blocks {names}; received: blocks={blocks}")
    above = int(computed[-1][1:]) + 1
    missing = [level for level in wanted if level not in computed and not _is_level(level, above)]
    if missing:
        raise ValueError(
            f"{model.name} has no level {', '.join(map(str, missing))}. Its feature maps are {', '.join(computed)}; the levels "
            f"from P{above} on are made by max pooling. Received: levels={wanted}"
        )


def _is_level(name, at_least):
    number = str(name)[1:]
    return str(name)[:1] == "P" and number.isdecimal() and number == str(int(number)) and int(number) >= at_least


def _run(model, images, computed, names, blocks):
    """Rebuilds a model on new images up to the norm after its last block. Returns the feature maps by name."""
    maps: dict[str, Any] = {}
    remaining, taken = set(names), set(names)

    def call(operation, *args, **kwargs):
        layer = _clone(operation, taken)
        output = layer(*args, **kwargs)
        if isinstance(operation, keras.Layer):
            copy_weights(operation, layer)
        if isinstance(layer, TokensToToken):
            maps.update(zip(computed, output, strict=True))
            output = output if operation.return_stages else output[-1]
        elif isinstance(layer, EncoderBlock):
            remaining.remove(layer.name)
        is_final = isinstance(layer, FastLayerNorm) and not remaining
        if is_final or layer.name in blocks:
            name = computed[-1] if is_final else layer.name
            grid = maps[computed[-1]]  # the tokens that enter the encoder, until the final map takes their place
            maps[name] = FeatureMap(name=f"{name}_map", dtype=layer.dtype_policy.name)(output, grid)
        if is_final:
            raise StopGraph  # what follows may need a fixed image size
        return output

    try:
        run_graph(model, images, call)
    except StopGraph:
        return maps
    raise ValueError(f"Expected a model with encoder blocks and a FastLayerNorm after the last one; {model.name!r} ends early")


def _clone(operation, taken):
    """Clones a layer so that it returns all stages and all tokens. Functions from `keras.ops` are returned as they are.

    A layer gets another name if it has one of those in `taken`, as layers of different nested models may.
    """
    if not isinstance(operation, keras.Layer):
        return operation
    changes = {TokensToToken: {"return_stages": True}, EncoderBlock: {"class_token_only": False}}
    config = operation.get_config()
    for kind, values in changes.items():
        if isinstance(operation, kind):
            config |= values
    if not isinstance(operation, EncoderBlock):
        while config["name"] in taken:
            config["name"] += "_"
        taken.add(config["name"])
    return type(operation).from_config(config)
