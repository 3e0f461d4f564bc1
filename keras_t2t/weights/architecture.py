"""Inferring the architecture of a model from the names and shapes in its checkpoint."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from keras_t2t.configs import T2TConfig, mlp_width
from keras_t2t.errors import CheckpointError
from keras_t2t.models.parts import HEAD
from keras_t2t.variants import VARIANTS, variant_of
from keras_t2t.weights.matching import layout_of, match
from keras_t2t.weights.names import POSITIONS, name_map

VARIANT_CONFIGS = [variant.config for variant in VARIANTS.values()]
HEAD_DIM = 64  # channels per attention head in every published checkpoint


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture of a model that a checkpoint fits.

    Attributes:
        config: Configuration of the model.
        position_grid: `(rows, columns)` of the position table, which is assumed to be square.
        image_shape: `(height, width, channels)` of square images with that grid.
        classes: Number of outputs of the head, or `None` if there is no head.
    """

    config: T2TConfig
    position_grid: tuple[int, int]
    image_shape: tuple[int, int, int]
    classes: int | None


def infer_architecture(
    arrays: Mapping[str, np.ndarray], config: T2TConfig | None = None, num_heads: int | None = None
) -> Architecture:
    """Infers the architecture of the model that a checkpoint belongs to.

    The result is the first of `VARIANTS` that fits, or else a T2T-ViT with the width and depth of the checkpoint. If
    `num_heads` is given, the variants are skipped.

    Args:
        arrays: Entries of the checkpoint.
        config: Configuration of the model, if it is known.
        num_heads: Number of attention heads, which cannot be inferred from the shapes. With `None`, there is one head per 64
            channels, as in all published checkpoints.

    Returns:
        The architecture.

    Raises:
        CheckpointError: If no architecture fits.
    """
    if config is not None:
        try:
            return _fit(arrays, config)
        except CheckpointError as error:
            expected = variant_of(config) or "this configuration"
            raise CheckpointError(
                f"The checkpoint does not fit {expected}. {explain_mismatches(arrays, config, error)}"
            ) from None
    if not num_heads and (fit := _fit_first(arrays, VARIANT_CONFIGS)):
        return fit
    try:
        return _fit(arrays, _config_from_shapes({name: array.shape for name, array in arrays.items()}, num_heads))
    except (LookupError, ValueError) as error:
        raise CheckpointError(
            "The checkpoint fits neither a known variant nor a T2T-ViT with standard blocks and square images. To load it, "
            f"build its model with keras_t2t.T2TViT(T2TConfig(...)) and call load_checkpoint. Mismatches:\n{error}"
        ) from error


def explain_mismatches(arrays: Mapping[str, np.ndarray], config: T2TConfig, mismatches: CheckpointError) -> str:
    """Returns why a checkpoint does not fit a model: it belongs to another variant, or else the list of mismatches."""
    other = None if _fit_first(arrays, [config]) else _fit_first(arrays, VARIANT_CONFIGS)
    return f"These are the weights of {variant_of(other.config)}" if other else f"Mismatches:\n{mismatches}"


def _fit_first(arrays, configs):
    """Returns the `Architecture` of a checkpoint for the first of the configurations that fits, or `None`."""
    for config in configs:
        try:
            return _fit(arrays, config)
        except CheckpointError:
            pass
    return None


def _fit(arrays, config):
    """Returns the `Architecture` of a checkpoint whose configuration is known."""
    layout = layout_of(arrays, config)
    sources = {row.target: row.source for row in name_map(config, 2, classes=1, layout=layout)}
    positions, head = (arrays.get(sources[target]) for target in (POSITIONS, f"{HEAD}/bias"))
    classes = head.shape[0] if head is not None and head.ndim == 1 else None
    # Without a valid position table, any side length works, because `match` reports the table.
    side = math.isqrt(max(positions.shape[-2] - 1, 1)) if positions is not None and positions.ndim > 1 else 1
    channels = _channels(arrays, config, layout)
    match(arrays, config, (side, side), channels, classes)
    pixels = _side_in_pixels(config, side)
    return Architecture(config, (side, side), (pixels, pixels, channels), classes)


def _channels(arrays, config, layout):
    """Returns the number of channels of the images, from the first weight that depends on it."""
    one, two = (name_map(config, 2, channels, classes=1, layout=layout) for channels in (1, 2))
    row = next(row for row, other in zip(one, two, strict=True) if row.shape != other.shape)
    return max(arrays[row.source].size // math.prod(row.shape), 1) if row.source in arrays else 3


def _side_in_pixels(config, side):
    """Returns the side length of images with `side` rows of tokens: the product with the strides if the padding allows it."""
    smallest = largest = side
    for size, stride, padding in reversed(config.soft_splits):
        smallest = (smallest - 1) * stride + size - 2 * padding
        largest = largest * stride - 1 + size - 2 * padding
    return min(max(side * math.prod(stride for _, stride, _ in config.soft_splits), smallest), largest)


def _config_from_shapes(shapes, num_heads):
    """Returns the configuration of a checkpoint in the authors' or OpenMMLab's layout, with the published soft splits."""

    def shape_of(pattern):
        found = [shape for name, shape in shapes.items() if re.fullmatch(pattern, name)]
        if not found:
            raise LookupError(f"  missing: a name that matches {pattern}")
        return found[0]

    embed_dim = shape_of("cls_token")[-1]
    hidden_dim = shape_of(r"(blocks|encoder)\.0\.(mlp\.fc1|ffn\.layers\.0\.0)\.weight")[0]
    # The model truncates `embed_dim * mlp_ratio`. Adding half a unit keeps rounding errors from giving less than `hidden_dim`.
    mlp_ratio = hidden_dim / embed_dim
    if mlp_width(embed_dim, mlp_ratio) != hidden_dim:
        mlp_ratio = (hidden_dim + 0.5) / embed_dim
    return T2TConfig(
        token_attention="performer" if any(".kqv." in name for name in shapes) else "transformer",
        token_dim=shape_of(r"tokens_to_token\.attention1\.(attn\.)?proj\.weight")[0],
        embed_dim=embed_dim,
        depth=1 + max(int(index) for name in shapes for index in re.findall(r"^(?:blocks|encoder)\.(\d+)\.", name)),
        num_heads=num_heads or max(embed_dim // HEAD_DIM, 1),
        mlp_ratio=mlp_ratio,
        qkv_bias=any(re.fullmatch(r"(blocks|encoder)\.0\.attn\.qkv\.bias", name) for name in shapes),
    )
