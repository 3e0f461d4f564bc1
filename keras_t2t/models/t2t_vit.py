"""T2T-ViT from a configuration: the layers between images and normalised tokens, and the way back to the configuration."""

import keras
import numpy as np

from keras_t2t.configs import T2TConfig, token_grid
from keras_t2t.layers import (
    ClassToken,
    DenseBlock,
    EncoderBlock,
    GhostBlock,
    LayerNorm,
    PositionEmbedding,
    SqueezeExciteBlock,
    TokensToToken,
)
from keras_t2t.layers.dense import Dense

BLOCK_CLASSES = {
    "standard": EncoderBlock,
    "squeeze_excite": SqueezeExciteBlock,
    "ghost": GhostBlock,
    "dense": DenseBlock,
}


def encode(images, config: T2TConfig, *, table_size: int = 224, class_token_only: bool = False, dtype=None):
    """Adds the backbone of `config` to a functional model.

    Glossary of shapes:
        B: batch; H, W, C: the image; h, w: the grid of tokens; D: `config.feature_dim`.

    Args:
        images: symbolic tensor (B, H, W, C), normalised; H and W may be unknown.
        config: the model.
        table_size: height and width of the images that the position table is for, where H or W is unknown.
        class_token_only: whether the class token is all that is wanted.
        dtype: dtype or policy of every layer; None for the global policy.

    Returns:
        The normalised tokens (B, 1 + h * w, D), the class token first, or (B, 1, D) with `class_token_only`; and the grid
        (B, h, w, embed_dim) of tokens that entered the backbone.
    """
    grid = TokensToToken(
        config.embed_dim,
        config.token_attention,
        config.token_dim,
        config.soft_splits,
        config.token_drop_rate,
        name="tokens_to_token",
        dtype=dtype,
    )(images)
    grid_size = token_grid(config.soft_splits, *(size or table_size for size in images.shape[1:3]))
    x = ClassToken(name="class_token", dtype=dtype)(grid)
    x = PositionEmbedding(grid_size, config.learned_positions, name="position_embedding", dtype=dtype)(x, grid)
    x = keras.layers.Dropout(config.drop_rate, name="dropout", dtype=dtype)(x)
    for layer in _encoder_layers(config, class_token_only, dtype):
        x = layer(x)
    return LayerNorm(epsilon=config.norm_epsilon, name="norm", dtype=dtype)(x), grid


def _encoder_layers(config, class_token_only, dtype):
    """Yields the blocks, numbered from 0, and after each group but the last a transition to half the width."""
    drop_path_rates = np.linspace(0.0, config.drop_path_rate, len(config.block_widths)).tolist()
    block = 0
    for group, depth in enumerate(config.group_depths):
        if group:
            yield Dense(config.group_widths[group], name=f"transition{group - 1}", activation="gelu", dtype=dtype)
        for _ in range(depth):
            last = block == len(config.block_widths) - 1
            yield BLOCK_CLASSES[config.block](
                **({"growth": config.growth} if config.block == "dense" else {}),
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=config.qkv_bias,
                norm_epsilon=config.norm_epsilon,
                drop_rate=config.drop_rate,
                attention_drop_rate=config.attention_drop_rate,
                drop_path_rate=drop_path_rates[block],
                class_token_only=class_token_only and last,
                name=f"block{block}",
                dtype=dtype,
            )
            block += 1


def config_of(model: keras.Model) -> T2TConfig:
    """Returns the configuration of a model, read off its layers, so that it also holds for a model that was saved and loaded.

    Raises:
        ValueError: if the model does not have the layers of a T2T-ViT.
    """
    try:
        tokens = next(layer for layer in model.layers if isinstance(layer, TokensToToken))
        positions = next(layer for layer in model.layers if isinstance(layer, PositionEmbedding))
        blocks = [layer for layer in model.layers if isinstance(layer, EncoderBlock)]
        last = blocks[-1]
        block = next(name for name, cls in BLOCK_CLASSES.items() if type(last) is cls)
    except (AttributeError, StopIteration, IndexError):
        raise ValueError(
            "Expected a model built by keras_t2t, with the layers TokensToToken, PositionEmbedding and EncoderBlock, which "
            f"optimize_for_inference folds away: pass the model that it was made from; received: {model!r}"
        ) from None
    return T2TConfig(
        token_attention=tokens.token_attention,
        token_dim=tokens.token_dim,
        soft_splits=tokens.soft_splits,
        embed_dim=tokens.embed_dim,
        depth=_group_depths(model) if block == "dense" else len(blocks),
        num_heads=last.num_heads,
        mlp_ratio=last.mlp_ratio,
        block=block,
        growth=getattr(last, "growth", None),
        qkv_bias=last.qkv_bias,
        learned_positions=positions.learned,
        norm_epsilon=last.norm_epsilon,
        token_drop_rate=tokens.drop_rate,
        drop_rate=last.drop_rate,
        attention_drop_rate=last.attention_drop_rate,
        drop_path_rate=last.drop_path_rate,
    )


def _group_depths(model):
    """Counts the blocks between the transitions."""
    depths = [0]
    for layer in model.layers:
        if isinstance(layer, EncoderBlock):
            depths[-1] += 1
        elif layer.name.startswith("transition"):
            depths.append(0)
    return tuple(depths)
