"""Model configurations: plain frozen data, no TensorFlow.

Sources: Yuan et al., "Tokens-to-Token ViT", ICCV 2021 (https://arxiv.org/abs/2101.11986), table 1 (the models) and
section 3.2 (the design studies); `models/t2t_vit*.py` and `models/vit.py` of the reference implementation
(https://github.com/yitu-opensource/T2T-ViT).
"""

import dataclasses
import itertools
import math
import numbers

TOKEN_ATTENTIONS = ("performer", "transformer", "convolution")
BLOCKS = ("standard", "squeeze_excite", "ghost", "dense")
SQUEEZE_REDUCTION = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2TConfig:
    """What a T2T-ViT is made of. The defaults are those of T2T-ViT-14.

    A plain ViT is the special case of one hard split: `token_attention="convolution", soft_splits=((16, 16, 0),)` is the usual
    embedding of 16x16 patches.

    Attributes:
        token_attention: what models the tokens between two soft splits: `"performer"` (linear attention), `"transformer"`, or
            `"convolution"` (no attention: a soft split followed by a dense layer is a convolution).
        token_dim: width of the tokens between the soft splits.
        soft_splits: (kernel, stride, padding) in pixels or tokens of each soft split, one or more. The last one is followed by
            the projection to `embed_dim`, every other one by `token_attention`.
        embed_dim: width of the backbone.
        depth: number of encoder blocks; with `block="dense"`, a tuple: the number in each densely connected group.
        num_heads: attention heads of each block.
        mlp_ratio: hidden width of a block's MLP over the width of the block.
        block: the encoder block: `"standard"`, or one of the paper's design studies: `"squeeze_excite"` (channel attention),
            `"ghost"` (ghost operations), `"dense"` (dense connections).
        growth: channels that each block adds with `block="dense"`; must be None with any other block.
        qkv_bias: whether queries, keys and values of the blocks have a bias.
        learned_positions: whether the position embedding is trained; otherwise it is a frozen table of sinusoids.
        norm_epsilon: epsilon of the backbone's LayerNorms.
        token_drop_rate: dropout inside the token performers.
        drop_rate: dropout after the position embedding, the attention projections and the MLPs.
        attention_drop_rate: dropout of the blocks' attention weights.
        drop_path_rate: drop path (stochastic depth) of the last block; it grows linearly from 0 in the first.

    Raises:
        ValueError: for any value that no model can be built from.
    """

    token_attention: str = "performer"
    token_dim: int = 64
    soft_splits: tuple[tuple[int, int, int], ...] = ((7, 4, 2), (3, 2, 1), (3, 2, 1))
    embed_dim: int = 384
    depth: int | tuple[int, ...] = 14
    num_heads: int = 6
    mlp_ratio: float = 3.0
    block: str = "standard"
    growth: int | None = None
    qkv_bias: bool = False
    learned_positions: bool = False
    norm_epsilon: float = 1e-5
    token_drop_rate: float = 0.1
    drop_rate: float = 0.0
    attention_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "soft_splits", check_soft_splits(self.soft_splits))
        check_token_attention(self.token_attention)
        _check(self.block in BLOCKS, "block", f"one of {BLOCKS}", self.block)
        for name in ("token_dim", "embed_dim", "num_heads"):
            _check(is_count(getattr(self, name)), name, "a positive integer", getattr(self, name))
            object.__setattr__(self, name, int(getattr(self, name)))  # of numpy, too, which files of models cannot hold
        if self.block == "dense":
            object.__setattr__(self, "depth", _as_tuple(self.depth))
            _check(
                bool(self.depth) and all(map(is_count, self.depth)),
                "depth",
                "a tuple of positive integers, the blocks of each group, with block='dense'",
                self.depth,
            )
            _check(is_count(self.growth), "growth", "a positive integer with block='dense'", self.growth)
        else:
            _check(is_count(self.depth), "depth", "a positive integer", self.depth)
            _check(self.growth is None, "growth", f"None with block={self.block!r}", self.growth)
        for name in ("mlp_ratio", "norm_epsilon"):
            _check(_is_number(getattr(self, name)) and getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("token_drop_rate", "drop_rate", "attention_drop_rate", "drop_path_rate"):
            _check(is_rate(getattr(self, name)), name, "a rate in [0, 1)", getattr(self, name))
        for width in self.block_widths:
            _check(
                width % self.num_heads == 0,
                "num_heads",
                f"a divisor of the width of every block, {sorted(set(self.block_widths))}",
                self.num_heads,
            )
        _check(
            int(min(self.block_widths) * self.mlp_ratio) >= 1,
            "mlp_ratio",
            "one that leaves the MLPs a hidden channel",
            self.mlp_ratio,
        )
        if self.block == "ghost":
            _check(self.embed_dim % 2 == 0, "embed_dim", "an even number with block='ghost'", self.embed_dim)
            _check(
                int(self.embed_dim * self.mlp_ratio) % 3 == 0,
                "mlp_ratio",
                "one that makes the MLP's hidden width divisible by 3 with block='ghost'",
                self.mlp_ratio,
            )

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Blocks in each group: a single group unless the blocks are densely connected."""
        return self.depth if self.block == "dense" else (self.depth,)

    @property
    def group_widths(self) -> tuple[int, ...]:
        """Width at the start of each group; the transition between two groups halves the width."""

        def after_transition(width, depth):
            return (width + depth * (self.growth or 0)) // 2

        return tuple(itertools.accumulate(self.group_depths[:-1], after_transition, initial=self.embed_dim))

    @property
    def block_widths(self) -> tuple[int, ...]:
        """Width of the tokens that enter each block."""
        growth = self.growth or 0
        groups = zip(self.group_widths, self.group_depths, strict=True)
        return tuple(width + i * growth for width, depth in groups for i in range(depth))

    @property
    def feature_dim(self) -> int:
        """Width of the tokens that leave the last block."""
        return self.block_widths[-1] + (self.growth or 0)


def token_grid(soft_splits, height: int | None, width: int | None) -> tuple[int | None, int | None]:
    """Returns the (rows, columns) of tokens after `soft_splits` of `height` x `width` pixels, None for a side that is unknown.

    A split makes floor((n + 2 * padding - kernel) / stride) + 1 tokens of the n on a side.

    Raises:
        ValueError: if there is not even one token.
    """

    def tokens(size):
        for kernel, stride, padding in soft_splits:
            size = (size + 2 * padding - kernel) // stride + 1
            if size < 1:
                return 0
        return size

    rows, columns = (size if size is None else tokens(size) for size in (height, width))
    if 0 in (rows, columns):
        raise ValueError(
            f"Expected images or token grids large enough for one token after the soft splits {tuple(soft_splits)} "
            f"(kernel, stride, padding); received: height={height}, width={width}"
        )
    return rows, columns


def check_token_attention(value: str):
    """Raises `ValueError` unless `value` names what models the tokens between two soft splits."""
    _check(value in TOKEN_ATTENTIONS, "token_attention", f"one of {TOKEN_ATTENTIONS}", value)


def check_soft_splits(value) -> tuple[tuple[int, int, int], ...]:
    """Returns soft splits as a tuple of (kernel, stride, padding) or raises `ValueError`."""
    expected = "one or more (kernel, stride, padding) of integers with kernel, stride >= 1 and 0 <= padding < kernel"
    splits = tuple(_as_tuple(split) for split in _as_tuple(value))
    valid = bool(splits) and all(
        len(split) == 3 and all(isinstance(n, numbers.Integral) for n in split) and split[1] >= 1 and 0 <= split[2] < split[0]
        for split in splits
    )
    _check(valid, "soft_splits", expected, value)
    return splits


def _as_tuple(value) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def is_count(value) -> bool:
    """Whether `value` is a positive integer, of Python or of numpy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1


def is_rate(value) -> bool:
    """Whether `value` is a number in [0, 1)."""
    return _is_number(value) and 0 <= value < 1


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _check(condition: bool, name: str, expected: str, received):
    if not condition:
        raise ValueError(f"Invalid value for {name}: expected {expected}; received: {name}={received!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A model with a name, and what is known about it.

    Attributes:
        constructor: Name of its constructor in `keras_t2t`.
        config: Its configuration.
        image_size: Height and width in pixels of the images that it is for.
        crop_fraction: Side of the center crop as a fraction of the resized image, in evaluation.
        authors_gmacs: Multiply-accumulates in billions for one 224x224 image, as published by the authors, or `None`.
        openmmlab_gmacs: The same as published by OpenMMLab, or `None`.
    """

    constructor: str
    config: T2TConfig
    image_size: int = 224
    crop_fraction: float = 0.9
    authors_gmacs: float | None = None
    openmmlab_gmacs: float | None = None


def _lite(depth: int) -> T2TConfig:
    return T2TConfig(embed_dim=256, depth=depth, num_heads=4, mlp_ratio=2.0)


_14 = T2TConfig(embed_dim=384, depth=14, num_heads=6)
_19 = T2TConfig(embed_dim=448, depth=19, num_heads=7)
_24 = T2TConfig(embed_dim=512, depth=24, num_heads=8)


def _with_transformer(config: T2TConfig) -> T2TConfig:
    return dataclasses.replace(config, token_attention="transformer")


VARIANTS: dict[str, Variant] = {
    "t2t_vit_7": Variant(constructor="T2TViT7", config=_lite(7), authors_gmacs=1.1),
    "t2t_vit_10": Variant(constructor="T2TViT10", config=_lite(10), authors_gmacs=1.5),
    "t2t_vit_12": Variant(constructor="T2TViT12", config=_lite(12), authors_gmacs=1.8),
    "t2t_vit_14": Variant(constructor="T2TViT14", config=_14, authors_gmacs=4.8),
    "t2t_vit_19": Variant(constructor="T2TViT19", config=_19, authors_gmacs=8.5),
    "t2t_vit_24": Variant(constructor="T2TViT24", config=_24, authors_gmacs=13.8),
    "t2t_vit_t_14": Variant(constructor="T2TViTt14", config=_with_transformer(_14), authors_gmacs=6.1, openmmlab_gmacs=4.34),
    "t2t_vit_t_19": Variant(constructor="T2TViTt19", config=_with_transformer(_19), authors_gmacs=9.8, openmmlab_gmacs=7.80),
    "t2t_vit_t_24": Variant(constructor="T2TViTt24", config=_with_transformer(_24), authors_gmacs=15.0, openmmlab_gmacs=12.69),
    "t2t_vit_14_resnext": Variant(constructor="T2TViT14ResNeXt", config=dataclasses.replace(_14, num_heads=32)),
    "t2t_vit_14_wide": Variant(constructor="T2TViT14Wide", config=T2TConfig(embed_dim=768, depth=4, num_heads=12)),
    "t2t_vit_14_se": Variant(constructor="T2TViT14SE", config=dataclasses.replace(_14, block="squeeze_excite")),
    "t2t_vit_16_ghost": Variant(constructor="T2TViT16Ghost", config=dataclasses.replace(_14, depth=16, block="ghost")),
    "t2t_vit_dense": Variant(
        constructor="T2TViTDense",
        config=T2TConfig(embed_dim=128, depth=(3, 6, 6, 4), num_heads=8, mlp_ratio=2.0, block="dense", growth=64),
    ),
    "vit_small_16": Variant(
        constructor="ViTSmall16",
        config=T2TConfig(
            token_attention="convolution",
            soft_splits=((16, 16, 0),),
            depth=12,
            mlp_ratio=4.0,
            qkv_bias=True,
            learned_positions=True,
            norm_epsilon=1e-6,
        ),
    ),
    "t2t_vit_tiny_32": Variant(
        constructor="T2TViTTiny32",
        config=T2TConfig(
            soft_splits=((3, 2, 1), (3, 2, 1)), embed_dim=128, depth=5, num_heads=4, mlp_ratio=2.0, learned_positions=True
        ),
        image_size=32,
        crop_fraction=1.0,
    ),
}
"""The published variants by name, the plain ViT-S/16 that the paper's ablation starts from, and one for 32x32 images.

The authors' counts are from the tables of their README (https://github.com/yitu-opensource/T2T-ViT, section 2), OpenMMLab's
from that of MMPretrain (https://github.com/open-mmlab/mmpretrain, configs/t2t_vit).
"""


def find_variant(name: str) -> Variant:
    """Returns one of `VARIANTS`.

    Raises:
        ValueError: If there is no such variant. The message lists all names.
    """
    if name not in VARIANTS:
        raise ValueError(f"Invalid variant: expected one of {', '.join(VARIANTS)}; received: {name!r}")
    return VARIANTS[name]


def variant_of(config: T2TConfig) -> str | None:
    """Returns the name of the variant with this configuration, whatever its dropout rates, or `None` if there is none."""
    rates = {field.name: field.default for field in dataclasses.fields(T2TConfig) if field.name.endswith("_rate")}
    config = dataclasses.replace(config, **rates)
    return next((name for name, variant in VARIANTS.items() if variant.config == config), None)
