"""Position embedding: a table for one grid of tokens that is resized for any other."""

import keras
import numpy as np
from keras import ops

from keras_t2t.configs import is_count
from keras_t2t.layers.common import check_grid, precise_dtype, where


def sinusoids(positions: int, dim: int) -> np.ndarray:
    """Returns the fixed position table (positions, dim), float32: sines in the even columns, cosines in the odd ones.

    Vaswani et al., "Attention Is All You Need", section 3.5; `get_sinusoid_encoding` of the reference.
    """
    columns = np.arange(dim)
    angles = np.arange(positions)[:, None] * 10000.0 ** (-2 * (columns // 2) / dim)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")


def resize_positions(table, old_grid, new_grid):
    """Returns a position table for another grid of tokens, resized as PyTorch's bicubic interpolation does it.

    That is the cubic kernel with A = -0.75, half-pixel centers and clamped edges, without antialiasing, applied to rows and
    columns in turn; the class token's entry is kept.

    Args:
        table: (1 + h * w, D), the class token's entry first.
        old_grid: (h, w), the grid of the table, integers.
        new_grid: (rows, columns), the grid wanted, integers or scalar tensors.

    Returns:
        (1 + rows * columns, D), a tensor in the dtype of `table`.
    """
    table = ops.convert_to_tensor(table)
    grid = ops.reshape(table[1:], (*old_grid, table.shape[-1]))  # (h, w, D)
    by_row, by_column = (cubic_matrix(*sizes, table.dtype) for sizes in zip(old_grid, new_grid, strict=True))
    grid = ops.einsum("rh,hwd->rwd", by_row, grid)  # (rows, w, D)
    grid = ops.einsum("cw,rwd->rcd", by_column, grid)  # (rows, columns, D)
    return ops.concatenate([table[:1], ops.reshape(grid, (-1, table.shape[-1]))], axis=0)


def cubic_matrix(old: int, new, dtype):
    """Returns the matrix (new, old) of the weights with which cubic interpolation of `old` samples gives `new` ones."""
    position = (ops.cast(ops.arange(new), dtype) + 0.5) * (old / ops.cast(new, dtype)) - 0.5  # (new,)
    first = ops.floor(position)
    past = position - first
    matrix = 0.0
    for tap in (-1, 0, 1, 2):
        sample = ops.clip(ops.cast(first, "int32") + tap, 0, old - 1)  # the edges are clamped
        matrix += _cubic_kernel(ops.abs(past - tap))[:, None] * ops.one_hot(sample, old, dtype=dtype)
    return matrix


def _cubic_kernel(distance, a=-0.75):
    """Keys' cubic convolution kernel, for distances from 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return ops.where(distance <= 1, near, far)


@keras.saving.register_keras_serializable("keras_t2t")
class PositionEmbedding(keras.Layer):
    """Adds a position table to a sequence of tokens that starts with a class token.

    The table is a weight in either case, since checkpoints carry it: a trained one (plain ViT) or a frozen table of sinusoids
    (T2T-ViT; paper, section 4.1).

    Args:
        grid_size: (h, w), the grid of tokens that the table is made for.
        learned: whether the table is trained.

    Input:
        tokens: (B, 1 + rows * columns, D), the class token first.
        like: optional (B, rows, columns, any), a map on the grid of the tokens, of which only the shape is used. For a grid
            other than `grid_size` the table is resized at run time (`resize_positions`).

    Output:
        (B, 1 + rows * columns, D).

    Raises:
        ValueError: if the tokens fit neither the table nor the map `like`.
    """

    def __init__(self, grid_size: tuple[int, int], learned: bool = False, **kwargs):
        super().__init__(**kwargs)
        if not (isinstance(grid_size, (tuple, list)) and len(grid_size) == 2 and all(map(is_count, grid_size))):
            raise ValueError(f"{where(self)}: expected grid_size=(rows, columns); received: grid_size={grid_size!r}")
        self.grid_size = tuple(grid_size)
        self.learned = learned

    def build(self, tokens_shape, like_shape=None):
        if like_shape is None:
            check_grid(self, tokens_shape, self.grid_size, "grid_size")
        else:
            check_grid(self, tokens_shape, like_shape[1:3], "the map `like`")
        self.table = self.add_weight(
            name="table",
            shape=(1 + self.grid_size[0] * self.grid_size[1], tokens_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02)
            if self.learned
            else lambda shape, dtype: ops.convert_to_tensor(sinusoids(*shape), dtype=dtype),
            trainable=self.learned,
            autocast=False,
        )

    def call(self, tokens, like=None):
        grid = self.grid_size if like is None else tuple(ops.shape(like)[1:3])
        table = self.table
        if not (all(isinstance(n, int) for n in grid) and grid == self.grid_size):
            table = resize_positions(ops.cast(table, precise_dtype(table.dtype)), self.grid_size, grid)
        return tokens + ops.cast(table, tokens.dtype)

    def compute_output_shape(self, tokens_shape, like_shape=None):
        return tokens_shape

    def get_config(self):
        return {**super().get_config(), "grid_size": self.grid_size, "learned": self.learned}
