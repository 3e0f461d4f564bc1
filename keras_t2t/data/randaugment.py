"""RandAugment (Cubuk et al. 2020) as the recipes have it: `rand-m9-mstd0.5-inc1`, fifteen changes that grow with the magnitude.

The list and the ranges are those of timm (`timm/data/auto_augment.py`), the arithmetic is that of PIL. The layers of keras-cv
and Keras are not used: their random numbers come from a hidden state, so that an epoch would not come out the same after an
interruption; keras-cv's lacks five of the fifteen changes; and both take several times as long (`benchmarks/pipeline.py`).
"""

import functools
import math

import numpy as np
import tensorflow as tf

from keras_t2t.data.augment import to_uint8
from keras_t2t.preprocessing import IMAGENET_MEAN

CHANGE_RATE = 0.5  # part of the changes that are made at all
GRAY = [round(255 * mean) for mean in IMAGENET_MEAN]
LUMINANCE = (0.299, 0.587, 0.114)


def rand_augment(image: tf.Tensor, draws: tf.Tensor, strengths: tf.Tensor) -> tf.Tensor:
    """Changes an image a few times, each time in one of fifteen ways or not at all.

    Args:
        image: (H, W, 3), uint8.
        draws: (N, 3), for N changes, in [0, 1): whether there is one, with which sign, and which.
        strengths: (N,), 0 to 10; what lies beyond is clipped.

    Returns:
        The same shape, uint8.
    """
    return tf.while_loop(
        lambda i, image: i < len(draws),
        lambda i, image: (i + 1, _change(image, draws[i], strengths[i])),
        (0, image),
    )[1]


def _change(image, draws, strength):
    level = tf.clip_by_value(strength, 0, 10) / 10
    signed = tf.where(draws[1] < 0.5, level, -level)
    ways = [functools.partial(change, image, level, signed) for change in CHANGES.values()]
    number = tf.where(draws[0] < CHANGE_RATE, tf.cast(draws[2] * len(ways), "int32"), len(ways))
    return tf.ensure_shape(tf.switch_case(number, [*ways, lambda: image]), image.shape)


def _auto_contrast(image, level, signed):
    """The darkest value of each channel becomes 0, the brightest 255."""
    low, high = (tf.cast(extreme(extreme(image, 0), 0), "float32") for extreme in (tf.reduce_min, tf.reduce_max))
    stretched = to_uint8((tf.cast(image, "float32") - low) * (255 / tf.maximum(high - low, 1)))
    return tf.where(high > low, stretched, image)


def _equalize(image, level, signed):
    """Every channel gets all gray levels about equally often."""
    places = tf.constant([0, 256, 512]) + tf.cast(image, "int32")  # in one histogram after the other
    counts = tf.reshape(tf.math.unsorted_segment_sum(tf.ones_like(places), places, 768), (3, 256))
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), 1)
    last = tf.gather(counts, brightest, axis=1, batch_dims=1)
    step = (tf.reduce_sum(counts, 1) - last)[:, None] // 255
    darker = tf.cast(tf.cast(counts, "float32") @ np.triu(np.ones((256, 256), "float32"), 1), "int32")  # cumsum is slow in XLA
    table = (step // 2 + darker) // tf.maximum(step, 1)
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
    return to_uint8(other + factor * (tf.cast(image, "float32") - other))


def _gray(image):
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


def _move(image, x=None, y=None):
    """Takes each pixel from another place, (H, W) both; along an axis without places it stays where it is.

    What lies between pixels is interpolated, what comes from outside is gray.
    """
    height, width, _ = image.shape
    rows, columns = _places(image)
    (left, right_share), (top, bottom_share) = (
        _between(columns if x is None else x, width),
        _between(rows if y is None else y, height),
    )
    # One row and column of gray before the image, two after it; in unsigned numbers, which wrap around, as zeros.
    padded = tf.reshape(tf.pad(image - tf.constant(GRAY, "uint8"), [[1, 2], [1, 2], [0, 0]]), (-1, 3))
    place = tf.cast(top * (width + 3) + left, "int32")

    def pixels(step):
        return tf.cast(tf.gather(padded, place + step) + tf.constant(GRAY, "uint8"), "float32")

    def row(step):
        return pixels(step) if x is None else pixels(step) + right_share * (pixels(step + 1) - pixels(step))

    return to_uint8(row(0) if y is None else row(0) + bottom_share * (row(width + 3) - row(0)))


def _between(place, side):
    """Returns the number of the pixel before a place, counted with one pixel of margin, and the share (H, W, 1) of the next."""
    place = tf.clip_by_value(place, -1, side) + 1
    before = tf.floor(place)
    return before, (place - before)[..., None]


def _places(image):
    return tf.meshgrid(*(tf.range(float(side)) for side in image.shape[:2]), indexing="ij")


def _rotate(image, level, signed):
    angle = signed * math.radians(30)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = (places - (side - 1) / 2 for places, side in zip(_places(image), image.shape[:2], strict=True))
    return _move(image, cos * x - sin * y + (image.shape[1] - 1) / 2, sin * x + cos * y + (image.shape[0] - 1) / 2)


def _shear_x(image, level, signed):
    y, x = _places(image)
    return _move(image, x=x + 0.3 * signed * y)


def _shear_y(image, level, signed):
    y, x = _places(image)
    return _move(image, y=y + 0.3 * signed * x)


def _translate(axis, image, level, signed):
    """Moves by up to 0.45 of a side, each pixel equally far between two others."""
    side = image.shape[axis]
    shift = 0.45 * signed * side
    whole = tf.floor(shift)
    margin = [math.ceil(0.45 * side) * (i == axis) for i in range(3)]
    padded = tf.pad(image - tf.constant(GRAY, "uint8"), [[before, before] for before in margin])
    # `tf.slice` would be compiled for each distance.
    near, following = (
        tf.roll(padded, -tf.cast(whole, "int32") - step, axis)[margin[0] :, margin[1] :][: image.shape[0], : image.shape[1]]
        for step in (0, 1)
    )
    near, following = (tf.cast(pixels + tf.constant(GRAY, "uint8"), "float32") for pixels in (near, following))
    return to_uint8(near + (shift - whole) * (following - near))


CHANGES = {
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
    "translate_x": functools.partial(_translate, 1),
    "translate_y": functools.partial(_translate, 0),
}
"""From (image, level in [0, 1], level with a random sign) to the image; all uint8 (H, W, 3)."""
