"""RandAugment (Cubuk et al. 2020) as the recipes have it: `rand-m9-mstd0.5-inc1`, fifteen changes that grow with the magnitude.

The list and the ranges are those of timm (`timm/data/auto_augment.py`), the arithmetic is that of PIL. The layers of keras-cv
and Keras are not used: their random numbers come from a hidden state, so that an epoch would not come out the same after an
interruption; keras-cv's lacks five of the fifteen changes; and both take several times as long (`benchmarks/pipeline.py`).
"""

import functools
import math

import tensorflow as tf

from keras_t2t.data.augment import compiled, grey_levels
from keras_t2t.imagenet import MEAN

CHANGE_RATE = 0.5  # part of the changes that are made at all
GREY = [round(255 * mean) for mean in MEAN]
LUMINANCE = (0.299, 0.587, 0.114)


def rand_augment(image: tf.Tensor, changes: int, magnitude: float, deviation: float, seed: tf.Tensor) -> tf.Tensor:
    """Changes an image a few times, each time in one of fifteen ways or not at all.

    Args:
        image: (H, W, 3), uint8.
        changes: how many times.
        magnitude: mean strength of a change, 0 to 10.
        deviation: its standard deviation.
        seed: (2,).

    Returns:
        The same shape, uint8.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    draws = tf.random.stateless_uniform((changes, 3), seeds[0])
    strengths = tf.random.stateless_normal((changes,), seeds[1], magnitude, deviation)
    return _change_all(image, draws, strengths)


@compiled
def _change_all(image, draws, strengths):
    return tf.while_loop(
        lambda i, image: i < len(draws),
        lambda i, image: (i + 1, _change(image, draws[i], strengths[i])),
        (0, image),
    )[1]


def _change(image, draws, strength):
    """Makes one change, or none; three numbers in [0, 1) say whether, with which sign, and which."""
    level = tf.clip_by_value(strength, 0, 10) / 10
    signed = tf.where(draws[1] < 0.5, level, -level)
    ways = [functools.partial(change, image, level, signed) for change in CHANGES.values()]
    number = tf.where(draws[0] < CHANGE_RATE, tf.cast(draws[2] * len(ways), "int32"), len(ways))
    return tf.ensure_shape(tf.switch_case(number, [*ways, lambda: image]), image.shape)


def _auto_contrast(image, level, signed):
    """The darkest value of each channel becomes 0, the brightest 255."""
    values = tf.cast(image, "float32")
    low, high = tf.reduce_min(values, [0, 1]), tf.reduce_max(values, [0, 1])
    return tf.where(high > low, grey_levels((values - low) * (255 / tf.maximum(high - low, 1))), image)


def _equalize(image, level, signed):
    """Every channel gets all grey levels about equally often."""
    places = tf.constant([0, 256, 512]) + tf.cast(image, "int32")  # in one histogram after the other
    counts = tf.math.unsorted_segment_sum(tf.ones_like(places), places, 768)
    counts = tf.reshape(counts, (3, 256))
    brightest = tf.reduce_max(image, [0, 1])
    last = tf.gather(counts, tf.cast(brightest, "int32"), axis=1, batch_dims=1)
    step = (tf.reduce_sum(counts, 1) - last)[:, None] // 255
    table = (step // 2 + tf.cumsum(counts, 1, exclusive=True)) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), places), "uint8")


def _posterize(image, level, signed):
    """Keeps 4 bits at level 0, none at level 1."""
    bits = tf.cast(4 + tf.floor(4 * level), "int32")
    values = tf.cast(image, "int32")
    return tf.cast(tf.bitwise.left_shift(tf.bitwise.right_shift(values, bits), bits), "uint8")


def _solarize(image, level, signed):
    return tf.where(tf.cast(image, "float32") >= 256 - tf.floor(256 * level), 255 - image, image)


def _solarize_add(image, level, signed):
    return tf.where(image < 128, image + tf.cast(110 * level, "uint8"), image)  # at most 127 + 110


def _blend(image, other, factor):
    """Goes from another image, at 0, to the image, at 1, and beyond."""
    return grey_levels(other + factor * (tf.cast(image, "float32") - other))


def _grey(image):
    return tf.tensordot(tf.cast(image, "float32"), LUMINANCE, 1)[..., None]


def _sharpness(image, level, signed):
    """Against a smooth image, which has the same edges."""
    height, width, _ = image.shape
    values = tf.cast(image, "int32")
    wide = tf.pad(values, [[1, 1], [1, 1], [0, 0]])
    around = sum(wide[i : i + height, j : j + width] for i in range(3) for j in range(3))
    y, x = tf.range(height)[:, None, None], tf.range(width)[:, None]
    inside = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    smooth = tf.where(inside, tf.cast(around + 4 * values, "float32") / 13, tf.cast(values, "float32"))
    return _blend(image, smooth, 1 + 0.9 * signed)


def _transform(image, matrix):
    """Moves pixels by (x, y) -> (a0 x + a1 y + a2, a3 x + a4 y + a5), the way from the result to the image.

    What lies between pixels is interpolated, what comes from outside is grey.
    """
    height, width, _ = image.shape
    y, x = tf.meshgrid(tf.range(float(height)), tf.range(float(width)), indexing="ij")
    from_x = tf.clip_by_value(matrix[0] * x + matrix[1] * y + matrix[2], -1, width) + 1
    from_y = tf.clip_by_value(matrix[3] * x + matrix[4] * y + matrix[5], -1, height) + 1
    left, top = tf.floor(from_x), tf.floor(from_y)
    right_share, bottom_share = (from_x - left)[..., None], (from_y - top)[..., None]
    # One row and column of grey before the image, two after it; in unsigned numbers, which wrap around, as zeros.
    padded = tf.reshape(tf.pad(image - tf.constant(GREY, "uint8"), [[1, 2], [1, 2], [0, 0]]), (-1, 3))
    place = tf.cast(top * (width + 3) + left, "int32")
    near, right, below, far = (
        tf.cast(tf.gather(padded, place + step) + tf.constant(GREY, "uint8"), "float32")
        for step in (0, 1, width + 3, width + 4)
    )
    upper, lower = near + right_share * (right - near), below + right_share * (far - below)
    return grey_levels(upper + bottom_share * (lower - upper))


def _rotate(image, level, signed):
    angle = signed * math.radians(30)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = ((side - 1) / 2 for side in image.shape[:2])
    return _transform(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


CHANGES = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda image, level, signed: 255 - image,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda image, level, signed: _blend(image, _grey(image), 1 + 0.9 * signed),
    "contrast": lambda image, level, signed: _blend(image, tf.reduce_mean(_grey(image)), 1 + 0.9 * signed),
    "brightness": lambda image, level, signed: _blend(image, 0.0, 1 + 0.9 * signed),
    "sharpness": _sharpness,
    "shear_x": lambda image, level, signed: _transform(image, (1, 0.3 * signed, 0, 0, 1, 0)),
    "shear_y": lambda image, level, signed: _transform(image, (1, 0, 0, 0.3 * signed, 1, 0)),
    "translate_x": lambda image, level, signed: _transform(image, (1, 0, 0.45 * signed * image.shape[1], 0, 1, 0)),
    "translate_y": lambda image, level, signed: _transform(image, (1, 0, 0, 0, 1, 0.45 * signed * image.shape[0])),
}
"""From (image, level in [0, 1], level with a random sign) to the image; all uint8 (H, W, 3)."""
