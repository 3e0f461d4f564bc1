"""The configuration of a model, and checks of arguments: plain Python that needs no TensorFlow."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any

TOKEN_ATTENTIONS = ("performer", "transformer", "convolution")
BLOCKS = ("standard", "squeeze_excite", "ghost", "dense")
SQUEEZE_REDUCTION = 16

SoftSplits = Sequence[tuple[int, int, int]]
"""`(kernel, stride, padding)` of each soft split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2TConfig:
    """Architecture of a T2T-ViT. The defaults are those of T2T-ViT-14.

    A plain ViT is the special case with a single split and no overlap: `token_attention="convolution"` and
    `soft_splits=((16, 16, 0),)` give the usual embedding of 16x16 patches.

    Args:
        token_attention: Layer between two soft splits: `"performer"` (linear attention), `"transformer"`, or `"convolution"`
            (no attention: a soft split followed by a dense layer is a convolution).
        token_dim: Width of the tokens between the soft splits.
        soft_splits: `(kernel, stride, padding)` of each soft split, in pixels or tokens. There must be at least one. The last
            one is followed by the projection to `embed_dim`, and each of the others by `token_attention`.
        embed_dim: Width of the backbone.
        depth: Number of encoder blocks. With `block="dense"`, a tuple with the number in each densely connected group.
        num_heads: Number of attention heads in each block.
        mlp_ratio: Hidden width of the MLP in a block, as a multiple of the width of the block.
        block: Type of the encoder block: `"standard"`, or one of the paper's design studies: `"squeeze_excite"` (channel
            attention), `"ghost"` (ghost operations), or `"dense"` (dense connections).
        growth: Number of channels that each block adds with `block="dense"`. Must be `None` with any other block.
        qkv_bias: Whether queries, keys and values in the blocks have a bias.
        learned_positions: Whether the position embedding is trained. Otherwise, it is a frozen table of sinusoids.
        norm_epsilon: Epsilon of the LayerNorms in the backbone.
        token_drop_rate: Dropout rate inside the token performers.
        drop_rate: Dropout rate after the position embedding, the attention projections and each layer of the MLPs.
        attention_drop_rate: Dropout rate of the attention weights in the blocks.
        drop_path_rate: Drop path (stochastic depth) rate of the last block. Rates increase linearly from 0 in the first block.

    Raises:
        ValueError: If no model can be built from these values.

    Example:

    >>> config = keras_t2t.T2TConfig(embed_dim=256, depth=7, num_heads=4, mlp_ratio=2.0)
    >>> config == keras_t2t.VARIANTS["t2t_vit_7"].config
    True
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "soft_splits", check_soft_splits(self.soft_splits))
        check_token_attention(self.token_attention)
        check_value(self.block in BLOCKS, "block", f"one of {BLOCKS}", self.block)
        for name in ("token_dim", "embed_dim", "num_heads"):
            check_value(is_count(getattr(self, name)), name, "a positive integer", getattr(self, name))
            object.__setattr__(self, name, int(getattr(self, name)))  # model files cannot store NumPy numbers
        if self.block == "dense":
            depths = _as_tuple(self.depth)
            expected = "a tuple of positive integers, the number of blocks in each group, with block='dense'"
            check_value(bool(depths) and all(map(is_count, depths)), "depth", expected, depths)
            check_value(is_count(self.growth), "growth", "a positive integer with block='dense'", self.growth)
            object.__setattr__(self, "depth", tuple(map(int, depths)))
            object.__setattr__(self, "growth", int(self.growth or 0))
        else:
            check_value(is_count(self.depth), "depth", "a positive integer", self.depth)
            object.__setattr__(self, "depth", int(self.group_depths[0]))
            check_value(self.growth is None, "growth", f"None with block={self.block!r}", self.growth)
        for name in ("mlp_ratio", "norm_epsilon"):
            value = getattr(self, name)
            check_value(_is_number(value) and value > 0, name, "a positive number", value)
            object.__setattr__(self, name, float(value))
        for name in ("token_drop_rate", "drop_rate", "attention_drop_rate", "drop_path_rate"):
            check_value(is_rate(getattr(self, name)), name, "a rate in [0, 1)", getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))
        self._check_widths()

    def _check_widths(self):
        widths = sorted(set(self.block_widths))
        divides = all(width % self.num_heads == 0 for width in widths)
        check_value(divides, "num_heads", f"a divisor of the width of every block, {widths}", self.num_heads)
        has_hidden = mlp_width(widths[0], self.mlp_ratio) >= 1
        check_value(has_hidden, "mlp_ratio", "a number that gives the MLPs at least one hidden channel", self.mlp_ratio)
        if self.block == "ghost":
            check_value(self.embed_dim % 2 == 0, "embed_dim", "an even number with block='ghost'", self.embed_dim)
            expected = "a number that makes the hidden width of the MLP divisible by 3 with block='ghost'"
            check_value(mlp_width(self.embed_dim, self.mlp_ratio) % 3 == 0, "mlp_ratio", expected, self.mlp_ratio)

    @property
    def group_depths(self) -> tuple[int, ...]:
        """Number of blocks in each group. There is a single group unless the blocks are densely connected."""
        return self.depth if isinstance(self.depth, tuple) else (self.depth,)

    @property
    def transition_widths(self) -> tuple[tuple[int, int], ...]:
        """Widths before and after each transition between two groups, which halves the width."""
        widths, width = [], self.embed_dim
        for depth in self.group_depths[:-1]:
            before = width + depth * (self.growth or 0)
            width = before // 2
            widths.append((before, width))
        return tuple(widths)

    @property
    def group_widths(self) -> tuple[int, ...]:
        """Width at the start of each group."""
        return self.embed_dim, *(width for _, width in self.transition_widths)

    @property
    def block_widths(self) -> tuple[int, ...]:
        """Width of the input tokens of each block."""
        growth = self.growth or 0
        groups = zip(self.group_widths, self.group_depths, strict=True)
        return tuple(width + i * growth for width, depth in groups for i in range(depth))

    @property
    def feature_dim(self) -> int:
        """Width of the output tokens of the last block."""
        return self.block_widths[-1] + (self.growth or 0)


def mlp_width(width: int, mlp_ratio: float) -> int:
    """Returns the number of hidden channels of an MLP, rounded down as in the reference implementation."""
    return int(width * mlp_ratio)


def squeezed_width(width: int) -> int:
    """Returns the number of hidden channels of a squeeze-and-excite layer."""
    return max(width // SQUEEZE_REDUCTION, 1)


def random_feature_count(token_dim: int) -> int:
    """Returns the number of random features of a performer."""
    return max(token_dim // 2, 1)


def token_grid(soft_splits: SoftSplits, height: int | None, width: int | None) -> tuple[Any, Any]:
    """Returns the number of rows and columns of tokens that soft splits make from an image.

    A split turns a side of n tokens into `(n + 2 * padding - kernel) // stride + 1`.

    Args:
        soft_splits: `(kernel, stride, padding)` of each soft split.
        height: Height of the image in pixels, or `None` if it is unknown.
        width: Width of the image in pixels, or `None` if it is unknown.

    Returns:
        `(rows, columns)`, with `None` for an unknown side.

    Raises:
        ValueError: If the image is too small for one token.

    Example:

    >>> keras_t2t.configs.token_grid([(7, 4, 2), (3, 2, 1), (3, 2, 1)], 224, None)
    (14, None)
    """

    def tokens(size: int) -> int:
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


def check_token_attention(value: str) -> None:
    """Raises `ValueError` unless `value` is one of `TOKEN_ATTENTIONS`."""
    check_value(value in TOKEN_ATTENTIONS, "token_attention", f"one of {TOKEN_ATTENTIONS}", value)


def check_soft_splits(value: Any) -> tuple[tuple[int, int, int], ...]:
    """Returns soft splits as a tuple of `(kernel, stride, padding)` tuples, or raises `ValueError` if they are invalid."""
    expected = "one or more tuples (kernel, stride, padding) of integers with kernel, stride >= 1 and 0 <= padding < kernel"
    splits = tuple(_as_tuple(split) for split in _as_tuple(value))
    valid = bool(splits) and all(
        len(split) == 3 and all(isinstance(n, numbers.Integral) for n in split) and split[1] >= 1 and 0 <= split[2] < split[0]
        for split in splits
    )
    check_value(valid, "soft_splits", expected, value)
    return tuple((int(kernel), int(stride), int(padding)) for kernel, stride, padding in splits)


def check_image_size(value: Any, *, may_be_unknown: bool = False) -> tuple:
    """Returns `(height, width)` as a tuple of Python integers.

    Args:
        value: The value of an argument `image_size`.
        may_be_unknown: Whether height and width may be `None`.

    Raises:
        ValueError: If it is not a height and a width.
    """
    size = _as_tuple(value)
    valid = len(size) == 2 and all(is_count(side) or (may_be_unknown and side is None) for side in size)
    check_value(valid, "image_size", "(height, width) in pixels", value)
    return tuple(side if side is None else int(side) for side in size)


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def is_count(value: Any) -> bool:
    """Returns whether `value` is a positive Python or NumPy integer."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def is_rate(value: Any) -> bool:
    """Returns whether `value` is a number in [0, 1)."""
    return _is_number(value) and 0 <= value < 1


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def check_value(condition: bool, name: str, expected: str, received: Any) -> None:
    """Raises a `ValueError` unless `condition` is true.

    Args:
        condition: Whether the value is valid.
        name: Name of the argument.
        expected: Valid values, in words.
        received: The value of the argument.
    """
    if not condition:
        raise ValueError(f"Invalid value for {name}: expected {expected}; received: {name}={received!r}")
