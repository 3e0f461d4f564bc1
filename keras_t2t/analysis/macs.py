"""The matrix products of one forward pass, from the configuration alone, and how many multiply-accumulates they take."""

from typing import NamedTuple

from keras_t2t.configs import SQUEEZE_REDUCTION, T2TConfig, token_grid
from keras_t2t.models import parts


class Product(NamedTuple):
    """The product of a matrix (rows, inner) with a matrix (inner, columns).

    `attention` says that neither is a trained weight: queries with keys, attention with values, the performer's features.
    """

    rows: int
    inner: int
    columns: int
    attention: bool = False

    @property
    def multiply_accumulates(self) -> int:
        return self.rows * self.inner * self.columns

    @property
    def outputs(self) -> int:
        return self.rows * self.columns


def multiply_accumulates(
    config: T2TConfig, image_size=(224, 224), channels: int = 3, classes: int = 1000, class_token_only: bool = False
) -> dict[str, int]:
    """Counts the multiply-accumulates of matrix products for one image, stage by stage.

    Counted are the products with weights and those of attention: queries with keys, attention with values, and the performer's
    random features. Left out is what grows with the tokens alone: norms, activations, softmax, additions, scales.
    By default it is the full pass of the authors' model; a classifier of this package computes only the class token in its last
    block, which `class_token_only` counts.

    Args and names of the stages: see `matrix_products`.

    Returns:
        The counts by stage. Their sum is the whole.
    """
    stages = matrix_products(config, image_size, channels, classes, class_token_only)
    return {name: sum(product.multiply_accumulates for product in products) for name, products in stages.items()}


def matrix_products(
    config: T2TConfig, image_size=(224, 224), channels: int = 3, classes: int = 1000, class_token_only: bool = False
) -> dict[str, list[Product]]:
    """Lists the matrix products for one image, stage by stage.

    Glossary: N: tokens; n: tokens whose result is computed; D: width; d: `config.token_dim`; m: random features; K: values in a
    window.

    Args:
        config: the model.
        image_size: (height, width) of the image.
        channels: channels of the image.
        classes: outputs of the head; 0 without one.
        class_token_only: whether the last block computes the class token only.

    Returns:
        The products by stage: `"tokens_to_token"`, `"block0"`, ..., `"transition0"`, ..., `"head"`.
    """
    stages, sizes = {parts.TOKENS_TO_TOKEN: []}, image_size
    for i, split in enumerate(config.soft_splits):
        sizes = token_grid((split,), *sizes)
        tokens, window = sizes[0] * sizes[1], split[0] ** 2 * channels
        last = i == len(config.soft_splits) - 1
        products = [Product(tokens, window, config.embed_dim)] if last else _token_attention(config, tokens, window)
        stages[parts.TOKENS_TO_TOKEN] += products
        channels = config.token_dim
    tokens, block = 1 + sizes[0] * sizes[1], 0
    for group, (width, depth) in enumerate(zip(config.group_widths, config.group_depths, strict=True)):
        if group:
            before = config.group_widths[group - 1] + config.group_depths[group - 1] * (config.growth or 0)
            stages[parts.transition_name(group - 1)] = [Product(tokens, before, width)]
        for _ in range(depth):
            only = class_token_only and block == len(config.block_widths) - 1
            stages[parts.block_name(block)] = _block(config, tokens, 1 if only else tokens, config.block_widths[block])
            block += 1
    return {**stages, parts.HEAD: [Product(1, config.feature_dim, classes)]}


def _token_attention(config, tokens, window):
    dim, features = config.token_dim, max(config.token_dim // 2, 1)
    if config.token_attention == "convolution":
        return [Product(tokens, window, dim)]
    dense = [Product(tokens, window, 3 * dim)] + 3 * [Product(tokens, dim, dim)]  # qkv; projection and the MLP's two
    if config.token_attention == "transformer":
        return [*dense, Product(tokens, dim, tokens, True), Product(tokens, tokens, dim, True)]
    # Features of keys and queries; the sums that normalize; keys with values; queries with what those make.
    performer = [(tokens, dim, features)] * 2 + [(tokens, features, 1), (features, tokens, dim), (tokens, features, dim)]
    return dense + [Product(*sizes, True) for sizes in performer]


def _block(config, tokens, query_tokens, width):
    """The products of a block (N, D) -> (n, D)."""
    hidden, heads = int(width * config.mlp_ratio), config.num_heads
    all_ask = config.block == "squeeze_excite"  # whose gate is a mean over all tokens
    attending = tokens if all_ask else query_tokens
    attention = [
        Product(heads * attending, width // heads, tokens, True),
        Product(heads * attending, tokens, width // heads, True),
        Product(attending, width, width),
    ]
    if config.block == "ghost":  # half of the queries, keys and values and a third of the hidden channels are computed
        projections = [Product(count, width, width // 2) for count in (query_tokens, tokens, tokens)]
        return [*projections, *attention, Product(query_tokens, width, hidden // 3), Product(query_tokens, hidden, width)]
    whole = attending == tokens
    projections = (
        [Product(tokens, width, 3 * width)] if whole else [Product(1, width, width), Product(tokens, width, 2 * width)]
    )
    block = [*projections, *attention, Product(query_tokens, width, hidden), Product(query_tokens, hidden, width)]
    if config.block == "squeeze_excite":
        squeezed = max(width // SQUEEZE_REDUCTION, 1)
        return [*block, Product(1, width, squeezed), Product(1, squeezed, width)]
    return [*block, Product(query_tokens, width, config.growth)] if config.block == "dense" else block
