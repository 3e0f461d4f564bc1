"""What attends to what: the attention weights of every block and stage, and their product over the blocks."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_t2t.analysis.geometry import nearest_tokens, token_centers
from keras_t2t.analysis.model_parts import batches, run_encoder, split_model, to_numpy


def attention_maps(
    model: keras.Model,
    images,
    layers: Sequence[str] | None = None,
    points: Sequence[tuple[float, float]] | str | None = None,
    batch_size: int = 8,
) -> dict[str, np.ndarray]:
    """Returns the attention weights of a model's blocks and of the stages of its T2T module.

    The rows of every map sum to 1. The map of a performer is what its features imply, phi(q) phi(k)' over the sum of each row.
    The last block is computed for all tokens, though a classifier computes the class token only: the first row is what it uses.

    Glossary: B: images; H: heads; N: tokens, in blocks the class token first, then the grid row by row; n: queries.

    Args:
        model: any model of this package.
        images: (B, H, W, C), in the range that the model takes.
        layers: names of the maps wanted, `"block0"`, ... and `"stage1"`, ...; None for all.
        points: (row, column) in pixels, on the image: in the stages, only the tokens nearest to these are queries, so that
            nothing of shape (N, N) is made there; None for the center of the image, `"all"` for all tokens (3136 of them in the
            first stage of a 224x224 image: 39 MB an image).
        batch_size: how many images pass at a time.

    Returns:
        By name: (B, H, N, N) for blocks, (B, 1, n, N) for stages, in at least float32. T2TViT14 makes 13 MB for a 224x224
        image, 112 MB for one of 384x384.

    Raises:
        ValueError: for images that the model does not take, for layers that it does not have, for points beside the image.
    """
    model_parts = split_model(model)
    available = [*model_parts.stage_names, *model_parts.block_names]
    layers = available if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if not layers or not set(layers) <= set(available):
        raise ValueError(f"Expected one or more of the layers {available}; received: layers={layers}")
    found = defaultdict(list)
    for batch in batches(model, images, batch_size):
        pixels, tokens = model_parts.entry(batch, training=False)
        blocks = (weights for weights, _ in run_encoder(model_parts, tokens))
        for name, weights in zip(available, itertools.chain(_stage_weights(model_parts, pixels, points), blocks), strict=True):
            if name in layers:
                found[name].append(to_numpy(weights))
    return {name: np.concatenate(found[name]) for name in layers}


def _stage_weights(model_parts, pixels, points):
    """Yields the attention weights (B, 1, n, N) of each stage of the T2T module."""
    module, size = model_parts.tokens_to_token, pixels.shape[1:3]
    points = _points(points, size)
    maps = [pixels, *module.stage_maps(pixels)]
    for i in range(len(model_parts.stage_names)):
        attention = module.attentions[i]
        windows = module.splits[i](maps[i])  # (B, h, w, K)
        tokens = ops.reshape(windows, (windows.shape[0], -1, windows.shape[-1]))
        queries, keys, _ = attention.project_heads(attention.norm1(tokens))
        if points is not None:
            near = nearest_tokens(token_centers(module.soft_splits[: i + 1], size), points)
            queries = ops.take(queries, near, axis=1)
        yield attention.compute_weights(queries, keys)[:, None]


def _points(points, size):
    """Returns points as pairs of numbers, the center of the image for None; None for `"all"`."""
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
            f"Expected 'all', or (row, column) pairs on an image of {size[0]}x{size[1]}; received: points={points!r}"
        )
    return array.tolist()


def attention_rollout(model: keras.Model, images, batch_size: int = 8) -> np.ndarray:
    """Returns how much of every token that enters the first block reaches every token after the last one.

    See `rollout`; the weights are those of the blocks, all tokens computed in each.

    Args:
        model: any model of this package.
        images: (B, H, W, C), in the range that the model takes.
        batch_size: how many images pass at a time.

    Returns:
        (B, N, N), rows sum to 1; `[:, 0, 1:]` is what the class token takes from the grid.
    """
    model_parts = split_model(model)
    results = []
    for batch in batches(model, images, batch_size):
        _, tokens = model_parts.entry(batch, training=False)
        results.append(rollout(to_numpy(weights) for weights, _ in run_encoder(model_parts, tokens)))
    return np.concatenate(results)


def rollout(weights) -> np.ndarray:
    """Multiplies the attention of blocks, each averaged over its heads and half of it replaced by the residual connection.

    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.

    Args:
        weights: arrays (B, H, N, N), from the first block to the last; rows sum to 1.

    Returns:
        (B, N, N), rows sum to 1.
    """
    result = 1.0
    for block in weights:
        step = (block.mean(1) + np.eye(block.shape[-1], dtype=block.dtype)) / 2
        result = step @ result if np.ndim(result) else step
    return result
