"""Feature maps at every scale, for detection, segmentation and visualization."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_t2t.analysis.tracing import batches, blocks_of, to_numpy
from keras_t2t.keras_internals import run_graph
from keras_t2t.layers import EncoderBlock, FastLayerNorm, FeatureMap, TokensToToken
from keras_t2t.models import parts


@keras.saving.register_keras_serializable("keras_t2t")
class TokenPyramid(TokensToToken):
    """A `TokensToToken` that returns the feature map of every stage.

    It has the same arguments and weights as `TokensToToken`.

    Input:
        `(B, H, W, C)`.

    Output:
        A list of feature maps: `(B, h, w, token_dim)` for every soft split but the last, then the tokens
        `(B, h, w, embed_dim)`.

    Example:

    >>> layer = keras_t2t.analysis.features.TokenPyramid(embed_dim=96)
    >>> [tuple(x.shape) for x in layer(np.zeros((2, 32, 48, 3)))]
    [(2, 8, 12, 64), (2, 4, 6, 64), (2, 2, 3, 96)]
    """

    def call(self, images: Any, training: bool | None = None) -> list[Any]:
        return self.stage_maps(images)

    def compute_output_shape(self, input_shape: tuple) -> Any:  # a list of shapes; the base class returns a single one
        shapes, shape = [], input_shape
        for split in self.splits[:-1]:
            shape = (*split.compute_output_shape(shape)[:3], self.token_dim)
            shapes.append(shape)
        return [*shapes, super().compute_output_shape(input_shape)]


def feature_pyramid(model: keras.Model, blocks: Sequence[str] = (), name: str = "feature_pyramid") -> keras.Model:
    """Returns a model that outputs the intermediate feature maps of another model, for images of any size.

    The published variants have feature maps with strides of 4, 8 and 16 pixels. A plain ViT has a single soft split, so it only
    has the last of these.

    Args:
        model: A model built by `keras_t2t`. Its weights are copied: training one model does not change the other.
        blocks: Names of blocks whose outputs to include, such as `"block3"`.
        name: Name of the new model.

    Returns:
        A functional `keras.Model` that takes images `(B, H, W, C)` in the value range that `model` expects, and returns a
        dictionary of feature maps:

        - `"stage1"`, `"stage2"`, ...: `(B, h, w, token_dim)`, the stages of the T2T module except for the last.
        - `"final"`: `(B, h, w, D)`, the normalized output of the last block.
        - The requested blocks: `(B, h, w, width)`, not normalized. The width of densely connected blocks differs from block to
          block.

        The model can be saved and loaded.

    Raises:
        ValueError: If `model` was not built by `keras_t2t` or does not have the requested blocks.

    Example:

    >>> pyramid = keras_t2t.analysis.feature_pyramid(keras_t2t.T2TViT7(weights=None))
    >>> maps = pyramid(np.zeros((2, 64, 96, 3)))
    >>> tuple(maps["stage1"].shape), tuple(maps["final"].shape)
    ((2, 16, 24, 64), (2, 4, 6, 256))
    """
    available = [block.name for block in blocks_of(model)]
    if not set(blocks) <= set(available):
        raise ValueError(f"Expected a subset of the blocks {available}; received: blocks={blocks}")
    entry = model.inputs[0]
    images = keras.Input((None, None, entry.shape[-1]), dtype=entry.dtype, name=parts.IMAGES)
    maps: dict[str, Any] = {}
    remaining = set(available)

    def call(operation, *args, **kwargs):
        layer = _clone_operation(operation)
        output = layer(*args, **kwargs)
        if isinstance(layer, TokenPyramid):
            *stages, output = output
            maps.update({f"stage{i}": stage for i, stage in enumerate(stages, 1)})
            maps["grid"] = output
        elif isinstance(layer, EncoderBlock):
            remaining.remove(layer.name)
        is_final = isinstance(layer, FastLayerNorm) and not remaining
        if is_final or operation.name in blocks:
            key = "final" if is_final else layer.name
            maps[key] = FeatureMap(name=f"{key}_map", dtype=layer.dtype_policy.name)(output, maps["grid"])
        if isinstance(operation, keras.Layer):
            layer.set_weights(operation.get_weights())
        if is_final:
            raise _Finished  # what follows may need a fixed image size
        return output

    with contextlib.suppress(_Finished):
        run_graph(model, images, call)
    del maps["grid"]
    return keras.Model(images, maps, name=name)


class _Finished(Exception):  # noqa: N818  not an error
    """Stops a graph run early."""


def _clone_operation(operation):
    """Clones a layer so that it returns all stages and all tokens. Functions from `keras.ops` are returned as they are."""
    if isinstance(operation, TokensToToken):
        return TokenPyramid.from_config(operation.get_config())
    if isinstance(operation, EncoderBlock):
        return type(operation).from_config({**operation.get_config(), "class_token_only": False})
    return type(operation).from_config(operation.get_config()) if isinstance(operation, keras.Layer) else operation


def feature_maps(
    model: keras.Model, images: np.ndarray, blocks: Sequence[str] = ("block0",), batch_size: int = 8
) -> dict[str, np.ndarray]:
    """Returns the feature maps of `feature_pyramid(model, blocks)` as arrays.

    Args:
        model: A model built by `keras_t2t`.
        images: Images of any size, of shape `(B, H, W, C)`, in the value range the model expects.
        blocks: Names of blocks whose outputs to include.
        batch_size: Number of images per forward pass.

    Returns:
        A dictionary that maps names to arrays `(B, h, w, channels)` in float32 or higher precision.

    Raises:
        ValueError: If `model` was not built by `keras_t2t`, does not have the requested blocks, or does not accept the images.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> maps = keras_t2t.analysis.feature_maps(model, np.zeros((2, 32, 32, 3)))
    >>> maps["stage1"].shape
    (2, 16, 16, 64)
    """
    pyramid, maps = feature_pyramid(model, blocks), defaultdict(list)
    for batch in batches(pyramid, images, batch_size):
        for name, values in pyramid(batch, training=False).items():
            maps[name].append(to_numpy(values))
    return {name: np.concatenate(values) for name, values in maps.items()}
