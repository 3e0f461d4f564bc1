"""Interpolation as a matrix product, which runs the same on every backend and in every exported format."""

from collections.abc import Callable
from typing import Any

from keras import ops


def interpolation_matrix(old_size: Any, new_size: Any, dtype: Any, kernel: Callable, taps: tuple[int, ...]) -> Any:
    """Returns the matrix `(new_size, old_size)` that interpolates `new_size` samples from `old_size` samples.

    Samples are at half-pixel centers, and edges are clamped. There is no antialiasing.

    Args:
        old_size: Number of samples, an integer or a scalar tensor.
        new_size: Number of samples of the result, an integer or a scalar tensor.
        dtype: Dtype of the matrix.
        kernel: Function that maps distances to weights: `linear` or `cubic`.
        taps: Offsets of the samples for which the kernel is not zero, from the sample to the left.
    """
    scale = (old_size if isinstance(old_size, int) else ops.cast(old_size, dtype)) / ops.cast(new_size, dtype)
    position = (ops.cast(ops.arange(new_size, dtype="int32"), dtype) + 0.5) * scale - 0.5  # (new_size,)
    left = ops.floor(position)
    offset = position - left
    matrix = 0.0
    for tap in taps:
        sample = ops.clip(ops.cast(left, "int32") + tap, 0, old_size - 1)  # edges are clamped
        matrix += kernel(ops.abs(offset - tap))[:, None] * ops.one_hot(sample, old_size, dtype=dtype)
    return matrix


def cubic(distance: Any) -> Any:
    """Returns the value of Keys' cubic convolution kernel, for distances from 0 to 2. Its taps are -1, 0, 1 and 2."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return ops.where(distance <= 1, near, far)


def linear(distance: Any) -> Any:
    """Returns the value of the kernel of linear interpolation, for distances from 0 to 1. Its taps are 0 and 1."""
    return 1 - distance
