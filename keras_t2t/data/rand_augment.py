"""RandAugment (Cubuk et al. 2020) as the recipes have it: `rand-m9-mstd0.5-inc1`, fifteen changes that grow with the magnitude.

The list and the ranges are those of timm (`timm/data/auto_augment.py`). The arithmetic of auto contrast, equalization, colour,
contrast and sharpness is that of keras-cv. Its own layer `RandAugment` is not used, since its random numbers come from a hidden
state: the same epoch would not come out the same after an interruption. It also lacks five of the fifteen changes.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from keras_t2t.imagenet import MEAN

CHANGE_RATE = 0.5  # part of the changes that are made at all
GREY = [round(255 * mean) for mean in MEAN]


def rand_augment(image: tf.Tensor, changes: int, magnitude: float, deviation: float, seed: tf.Tensor) -> tf.Tensor:
    """Changes an image a few times, each time in one of fifteen ways or not at all.

    Args:
        image: (H, W, 3) in [0, 255].
        changes: how many times.
        magnitude: mean strength of a change, 0 to 10.
        deviation: its standard deviation.
        seed: (2,).

    Returns:
        The same shape, float32 in [0, 255].
    """
    image = tf.cast(image, "float32")
    for change_seed in tf.unstack(tf.random.experimental.stateless_split(seed, changes)):
        seeds = tf.random.experimental.stateless_split(change_seed, 3)
        chance, sign = tf.unstack(tf.random.stateless_uniform((2,), seeds[0]))
        strength = tf.random.stateless_normal((), seeds[1], magnitude, deviation)
        level = tf.clip_by_value(strength, 0, 10) / 10
        signed = tf.where(sign < 0.5, level, -level)
        ways = [functools.partial(change, image, level, signed) for change in CHANGES.values()]
        number = tf.random.stateless_uniform((), seeds[2], 0, len(ways), "int32")
        image = tf.cond(chance < CHANGE_RATE, lambda: tf.switch_case(number, ways), lambda: image)  # noqa: B023
        image = tf.ensure_shape(tf.clip_by_value(image, 0, 255), image.shape)
    return image


@functools.cache
def _keras_cv(name):
    """The arithmetic of one of the layers of keras-cv, which takes no random numbers."""
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError('RandAugment needs keras-cv: pip install "keras-t2t[train]"') from error
    arguments = {
        "AutoContrast": {"value_range": (0, 255)},
        "Equalization": {"value_range": (0, 255)},
        "RandomColorDegeneration": {"factor": 0.5},
        "RandomContrast": {"value_range": (0, 255), "factor": 0.5},
        "RandomSharpness": {"value_range": (0, 255), "factor": 0.5},
    }[name]
    # Some of it is Python that only AutoGraph makes a graph of.
    return tf.function(getattr(keras_cv.layers, name)(**arguments, dtype="float32").augment_images)


def _apply(name, image, factor=None):
    factors = None if factor is None else tf.reshape(factor, (1, 1, 1, 1))
    return tf.ensure_shape(_keras_cv(name)(image[None], transformations=factors)[0], image.shape)


def _posterize(image, level, signed):
    """Keeps 4 bits at level 0, none at level 1."""
    step = tf.pow(2.0, 4.0 + tf.floor(4 * level))
    return tf.floor(image / step) * step


# Products with masks, since `tf.where` is far slower.


def _solarize(image, level, signed):
    bright = tf.cast(image >= 256 - tf.floor(256 * level), "float32")
    return image + bright * (255 - 2 * image)


def _solarize_add(image, level, signed):
    dark = tf.cast(image < 128, "float32")
    return image + dark * tf.floor(110 * level)  # at most 127 + 110


def _grey(image):
    """An image of the mean colour; as large as the other, since a sum that repeats channels is slow."""
    return tf.constant(np.broadcast_to(GREY, image.shape), "float32")


def _transform(image, matrix):
    """Moves pixels by (x, y) -> (a0 x + a1 y + a2, a3 x + a4 y + a5), the way from the result to the image."""
    return (
        tf.raw_ops.ImageProjectiveTransformV3(
            images=(image - _grey(image))[None],  # so that what comes from outside is grey
            transforms=tf.reshape(tf.stack([*(tf.cast(a, "float32") for a in matrix), 0.0, 0.0]), (1, 8)),
            output_shape=tf.shape(image)[:2],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )[0]
        + _grey(image)
    )


def _rotate(image, level, signed):
    angle = signed * math.radians(30)
    cos, sin = tf.cos(angle), tf.sin(angle)
    y, x = ((side - 1) / 2 for side in tf.unstack(tf.cast(tf.shape(image)[:2], "float32")))
    return _transform(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _translate(image, signed, axis):
    """Moves pixels along an axis: two whole shifts, and what lies between them."""
    side = image.shape[axis]
    shift = 0.45 * signed * side
    whole = tf.floor(shift)
    margin = [[side // 2 + 1] * 2 if i == axis else [0, 0] for i in range(3)]
    wide = tf.pad(image - _grey(image), margin)
    begin = side // 2 + 1 + tf.cast(whole, "int32")
    near, far = (tf.slice(wide, [begin + i if axis == j else 0 for j in range(3)], image.shape) for i in range(2))
    return near + (shift - whole) * (far - near) + _grey(image)


CHANGES = {
    "auto_contrast": lambda image, level, signed: _apply("AutoContrast", image),
    "equalize": lambda image, level, signed: _apply("Equalization", image),
    "invert": lambda image, level, signed: 255 - image,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": lambda image, level, signed: _apply("RandomColorDegeneration", image, -0.9 * signed),
    "contrast": lambda image, level, signed: _apply("RandomContrast", image, 1 + 0.9 * signed),
    "brightness": lambda image, level, signed: image * (1 + 0.9 * signed),
    "sharpness": lambda image, level, signed: _apply("RandomSharpness", image, -0.9 * signed),
    "shear_x": lambda image, level, signed: _transform(image, (1, 0.3 * signed, 0, 0, 1, 0)),
    "shear_y": lambda image, level, signed: _transform(image, (1, 0, 0, 0.3 * signed, 1, 0)),
    "translate_x": lambda image, level, signed: _translate(image, signed, 1),
    "translate_y": lambda image, level, signed: _translate(image, signed, 0),
}
"""From (image, level in [0, 1], level with a random sign) to the image."""
