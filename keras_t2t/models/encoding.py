"""The backbone of a model: the layers from the images to the normalized output tokens."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_t2t.configs import T2TConfig
from keras_t2t.layers import ClassToken, FastDense, FastLayerNorm, ImageNormalization, PositionEmbedding, TokensToToken
from keras_t2t.models import parts
from keras_t2t.preprocessing import Preprocessing


def normalize(images: Any, preprocessing: Preprocessing, enabled: bool = True, dtype: Any = None) -> Any:
    """Adds the normalization of images `(B, H, W, C)` to a functional model; see `ImageNormalization`."""
    preprocessing = preprocessing.for_channels(images.shape[-1])
    return ImageNormalization(preprocessing, enabled, name=parts.NORMALIZATION, dtype=dtype)(images)


def encode(
    images: Any,
    config: T2TConfig,
    *,
    position_grid: tuple[int, int],
    class_token_only: bool = False,
    return_stages: bool = False,
    dtype: Any = None,
) -> tuple[Any, Any]:
    """Adds the backbone of `config` to a functional model.

    Glossary of shapes:
        B: batch; H, W, C: height, width and channels of the images; h, w: height and width of the token grid;
        D: `config.feature_dim`.

    Args:
        images: Symbolic tensor `(B, H, W, C)` of normalized images. H and W may be unknown.
        config: Configuration of the model.
        position_grid: Token grid `(h, w)` that the position table is made for.
        class_token_only: Whether to return the class token only.
        return_stages: Whether to return the outputs of all stages of the T2T module.
        dtype: Dtype or dtype policy of every layer, or `None` for the global Keras policy.

    Returns:
        The normalized tokens `(B, 1 + h * w, D)`, with the class token first, or `(B, 1, D)` with `class_token_only`; and the
        grid of tokens `(B, h, w, embed_dim)` that enters the encoder, or with `return_stages` a list of the outputs of all
        stages, of which this is the last.
    """
    stages = TokensToToken(
        config.embed_dim,
        config.token_attention,
        config.token_dim,
        config.soft_splits,
        config.token_drop_rate,
        return_stages,
        name=parts.TOKENS_TO_TOKEN,
        dtype=dtype,
    )(images)
    grid = stages[-1] if return_stages else stages
    x = ClassToken(name=parts.CLASS_TOKEN, dtype=dtype)(grid)
    x = PositionEmbedding(position_grid, config.learned_positions, name=parts.POSITION_EMBEDDING, dtype=dtype)(x, grid)
    x = keras.layers.Dropout(config.drop_rate, name=parts.DROPOUT, dtype=dtype)(x)
    for layer in _encoder_layers(config, class_token_only, dtype):
        x = layer(x)
    return FastLayerNorm(epsilon=config.norm_epsilon, name=parts.NORM, dtype=dtype)(x), stages


def _encoder_layers(config: T2TConfig, class_token_only: bool, dtype: Any) -> Iterator[keras.Layer]:
    """Yields the blocks and, after each group except the last, a transition that halves the width."""
    drop_path_rates = np.linspace(0.0, config.drop_path_rate, len(config.block_widths)).tolist()
    block = 0
    for group, depth in enumerate(config.group_depths):
        if group:
            name = parts.transition_name(group - 1)
            yield FastDense(config.group_widths[group], name=name, activation="gelu", dtype=dtype)
        for _ in range(depth):
            last = block == len(config.block_widths) - 1
            yield parts.BLOCK_CLASSES[config.block](
                **({"growth": config.growth} if config.block == "dense" else {}),
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                norm_epsilon=config.norm_epsilon,
                drop_rate=config.drop_rate,
                attention_drop_rate=config.attention_drop_rate,
                drop_path_rate=drop_path_rates[block],
                class_token_only=class_token_only and last,
                name=parts.block_name(block),
                dtype=dtype,
            )
            block += 1
