"""RandAugment (Cubuk et al. 2020), as in the recipes: `rand-m9-mstd0.5-inc1` in timm's notation.

There are 15 operations, most of which get stronger as the magnitude increases. The operations and their ranges are those of
timm (`timm/data/auto_augment.py`). The arithmetic is that of Pillow.

The layers of Keras and keras-cv are not used for three reasons. Their random numbers come from hidden state, so an epoch would
not be the same after an interruption. keras-cv lacks five of the operations. Both take several times as long
(`benchmarks/pipeline.py`).
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_t2t.data.augment import to_uint8
from keras_t2t.preprocessing import IMAGENET_MEAN

OPERATION_PROB = 0.5  # probability of applying an operation; otherwise, it is skipped
GRAY = [round(255 * mean) for mean in IMAGENET_MEAN]
LUMINANCE = (0.299, 0.587, 0.114)


def rand_augment(image: tf.Tensor, draws: tf.Tensor, strengths: tf.Tensor) -> tf.Tensor:
    """Applies `N` random operations to an image, one after another. Each is skipped with a probability of 1/2.

    Args:
        image: Uint8 tensor of shape `(H, W, 3)`.
        draws: Random numbers in [0, 1), shape `(N, 3)`: whether to apply an operation, its direction, and which one to apply.
        strengths: Strength of each operation, shape `(N,)`. Values are clipped to [0, 10].

    Returns:
        Uint8 tensor of shape `(H, W, 3)`.
    """
    return tf.while_loop(
        lambda i, image: i < draws.shape[0],
        lambda i, image: (i + 1, _apply_operation(image, draws[i], strengths[i])),
        (0, image),
    )[1]


def _apply_operation(image, draws, strength):
    level = tf.clip_by_value(strength, 0, 10) / 10
    signed = tf.where(draws[1] < 0.5, level, -level)
    branches = [functools.partial(operation, image, level, signed) for operation in OPERATIONS.values()]
    index = tf.where(draws[0] < OPERATION_PROB, tf.cast(draws[2] * len(branches), "int32"), len(branches))
    return tf.ensure_shape(tf.switch_case(index, [*branches, lambda: image]), image.shape)


def _auto_contrast(image, level, signed):
    """Stretches each channel so that its darkest value becomes 0 and its brightest value becomes 255."""
    low, high = (tf.cast(extreme(extreme(image, 0), 0), "float32") for extreme in (tf.reduce_min, tf.reduce_max))
    stretched = to_uint8((tf.cast(image, "float32") - low) * (255 / tf.maximum(high - low, 1)))
    return tf.where(high > low, stretched, image)


def _equalize(image, level, signed):
    """Equalizes the histogram of each channel."""
    bins = tf.constant([0, 256, 512]) + tf.cast(image, "int32")  # one histogram of 256 bins per channel, side by side
    counts = tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, 768), (3, 256))
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), 1)
    last = tf.gather(counts, brightest, axis=1, batch_dims=1)
    step = (tf.reduce_sum(counts, 1) - last)[:, None] // 255
    darker = tf.cast(tf.cast(counts, "float32") @ np.triu(np.ones((256, 256), "float32"), 1), "int32")  # cumsum is slow in XLA
    table = (step // 2 + darker) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), bins), "uint8")


def _posterize(image, level, signed):
    """Keeps the 4 most significant bits of each value at level 0, and no bits at level 1."""
    bits = tf.cast(4 + tf.floor(4 * level), "int32")
    values = tf.cast(image, "int32")
    return tf.cast(tf.bitwise.left_shift(tf.bitwise.right_shift(values, bits), bits), "uint8")


def _solarize(image, level, signed):
    return tf.where(tf.cast(image, "float32") >= 256 - tf.floor(256 * level), 255 - image, image)


def _solarize_add(image, level, signed):
    return tf.where(image < 128, image + tf.cast(110 * level, "uint8"), image)  # at most 127 + 110


def _blend(image, other, factor):
    """Interpolates between `other` (factor 0) and `image` (factor 1), and extrapolates for factors above 1."""
    return to_uint8(other + factor * (tf.cast(image, "float32") - other))


def _gray(image):
    return tf.tensordot(tf.cast(image, "float32"), LUMINANCE, 1)[..., None]


def _sharpness(image, level, signed):
    """Blends the image with a smoothed copy of itself. The border pixels are not smoothed."""
    height, width, _ = image.shape
    values = tf.cast(image, "int32")
    padded = tf.pad(values, [[1, 1], [1, 1], [0, 0]])
    window_sum = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    y, x = tf.range(height)[:, None, None], tf.range(width)[:, None]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    smoothed = tf.where(inner, tf.cast(window_sum + 4 * values, "float32") / 13, tf.cast(values, "float32"))
    return _blend(image, smoothed, 1 + 0.9 * signed)


def _warp(image, x=None, y=None):
    """Samples an image at the coordinates `x` and `y`, each `(H, W)`, or `None` for an axis that does not change.

    Sampling is bilinear. Everything outside the image is gray.
    """
    height, width, _ = image.shape
    rows, columns = _coordinates(image)
    left, right_weight = _interpolation(columns if x is None else x, width)
    top, bottom_weight = _interpolation(rows if y is None else y, height)
    # The image is padded with gray: one row and column before it, and two after it. Gray is subtracted first so that padding
    # with zeros has this effect. Adding it back undoes the wraparound of uint8.
    padded = tf.reshape(tf.pad(image - tf.constant(GRAY, "uint8"), [[1, 2], [1, 2], [0, 0]]), (-1, 3))
    top_left = tf.cast(top * (width + 3) + left, "int32")

    def pixels(offset):
        return tf.cast(tf.gather(padded, top_left + offset) + tf.constant(GRAY, "uint8"), "float32")

    def row(offset):
        if x is None:
            return pixels(offset)
        return pixels(offset) + right_weight * (pixels(offset + 1) - pixels(offset))

    return to_uint8(row(0) if y is None else row(0) + bottom_weight * (row(width + 3) - row(0)))


def _interpolation(coordinate, side):
    """Returns the index in the padded image of the pixel before a coordinate, and the weight `(H, W, 1)` of the next pixel."""
    coordinate = tf.clip_by_value(coordinate, -1, side) + 1
    before = tf.floor(coordinate)
    return before, (coordinate - before)[..., None]


def _coordinates(image):
    """Returns the y and x coordinates of each pixel."""
    return tf.meshgrid(*(tf.range(float(side)) for side in image.shape[:2]), indexing="ij")


def _rotate(image, level, signed):
    angle = signed * math.radians(30)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = (values - (side - 1) / 2 for values, side in zip(_coordinates(image), image.shape[:2], strict=True))
    return _warp(image, cos * x - sin * y + (image.shape[1] - 1) / 2, sin * x + cos * y + (image.shape[0] - 1) / 2)


def _shear_x(image, level, signed):
    y, x = _coordinates(image)
    return _warp(image, x=x + 0.3 * signed * y)


def _shear_y(image, level, signed):
    y, x = _coordinates(image)
    return _warp(image, y=y + 0.3 * signed * x)


def _translate_x(image, level, signed):
    _, x = _coordinates(image)
    return _warp(image, x=x + 0.45 * signed * image.shape[1])


def _translate_y(image, level, signed):
    y, _ = _coordinates(image)
    return _warp(image, y=y + 0.45 * signed * image.shape[0])


OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda image, level, signed: 255 - image,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda image, level, signed: _blend(image, _gray(image), 1 + 0.9 * signed),
    "contrast": lambda image, level, signed: _blend(image, tf.reduce_mean(_gray(image)), 1 + 0.9 * signed),
    "brightness": lambda image, level, signed: _blend(image, 0.0, 1 + 0.9 * signed),
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""Functions of an image, a level in [0, 1], and the level with a random sign. Images are uint8 of shape `(H, W, 3)`."""
