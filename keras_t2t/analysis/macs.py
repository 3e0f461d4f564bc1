"""How many multiply-accumulates one forward pass takes, from the configuration alone."""

from keras_t2t.configs import SQUEEZE_REDUCTION, T2TConfig, token_grid


def multiply_accumulates(config: T2TConfig, image_size=(224, 224), channels: int = 3, classes: int = 1000) -> dict[str, int]:
    """Counts the multiply-accumulates of matrix products for one image, stage by stage.

    Counted are the products with weights and those of attention: queries with keys, attention with values, and the performer's
    random features. Left out is what grows with the tokens alone: norms, activations, softmax, additions, scales.
    It is the full pass of the authors' model; a classifier of this package computes only the class token in its last block.

    Glossary: N: tokens; D: width; d: `config.token_dim`; m: random features; K: values in a window.

    Args:
        config: the model.
        image_size: (height, width) of the image.
        channels: channels of the image.
        classes: outputs of the head; 0 without one.

    Returns:
        The counts by layer: `"tokens_to_token"`, `"block0"`, ..., `"transition0"`, ..., `"head"`. Their sum is the whole.
    """
    counts, sizes = {"tokens_to_token": 0}, image_size
    for i, split in enumerate(config.soft_splits):
        sizes = token_grid((split,), *sizes)
        tokens, window = sizes[0] * sizes[1], split[0] ** 2 * channels
        last = i == len(config.soft_splits) - 1
        counts["tokens_to_token"] += tokens * window * config.embed_dim if last else _token_attention(config, tokens, window)
        channels = config.token_dim
    tokens, block = 1 + sizes[0] * sizes[1], 0
    for group, (width, depth) in enumerate(zip(config.group_widths, config.group_depths, strict=True)):
        if group:
            before = config.group_widths[group - 1] + config.group_depths[group - 1] * (config.growth or 0)
            counts[f"transition{group - 1}"] = tokens * before * width
        for _ in range(depth):
            counts[f"block{block}"] = _block(config, tokens, config.block_widths[block])
            block += 1
    return {**counts, "head": config.feature_dim * classes}


def _token_attention(config, tokens, window):
    dim = config.token_dim
    if config.token_attention == "convolution":
        return tokens * window * dim
    dense = tokens * (window * 3 * dim + 3 * dim * dim)  # keys, queries, values; projection and MLP
    if config.token_attention == "transformer":
        return dense + 2 * tokens**2 * dim
    features = dim // 2
    # Features of keys and queries; their products with the values and with each other's sum.
    return dense + tokens * (2 * dim * features + 2 * dim * features + features)


def _block(config, tokens, width):
    hidden = int(width * config.mlp_ratio)
    attention = 2 * tokens**2 * width
    if config.block == "ghost":  # half of the queries, keys and values and a third of the hidden channels are computed
        return attention + tokens * (3 * width * (width // 2) + width * width + width * (hidden // 3) + hidden * width)
    block = attention + tokens * (4 * width * width + 2 * width * hidden)
    if config.block == "squeeze_excite":
        return block + 2 * width * max(width // SQUEEZE_REDUCTION, 1)
    return block + (tokens * width * config.growth if config.block == "dense" else 0)
