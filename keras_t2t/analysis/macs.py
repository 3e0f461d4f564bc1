"""Matrix products of one forward pass, derived from the configuration, and their multiply-accumulates."""

from typing import NamedTuple

from keras_t2t.configs import T2TConfig, mlp_width, random_feature_count, squeezed_width, token_grid
from keras_t2t.layers import EncoderBlock, TokensToToken
from keras_t2t.models import parts


class Product(NamedTuple):
    """Product of a matrix `(rows, inner)` and a matrix `(inner, columns)`.

    Attributes:
        rows: Rows of the first matrix.
        inner: Columns of the first matrix and rows of the second.
        columns: Columns of the second matrix.
        attention: Whether neither matrix is a weight: queries with keys, attention with values, and the random features of a
            performer.
    """

    rows: int
    inner: int
    columns: int
    attention: bool = False

    @property
    def multiply_accumulates(self) -> int:
        """Number of multiply-accumulates."""
        return self.rows * self.inner * self.columns

    @property
    def outputs(self) -> int:
        """Number of elements in the output."""
        return self.rows * self.columns


def multiply_accumulates(
    config: T2TConfig,
    image_size: tuple[int, int] = (224, 224),
    channels: int = 3,
    classes: int = 1000,
    class_token_only: bool = False,
) -> dict[str, int]:
    """Counts the multiply-accumulates of all matrix products for one image, stage by stage.

    This includes products with weights and those of attention: queries with keys, attention with values, and the random
    features of a performer. Operations that are linear in the number of tokens are not counted: norms, activations, softmax,
    additions and scaling. The default is the full forward pass of the authors' model. Classifiers of this package only compute
    the class token in their last block, which corresponds to `class_token_only=True`.

    Args:
        config: Configuration of the model.
        image_size: `(height, width)` of the image in pixels.
        channels: Number of channels of the image.
        classes: Number of outputs of the head. 0 for a model without a head.
        class_token_only: Whether the last block only computes the class token.

    Returns:
        A dictionary that maps each stage, named as in `matrix_products`, to its count.

    Raises:
        ValueError: If the image is too small for a single token.

    Example:

    >>> config = keras_t2t.config_of(keras_t2t.T2TViT7(weights=None))
    >>> sum(keras_t2t.analysis.multiply_accumulates(config).values())
    1146863616
    """
    stages = matrix_products(config, image_size, channels, classes, class_token_only)
    return {name: sum(product.multiply_accumulates for product in products) for name, products in stages.items()}


def matrix_products(
    config: T2TConfig,
    image_size: tuple[int, int] = (224, 224),
    channels: int = 3,
    classes: int = 1000,
    class_token_only: bool = False,
) -> dict[str, list[Product]]:
    """Lists the matrix products for one image, stage by stage.

    Glossary: N: tokens; n: tokens whose output is computed; D: width; d: `config.token_dim`; m: random features; K: values in a
    window.

    Args:
        config: Configuration of the model.
        image_size: `(height, width)` of the image in pixels.
        channels: Number of channels of the image.
        classes: Number of outputs of the head. 0 for a model without a head.
        class_token_only: Whether the last block only computes the class token.

    Returns:
        The products by stage: `"tokens_to_token"`, `"block0"`, ..., `"transition0"`, ..., `"head"`.

    Raises:
        ValueError: If the image is too small for a single token.
    """
    stages = {parts.TOKENS_TO_TOKEN: module_products(config, image_size, channels)}
    rows, columns = token_grid(config.soft_splits, *image_size)
    tokens, block = 1 + rows * columns, 0
    for group, depth in enumerate(config.group_depths):
        if group:
            before, after = config.transition_widths[group - 1]
            stages[parts.transition_name(group - 1)] = [Product(tokens, before, after)]
        for _ in range(depth):
            is_last = block == len(config.block_widths) - 1
            queries = 1 if class_token_only and is_last else tokens
            stages[parts.block_name(block)] = block_products(config, config.block, tokens, queries, config.block_widths[block])
            block += 1
    return {**stages, parts.HEAD: [Product(1, config.feature_dim, classes)]}


def module_products(module: T2TConfig | TokensToToken, image_size: tuple[int, int], channels: int) -> list[Product]:
    """Lists the matrix products of a T2T module for one image.

    Args:
        module: The layer, or a configuration, which has the same attributes.
        image_size: `(height, width)` of the image in pixels.
        channels: Number of channels of the image.
    """
    products: list[Product] = []
    rows, columns = image_size
    for split in module.soft_splits[:-1]:
        rows, columns = token_grid((split,), rows, columns)
        products += _token_attention(module, rows * columns, split[0] ** 2 * channels)
        channels = module.token_dim
    rows, columns = token_grid(module.soft_splits[-1:], rows, columns)
    return [*products, Product(rows * columns, module.soft_splits[-1][0] ** 2 * channels, module.embed_dim)]


def _token_attention(config, tokens, window):
    dim, features = config.token_dim, random_feature_count(config.token_dim)
    if config.token_attention == "convolution":
        return [Product(tokens, window, dim)]
    dense = [Product(tokens, window, 3 * dim)] + 3 * [Product(tokens, dim, dim)]  # qkv; projection and two layers of the MLP
    if config.token_attention == "transformer":
        return [*dense, Product(tokens, dim, tokens, True), Product(tokens, tokens, dim, True)]
    # Random features of keys and queries; keys with values; queries with the products of those.
    performer: list[tuple[int, int, int]] = [(tokens, dim, features)] * 2 + [(features, tokens, dim), (tokens, features, dim)]
    return dense + [Product(*sizes, True) for sizes in performer]


def block_products(block: T2TConfig | EncoderBlock, kind: str, tokens: int, queries: int, width: int) -> list[Product]:
    """Lists the matrix products of an encoder block for one image.

    Args:
        block: The layer, or a configuration, which has the same attributes.
        kind: A value of `T2TConfig.block`.
        tokens: Number of tokens N that enter the block.
        queries: Number of tokens n whose output is computed.
        width: Width of the tokens.
    """
    hidden, heads = mlp_width(width, block.mlp_ratio), block.num_heads
    # The gate of a squeeze-and-excite block depends on the mean over all tokens, so its attention needs all queries.
    attention_queries = tokens if kind == "squeeze_excite" else queries
    attention = [
        Product(heads * attention_queries, width // heads, tokens, True),
        Product(heads * attention_queries, tokens, width // heads, True),
        Product(attention_queries, width, width),
    ]
    if kind == "ghost":  # computes half of the queries, keys and values, and a third of the hidden channels
        projections = [Product(count, width, width // 2) for count in (queries, tokens, tokens)]
        return [*projections, *attention, Product(queries, width, hidden // 3), Product(queries, hidden, width)]
    if attention_queries == tokens:
        projections = [Product(tokens, width, 3 * width)]
    else:
        projections = [Product(1, width, width), Product(tokens, width, 2 * width)]
    products = [*projections, *attention, Product(queries, width, hidden), Product(queries, hidden, width)]
    if kind == "squeeze_excite":
        squeezed = squeezed_width(width)
        return [*products, Product(1, width, squeezed), Product(1, squeezed, width)]
    growth = getattr(block, "growth", None)  # of densely connected blocks
    return [*products, Product(queries, width, growth)] if growth else products
