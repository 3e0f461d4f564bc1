"""Attention maps of every block and T2T stage, and attention rollout over the blocks."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.analysis.geometry import nearest_tokens, token_centers
from keras_t2t.analysis.tracing import batches, check_output, run_with_attention, stage_names, to_numpy
from keras_t2t.layers import TokensToToken
from keras_t2t.models.graph import blocks_of, input_of, tokens_to_token_of


def attention_maps(
    model: keras.Model,
    images: np.ndarray,
    layers: Sequence[str] | str | None = None,
    points: Sequence[tuple[float, float]] | str | None = None,
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Returns the attention weights of the encoder blocks and of the T2T stages.

    The rows of every map sum to 1. A performer has no explicit attention weights, so its map is the one implied by its random
    features: phi(q) phi(k)', divided by the sum of each row. The last block is computed for all tokens, even though a
    classifier only needs the class token. The first row of a block's map belongs to the class token.

    Glossary: B: images; H: heads; N: tokens; n: queries. In blocks, the class token comes first, followed by the grid in
    row-major order.

    Args:
        model: A model built by `keras_t2t`.
        images: Images of shape `(B, H, W, C)`, in the value range the model expects.
        layers: Names of the maps to return: `"block0"`, `"block1"`, ... and `"stage1"`, `"stage2"`, ... `None` returns all.
        points: Query positions for the stages, as `(row, column)` in pixels. Only the tokens nearest to these points are used
            as queries, so no `(N, N)` matrix is computed. `None` uses the center of the image. `"all"` uses all tokens; the
            first stage of a 224x224 image has 3136 of them, which takes 39 MB per image.
        batch_size: Number of images per forward pass.

    Returns:
        A dictionary that maps names to arrays in float32 or higher precision: `(B, H, N, N)` for blocks and `(B, 1, n, N)` for
        stages. For T2TViT14, the maps take 13 MB for a 224x224 image and 112 MB for a 384x384 image.

    Raises:
        ValueError: If `images` do not match the model's input shape, if `layers` contains an unknown name, or if a point lies
            outside the image.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> maps = keras_t2t.analysis.attention_maps(model, np.zeros((2, 32, 32, 3)))
    >>> maps["block0"].shape, maps["stage1"].shape
    ((2, 4, 65, 65), (2, 1, 1, 256))
    """
    blocks = [block.name for block in blocks_of(model)]
    module = tokens_to_token_of(model)
    stages = stage_names(module)
    available = [*stages, *blocks]
    layers = available if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if not layers or not set(layers) <= set(available):
        raise ValueError(f"Expected one or more of the layers {available}; received: layers={layers}")
    maps = defaultdict(list)

    def visit_block(block, weights, _):
        if block.name in layers:
            maps[block.name].append(to_numpy(weights))

    for batch in batches(model, images, batch_size):
        if set(stages) & set(layers):
            pixels = input_of(module, model, batch)
            for name, weights in zip(stages, stage_weights(module, pixels, points, batch.shape[1:3]), strict=True):
                if name in layers:
                    maps[name].append(to_numpy(weights))
        check_output(model, batch, run_with_attention(model, batch, visit_block))
    return {name: np.concatenate(maps[name]) for name in layers}


def stage_weights(
    module: TokensToToken,
    pixels: Any,
    points: Sequence[tuple[float, float]] | str | None = None,
    image_size: tuple[int, int] | None = None,
) -> Iterator[Any]:
    """Yields the attention weights `(B, 1, n, N)` of each stage of the T2T module; see `attention_maps`.

    Args:
        module: The T2T module.
        pixels: Its input `(B, H, W, C)`.
        points: Query positions in pixels of the image.
        image_size: `(height, width)` of the image, if it was resized to `pixels`.
    """
    size = pixels.shape[1:3]
    queries_at = _check_points(points, image_size or size)
    if queries_at is not None and image_size:
        queries_at = (np.array(queries_at) * size / image_size).tolist()
    inputs = [pixels, *module.stage_maps(pixels)]
    for i in range(len(stage_names(module))):
        attention = module.attentions[i]
        windows = module.splits[i](inputs[i])  # (B, h, w, K)
        tokens = ops.reshape(windows, (windows.shape[0], -1, windows.shape[-1]))
        queries, keys, _ = attention.project_heads(attention.norm1(tokens))
        if queries_at is not None:
            indices = nearest_tokens(token_centers(module.soft_splits[: i + 1], size), queries_at)
            queries = ops.take(queries, indices, axis=1)
        yield attention.compute_weights(queries, keys)[:, None]


def _check_points(points, size):
    """Returns the points as a list of pairs, or `None` for `"all"`."""
    if points is None:
        return [(size[0] / 2, size[1] / 2)]
    if isinstance(points, str) and points == "all":
        return None
    try:
        array = np.asarray(points, "float64")
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or (array < 0).any() or (array >= size).any():
        raise ValueError(
            f"Expected points='all' or (row, column) pairs inside the {size[0]}x{size[1]} image; received: points={points!r}"
        )
    return array.tolist()


def attention_rollout(model: keras.Model, images: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """Returns the attention rollout from the input of the first block to the output of the last one.

    See `rollout` for the method. All blocks are computed for all tokens.

    Args:
        model: A model built by `keras_t2t`.
        images: Images of shape `(B, H, W, C)`, in the value range the model expects.
        batch_size: Number of images per forward pass.

    Returns:
        An array of shape `(B, N, N)`, whose rows sum to 1. `[:, 0, 1:]` is the contribution of the grid to the class token.

    Raises:
        ValueError: If `images` do not match the model's input shape.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> keras_t2t.analysis.attention_rollout(model, np.zeros((2, 32, 32, 3))).shape
    (2, 65, 65)
    """
    return np.concatenate([_rollout_batch(model, batch) for batch in batches(model, images, batch_size)])


def _rollout_batch(model, batch):
    product = None  # only the running product is kept, not the attention of every block

    def visit_block(block, weights, _):
        nonlocal product
        product = rollout([to_numpy(weights)], product)

    check_output(model, batch, run_with_attention(model, batch, visit_block))
    return product


def rollout(weights: Iterable[Any], product: np.ndarray | None = None) -> np.ndarray:
    """Multiplies the attention of all blocks.

    The attention of each block is averaged over its heads, and then averaged with the identity to account for the residual
    connection. Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.

    Args:
        weights: Arrays `(B, H, N, N)`, from the first block to the last. Rows sum to 1.
        product: The result `(B, N, N)` for the preceding blocks, if any.

    Returns:
        An array of shape `(B, N, N)`, whose rows sum to 1.
    """
    for block in weights:
        step = (block.mean(1) + np.eye(block.shape[-1], dtype=block.dtype)) / 2
        product = step if product is None else step @ product
    if product is None:
        raise ValueError("Expected the attention weights of at least one block; received none")
    return product
