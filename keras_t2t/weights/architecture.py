"""Which model a checkpoint is of, from its names and shapes."""

import dataclasses
import math
import re

from keras_t2t.configs import VARIANTS, T2TConfig
from keras_t2t.errors import CheckpointError
from keras_t2t.models.parts import HEAD
from keras_t2t.weights.matching import layout_of, match
from keras_t2t.weights.names import POSITIONS, name_map

HEAD_DIM = 64  # channels of an attention head in every published checkpoint


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model that a checkpoint fits.

    Attributes:
        config: its configuration.
        image_size: (height, width) of the square images for which its position table was made.
        classes: outputs of its head, None without one.
    """

    config: T2TConfig
    image_size: tuple[int, int]
    classes: int | None


def infer_architecture(arrays, config: T2TConfig | None = None, num_heads: int | None = None) -> Architecture:
    """Returns the model of a checkpoint: the first of `VARIANTS` that it fits, or a T2T-ViT of another width and depth.

    Args:
        arrays: the entries of the checkpoint.
        config: the configuration, if it is known.
        num_heads: attention heads, which cannot be told from shapes; None for one for every 64 channels, as all published
            checkpoints have.

    Raises:
        CheckpointError: if it fits none.
    """
    if config is not None:
        return _fit(arrays, config)
    for variant in () if num_heads else VARIANTS.values():
        try:
            return _fit(arrays, variant.config)
        except CheckpointError:
            pass
    try:
        return _fit(arrays, _config_of_shapes({name: array.shape for name, array in arrays.items()}, num_heads))
    except (LookupError, ValueError) as error:
        raise CheckpointError(
            "The checkpoint is of no variant, and of no T2T-ViT of standard blocks for square images. Build its model with "
            f"keras_t2t.T2TViT(T2TConfig(...)) and call load_checkpoint. What does not fit:\n{error}"
        ) from error


def _fit(arrays, config) -> Architecture:
    """The sizes that a checkpoint gives a configuration, once it fits."""
    sources = {row.target: row.source for row in name_map(config, 2, classes=1, layout=layout_of(arrays, config))}
    positions, head = (arrays.get(sources[target]) for target in (POSITIONS, f"{HEAD}/bias"))
    classes = head.shape[0] if head is not None and head.ndim == 1 else None
    side = math.isqrt(positions.shape[-2] - 1) if positions is not None and positions.ndim > 1 else 1  # which does not fit
    match(arrays, config, (side, side), classes=classes)
    pixels = side * math.prod(stride for _, stride, _ in config.soft_splits)
    return Architecture(config, (pixels, pixels), classes)


def _config_of_shapes(shapes, num_heads) -> T2TConfig:
    """The configuration that entries in the layout of the authors or of OpenMMLab tell, with the published soft splits."""

    def shape(pattern):
        found = [shape for name, shape in shapes.items() if re.fullmatch(pattern, name)]
        if not found:
            raise LookupError(f"  missing: a name like {pattern}")
        return found[0]

    embed_dim = shape("cls_token")[-1]
    hidden = shape(r"(blocks|encoder)\.0\.(mlp\.fc1|ffn\.layers\.0\.0)\.weight")[0]
    performer = any(".kqv." in name for name in shapes)
    return T2TConfig(
        token_attention="performer" if performer else "transformer",
        token_dim=shape(r"tokens_to_token\.attention1\.(attn\.)?proj\.weight")[0],
        embed_dim=embed_dim,
        depth=1 + max(int(number) for name in shapes for number in re.findall(r"^(?:blocks|encoder)\.(\d+)\.", name)),
        num_heads=num_heads or max(embed_dim // HEAD_DIM, 1),
        mlp_ratio=hidden / embed_dim if int(embed_dim * (hidden / embed_dim)) == hidden else (hidden + 0.5) / embed_dim,
        qkv_bias=any(re.fullmatch(r"(blocks|encoder)\.0\.attn\.qkv\.bias", name) for name in shapes),
    )
