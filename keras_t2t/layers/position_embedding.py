"""The position embedding: a table for one grid of tokens, which is resized for other grids."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_t2t.configs import is_count
from keras_t2t.layers.common import check_grid, layer_path, precise_dtype
from keras_t2t.layers.interpolation import cubic, interpolation_matrix


def sinusoids(positions: int, dim: int) -> np.ndarray:
    """Returns the fixed position table `(positions, dim)` in float32, with sines in even columns and cosines in odd columns.

    See Vaswani et al., "Attention Is All You Need", section 3.5. Corresponds to `get_sinusoid_encoding` in the reference
    implementation.
    """
    columns = np.arange(dim)
    angles = np.arange(positions)[:, None] * 10000.0 ** (-2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")


def resize_positions(table: Any, old_grid: tuple, new_grid: tuple) -> Any:
    """Resizes a position table to another grid of tokens, like PyTorch's bicubic interpolation.

    The cubic convolution uses A = -0.75, half-pixel centers and clamped edges, without antialiasing. It is applied to the rows,
    then to the columns. The class token's entry is unchanged.

    Args:
        table: Tensor `(1 + h * w, D)`, with the class token's entry first.
        old_grid: Grid `(h, w)` of the table, as integers.
        new_grid: New grid `(rows, columns)`, as integers or scalar tensors.

    Returns:
        Tensor `(1 + rows * columns, D)` in the dtype of `table`.
    """
    table = ops.convert_to_tensor(table)
    grid = ops.reshape(table[1:], (*old_grid, table.shape[-1]))  # (h, w, D)
    row_weights, column_weights = (
        interpolation_matrix(old, new, table.dtype, cubic, (-1, 0, 1, 2)) for old, new in zip(old_grid, new_grid, strict=True)
    )
    grid = ops.einsum("rh,hwd->rwd", row_weights, grid)  # (rows, w, D)
    grid = ops.einsum("cw,rwd->rcd", column_weights, grid)  # (rows, columns, D)
    return ops.concatenate([table[:1], ops.reshape(grid, (-1, table.shape[-1]))], axis=0)


@keras.saving.register_keras_serializable("keras_t2t")
class PositionEmbedding(keras.Layer):
    """Adds a position table to a sequence of tokens that starts with a class token.

    The table is always a weight of the layer, because checkpoints contain it. It is trained in a plain ViT. In the published
    T2T-ViT models, it is a frozen table of sinusoids (section 4.1 of the paper).

    Args:
        grid_size: Token grid `(h, w)` that the table is for.
        learned: Whether the table is trained.

    Call arguments:
        tokens: Tensor `(B, 1 + rows * columns, D)`, with the class token first.
        like: Optional tensor `(B, rows, columns, ...)` on the same grid as the tokens. Only its shape is used. If the grid
            differs from `grid_size`, the table is resized at run time (see `resize_positions`).

    Output shape:
        `(B, 1 + rows * columns, D)`.

    Raises:
        ValueError: If `grid_size` is invalid, or if the tokens do not fit the grid of the table or of `like`.

    Example:

    >>> tokens = keras.Input((197, 384))
    >>> keras_t2t.layers.PositionEmbedding((14, 14))(tokens).shape
    (None, 197, 384)
    """

    def __init__(self, grid_size: tuple[int, int], learned: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if not (isinstance(grid_size, (tuple, list)) and len(grid_size) == 2 and all(map(is_count, grid_size))):
            raise ValueError(f"{layer_path(self)}: expected grid_size to be (rows, columns); received: {grid_size=}")
        self.grid_size: tuple[int, int] = (int(grid_size[0]), int(grid_size[1]))
        self.learned = learned

    def build(self, tokens_shape: tuple, like_shape: tuple | None = None) -> None:
        if like_shape is None:
            check_grid(self, tokens_shape, self.grid_size, "`grid_size`")
        else:
            check_grid(self, tokens_shape, like_shape[1:3], "`like`")
        self.table = self.add_weight(
            name="table",
            shape=(1 + self.grid_size[0] * self.grid_size[1], tokens_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02)
            if self.learned
            else lambda shape, dtype: ops.convert_to_tensor(sinusoids(*shape), dtype=dtype),
            trainable=self.learned,
            autocast=False,
        )

    def call(self, tokens: Any, like: Any = None) -> Any:
        grid = self.grid_size if like is None else tuple(ops.shape(like)[1:3])
        table = self.table
        if not (all(isinstance(n, int) for n in grid) and grid == self.grid_size):
            table = resize_positions(ops.cast(table, precise_dtype(table.dtype)), self.grid_size, grid)
        return tokens + ops.cast(table, tokens.dtype)

    def compute_output_shape(self, tokens_shape: tuple, like_shape: tuple | None = None) -> tuple:
        return tokens_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "grid_size": self.grid_size, "learned": self.learned}
