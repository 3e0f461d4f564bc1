"""Positions of tokens on an image, and interpolation of token maps to pixels. Plain NumPy."""

from collections.abc import Sequence

import numpy as np

from keras_t2t.configs import SoftSplits, token_grid

Centers = tuple[np.ndarray, np.ndarray]


def token_centers(soft_splits: SoftSplits, image_size: tuple[int, int]) -> Centers:
    """Returns the positions of the tokens on the image after a sequence of soft splits.

    The position of a token is the center of its window, in pixels. The center of the first pixel is 0. For the published
    variants, token `i` lies at `16 i + 1`, because the windows extend beyond the edges of the image. For 16x16 patches, it lies
    at `16 i + 7.5`.

    Args:
        soft_splits: `(kernel, stride, padding)` of each soft split.
        image_size: `(height, width)` in pixels.

    Returns:
        The positions of the rows `(h,)` and of the columns `(w,)`, as float64 arrays.

    Raises:
        ValueError: If the image is too small for a single token.

    Example:

    >>> rows, columns = keras_t2t.analysis.token_centers([(16, 16, 0)], (48, 32))
    >>> rows.tolist(), columns.tolist()
    ([7.5, 23.5, 39.5], [7.5, 23.5])
    """
    step, first = 1.0, 0.0
    for kernel, stride, padding in soft_splits:
        first += step * ((kernel - 1) / 2 - padding)
        step *= stride
    rows, columns = token_grid(soft_splits, *image_size)
    return first + step * np.arange(rows), first + step * np.arange(columns)


def nearest_tokens(centers: Centers, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the indices of the tokens nearest to points on the image.

    Args:
        centers: Positions of the rows `(h,)` and of the columns `(w,)`.
        points: `(row, column)` of each point in pixels.

    Returns:
        Indices into the grid in row-major order, of shape `(n,)`.
    """
    rows, columns = centers
    nearest = [(np.abs(rows - y).argmin(), np.abs(columns - x).argmin()) for y, x in points]
    return np.array([row * len(columns) + column for row, column in nearest])


def distances(centers: Centers) -> np.ndarray:
    """Returns the distances between all tokens of a grid.

    Args:
        centers: Positions of the rows `(h,)` and of the columns `(w,)`.

    Returns:
        An array of shape `(N, N)`, in pixels. Tokens are in row-major order.
    """
    positions = np.stack(np.meshgrid(*centers, indexing="ij"), -1).reshape(-1, 2)  # (N, 2)
    return np.sqrt(np.square(positions[:, None] - positions).sum(-1))


def to_pixels(maps: np.ndarray, centers: Centers, image_size: tuple[int, int]) -> np.ndarray:
    """Interpolates token maps linearly to the pixels of the image.

    Args:
        maps: Token maps of shape `(..., h, w)`.
        centers: Positions of the rows `(h,)` and of the columns `(w,)`, as returned by `token_centers`.
        image_size: `(height, width)` in pixels.

    Returns:
        A float64 array of shape `(..., height, width)`. Pixels beyond the outermost centers get the value at the nearest
        center.

    Example:

    >>> centers = keras_t2t.analysis.token_centers([(2, 2, 0)], (4, 4))
    >>> keras_t2t.analysis.to_pixels(np.array([[0, 2], [0, 2]]), centers, (4, 4))[0].tolist()
    [0.0, 0.5, 1.5, 2.0]
    """
    row_weights, column_weights = (
        np.stack([np.interp(np.arange(size), positions, one_hot) for one_hot in np.eye(len(positions))], 1)  # (size, h or w)
        for size, positions in zip(image_size, centers, strict=True)
    )
    return row_weights @ np.asarray(maps, "float64") @ column_weights.T
