"""Where tokens lie on an image, and maps of tokens as maps of pixels. Plain numpy."""

import numpy as np

from keras_t2t.configs import token_grid


def token_centers(soft_splits, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the tokens lie after `soft_splits` of an image.

    A token lies in the middle of its window, in pixels counted from 0 in the middle of the first one. For the published
    variants that is 16 i + 1: the windows reach over the edges of the image. For 16x16 patches it is 16 i + 7.5.

    Args:
        soft_splits: (kernel, stride, padding) of each soft split.
        image_size: (height, width).

    Returns:
        The positions of the rows (h,) and of the columns (w,), float64.
    """
    step, first = 1.0, 0.0
    for kernel, stride, padding in soft_splits:
        first += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return tuple(first + step * np.arange(count) for count in token_grid(soft_splits, *image_size))


def nearest_tokens(centers, points) -> np.ndarray:
    """Returns the numbers (n,), row by row, of the tokens of a grid nearest to `points`, each (row, column) in pixels."""
    rows, columns = centers
    near = [(np.abs(rows - y).argmin(), np.abs(columns - x).argmin()) for y, x in points]
    return np.array([row * len(columns) + column for row, column in near])


def distances(centers) -> np.ndarray:
    """Returns the distances (N, N) in pixels between all tokens of a grid, row by row."""
    places = np.stack(np.meshgrid(*centers, indexing="ij"), -1).reshape(-1, 2)  # (N, 2)
    return np.sqrt(np.square(places[:, None] - places).sum(-1))


def to_pixels(maps, centers, image_size: tuple[int, int]) -> np.ndarray:
    """Interpolates maps of tokens linearly between their centers.

    Args:
        maps: (..., h, w).
        centers: of the rows (h,) and the columns (w,).
        image_size: (height, width).

    Returns:
        (..., height, width), float64; beyond the first and the last centers, their values.
    """
    by_row, by_column = (
        np.stack([np.interp(np.arange(size), places, one) for one in np.eye(len(places))], 1)  # (size, h or w)
        for size, places in zip(image_size, centers, strict=True)
    )
    return by_row @ np.asarray(maps, "float64") @ by_column.T
